-- When an assignment ends: the berth is suspended then (`ended`), and let go when the end is moved. NULL: it does not end.
ALTER TABLE berths ADD COLUMN ends_at BIGINT;
ALTER TABLE berths ADD COLUMN ended BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX berths_ends ON berths (ends_at);
