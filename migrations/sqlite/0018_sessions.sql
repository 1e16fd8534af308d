-- Browsers that are signed in, and one-time links that sign one in. Of each secret there is only the SHA-256.
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    secret TEXT NOT NULL UNIQUE,
    administrator_id TEXT REFERENCES administrators (id) ON DELETE CASCADE,
    host_uid BIGINT,
    host_name TEXT,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    address TEXT NOT NULL,
    agent TEXT NOT NULL
);
CREATE INDEX sessions_administrator ON sessions (administrator_id);
CREATE INDEX sessions_host ON sessions (host_uid);
CREATE TABLE links (
    secret TEXT NOT NULL PRIMARY KEY,
    host_uid BIGINT NOT NULL,
    host_name TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);
