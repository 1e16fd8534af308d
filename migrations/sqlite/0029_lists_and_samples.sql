-- By what lists of berths are narrowed and ordered: the user's name as in users; `state` from now on what is shown, also before the node's
-- first word; what it used when the node last told; the names of its conditions, a space before and behind each.
ALTER TABLE berths ADD COLUMN user_name TEXT NOT NULL DEFAULT '';
ALTER TABLE berths ADD COLUMN used_memory BIGINT NOT NULL DEFAULT 0;
ALTER TABLE berths ADD COLUMN used_disk BIGINT NOT NULL DEFAULT 0;
ALTER TABLE berths ADD COLUMN last_used_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE berths ADD COLUMN conditions TEXT NOT NULL DEFAULT ' ';
UPDATE berths SET user_name = (SELECT u.name FROM users u WHERE u.id = berths.user_id);
CREATE INDEX berths_by_name ON berths (user_name);
CREATE INDEX berths_by_state ON berths (state, user_name);
CREATE INDEX berths_by_profile ON berths (profile_id, user_name);
CREATE INDEX berths_by_memory ON berths (used_memory, user_name);
CREATE INDEX berths_by_disk ON berths (used_disk, user_name);
CREATE INDEX berths_by_use ON berths (last_used_at, user_name);
-- How far an operation is; no total where none is known.
ALTER TABLE operations ADD COLUMN progress_done BIGINT;
ALTER TABLE operations ADD COLUMN progress_total BIGINT;
-- What each berth that is up uses, once a minute for 24 hours: `slot` is the minute of the day (0 to 1439), so that a berth never has more rows.
-- Counters as the kernel has them.
CREATE TABLE usage_samples (
    berth_id TEXT NOT NULL,
    slot BIGINT NOT NULL,
    at BIGINT NOT NULL,
    cpu_usec BIGINT NOT NULL,
    memory_bytes BIGINT NOT NULL,
    disk_bytes BIGINT NOT NULL,
    pids BIGINT NOT NULL,
    io_read_bytes BIGINT NOT NULL,
    io_write_bytes BIGINT NOT NULL,
    egress_bytes BIGINT NOT NULL,
    ingress_bytes BIGINT NOT NULL,
    PRIMARY KEY (berth_id, slot)
) WITHOUT ROWID;
