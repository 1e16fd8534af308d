-- Intent (wanted, limits, image, generation) and what the node last reported (state, status) of each berth.
-- A limit that is NULL is the profile's. The node has carried out the intent when applied = generation.
CREATE TABLE berths (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL UNIQUE REFERENCES users (id),
    profile_id TEXT NOT NULL REFERENCES profiles (id),
    image TEXT NOT NULL,
    image_name TEXT NOT NULL,
    cpu_millis BIGINT,
    memory_bytes BIGINT,
    pids BIGINT,
    disk_bytes BIGINT,
    allow_system BOOLEAN NOT NULL,
    wanted TEXT NOT NULL CHECK (wanted IN ('present', 'running', 'stopped', 'deleted')),
    restart_after BIGINT,
    generation BIGINT NOT NULL,
    applied BIGINT NOT NULL,
    state TEXT NOT NULL,
    status TEXT,
    problem TEXT,
    observed_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX berths_profile ON berths (profile_id);
CREATE INDEX berths_image ON berths (image);
