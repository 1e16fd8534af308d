-- Long-running requests. `subject` is the user's or the image's name; `log` a JSON array of the last lines.
CREATE TABLE operations (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    berth_id TEXT,
    generation BIGINT,
    parameters TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'running', 'succeeded', 'failed', 'cancelled')),
    step TEXT NOT NULL,
    log TEXT NOT NULL,
    log_lines BIGINT NOT NULL,
    result TEXT,
    problem TEXT,
    revision BIGINT NOT NULL,
    actor TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    finished_at BIGINT
);
CREATE INDEX operations_subject ON operations (subject, id);
CREATE INDEX operations_unfinished ON operations (berth_id) WHERE finished_at IS NULL;
