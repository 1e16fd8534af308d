-- How a profile's berths join the host. `paths` is a JSON array of {path, read_only}; no ports_first: nothing appears on the host;
-- freeze_after and stop_after in seconds, NULL: never.
ALTER TABLE profiles ADD COLUMN home TEXT NOT NULL DEFAULT 'rw' CHECK (home IN ('rw', 'ro', 'none'));
ALTER TABLE profiles ADD COLUMN paths TEXT NOT NULL DEFAULT '[]';
ALTER TABLE profiles ADD COLUMN ports_first BIGINT DEFAULT 1024;
ALTER TABLE profiles ADD COLUMN ports_last BIGINT DEFAULT 65535;
ALTER TABLE profiles ADD COLUMN ports_open_to TEXT NOT NULL DEFAULT 'user' CHECK (ports_open_to IN ('user', 'host'));
ALTER TABLE profiles ADD COLUMN freeze_after BIGINT DEFAULT 900;
ALTER TABLE profiles ADD COLUMN stop_after BIGINT DEFAULT 43200;
