-- What the host says of the account of each berth, see domain/account.rs; rows of berths that are gone are dropped.
-- `misses` counts how often in a row it was not found while a known account of its source was.
CREATE TABLE accounts (
    berth_id TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL,
    detail TEXT NOT NULL,
    since BIGINT NOT NULL,
    looked_at BIGINT NOT NULL,
    misses BIGINT NOT NULL,
    missed_since BIGINT,
    local BOOLEAN NOT NULL,
    last_used_at BIGINT
);
CREATE INDEX calls_berth ON calls (berth_id, at);
