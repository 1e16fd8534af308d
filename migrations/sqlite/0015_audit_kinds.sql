-- Further kinds of subjects: the program knows which there are. SQLite drops a CHECK only with its table.
CREATE TABLE audit_new (
    id TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    actor_uid BIGINT,
    role TEXT NOT NULL,
    action TEXT NOT NULL,
    subject_kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    details TEXT NOT NULL,
    operation_id TEXT,
    request_id TEXT
);
INSERT INTO audit_new (id, at, actor, actor_uid, role, action, subject_kind, subject, details, operation_id, request_id)
    SELECT id, at, actor, actor_uid, role, action, subject_kind, subject, details, operation_id, request_id FROM audit ORDER BY id;
DROP TABLE audit;
ALTER TABLE audit_new RENAME TO audit;
CREATE INDEX audit_subject ON audit (subject, id);
