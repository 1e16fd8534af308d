-- Host accounts that hold a berth. The name is the account's; the uid is what the node saw at assignment.
CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    uid BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
