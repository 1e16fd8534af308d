-- Which profile the members of a host group get, and whether a first use gives them a berth; the first rule that matches decides.
CREATE TABLE rules (
    id TEXT NOT NULL PRIMARY KEY,
    group_name TEXT NOT NULL UNIQUE,
    position BIGINT NOT NULL,
    profile_id TEXT NOT NULL REFERENCES profiles (id),
    auto BOOLEAN NOT NULL,
    most BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
-- The rule whose first use made the berth, and whether somebody named the profile himself: then no rule changes it.
ALTER TABLE berths ADD COLUMN rule_id TEXT;
ALTER TABLE berths ADD COLUMN profile_named BOOLEAN NOT NULL DEFAULT TRUE;
CREATE INDEX berths_rule ON berths (rule_id);
