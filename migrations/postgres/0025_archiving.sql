-- What is to be done with an archive of the node before the rest of a berth's intent: written before it is deleted, or the berth made from it.
CREATE TABLE archiving (
    berth_id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('write', 'restore')),
    archive TEXT NOT NULL,
    done BOOLEAN NOT NULL
);
