-- What has changed, for those who watch; written in the transaction of the change. `seq` grows in the order of commits and is never used
-- twice: event_head, one row, holds the last one. `owner` is the user whose own thing it is about. Old rows go: store/events.rs says when.
CREATE TABLE events (
    seq BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    owner TEXT,
    state TEXT,
    operation_id TEXT
);
CREATE TABLE event_head (
    seq BIGINT NOT NULL
);
INSERT INTO event_head (seq) VALUES (0);
-- The part of a berth's status of which a change is told: all but figures of use.
ALTER TABLE berths ADD COLUMN told TEXT;
