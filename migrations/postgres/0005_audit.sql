-- Who asked for what; written in the transaction that writes the intent.
CREATE TABLE audit (
    id TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    actor_uid BIGINT,
    role TEXT NOT NULL,
    action TEXT NOT NULL,
    subject_kind TEXT NOT NULL CHECK (subject_kind IN ('berth', 'image', 'profile')),
    subject TEXT NOT NULL,
    details TEXT NOT NULL,
    operation_id TEXT,
    request_id TEXT
);
CREATE INDEX audit_subject ON audit (subject, id);
