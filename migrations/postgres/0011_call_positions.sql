-- Up to where each berth's spool of calls is stored, whose berth it is, and what all stored calls occupy; written with the calls themselves.
CREATE TABLE call_positions (
    berth_id TEXT NOT NULL PRIMARY KEY,
    position BIGINT NOT NULL,
    user_name TEXT,
    uid BIGINT,
    updated_at BIGINT NOT NULL
);
CREATE TABLE call_totals (
    name TEXT NOT NULL PRIMARY KEY,
    bytes BIGINT NOT NULL
);
INSERT INTO call_totals (name, bytes) VALUES ('calls', 0);
