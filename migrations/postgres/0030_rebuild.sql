-- A fresh root file system: when it was last asked for, and while that is wanted, whether Docker's data goes too.
ALTER TABLE berths ADD COLUMN rebuild_at BIGINT;
ALTER TABLE berths ADD COLUMN rebuild_wipe BOOLEAN;
