-- What users ask for beyond their limits, for a while. `berths.grants` repeats those that hold (approved, active, overdue), as JSON.
CREATE TABLE requests (
    id TEXT NOT NULL PRIMARY KEY,
    berth_id TEXT NOT NULL,
    user_name TEXT NOT NULL,
    state TEXT NOT NULL,
    asked TEXT NOT NULL,
    asked_until BIGINT NOT NULL,
    reason TEXT NOT NULL,
    granted TEXT,
    ends_at BIGINT NOT NULL,
    decided_by TEXT,
    decided_at BIGINT,
    word TEXT,
    -- The generation of the berth's intent that applies it or takes it away.
    generation BIGINT,
    problem TEXT,
    problem_since BIGINT,
    attempts BIGINT NOT NULL DEFAULT 0,
    -- When something is to be done with it by itself; NULL: nothing is.
    due_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX requests_user ON requests (user_name, id);
CREATE INDEX requests_berth ON requests (berth_id);
CREATE INDEX requests_due ON requests (due_at);
ALTER TABLE berths ADD COLUMN grants TEXT;
