-- Secrets for programs; only the SHA-256 of each.
CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    secret TEXT NOT NULL UNIQUE,
    administrator_id TEXT REFERENCES administrators (id) ON DELETE CASCADE,
    host_uid BIGINT,
    host_name TEXT,
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);
CREATE INDEX tokens_administrator ON tokens (administrator_id);
CREATE INDEX tokens_host ON tokens (host_uid);
