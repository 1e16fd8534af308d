-- Docker API calls that came through users' sockets. `id` is a UUIDv7 of the call's time, `seq` grows in the order of storing.
-- `user_name` and `user_uid` are whose berth it is, `uid` is who called: the same, or root.
-- `size` estimates what the row occupies; `lost` counts calls of which no record came.
CREATE TABLE calls (
    id TEXT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    berth_id TEXT NOT NULL,
    user_name TEXT NOT NULL,
    user_uid BIGINT NOT NULL,
    uid BIGINT NOT NULL,
    pid BIGINT NOT NULL,
    command TEXT NOT NULL,
    method TEXT NOT NULL,
    version TEXT,
    path TEXT NOT NULL,
    image TEXT,
    container TEXT,
    status BIGINT,
    request_bytes BIGINT NOT NULL,
    response_bytes BIGINT NOT NULL,
    duration_ms BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    lost BIGINT NOT NULL,
    size BIGINT NOT NULL
);
CREATE UNIQUE INDEX calls_seq ON calls (seq);
CREATE INDEX calls_user ON calls (user_name, id);
