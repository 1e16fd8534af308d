-- A berth that an administrator has barred: why, who, and since when. Lies beside `wanted`, which a resume takes up again.
ALTER TABLE berths ADD COLUMN suspended TEXT;
ALTER TABLE berths ADD COLUMN suspended_by TEXT;
ALTER TABLE berths ADD COLUMN suspended_at BIGINT;
