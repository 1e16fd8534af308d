-- What becomes of a profile's berths that end unasked.
ALTER TABLE profiles ADD COLUMN restart TEXT NOT NULL DEFAULT 'on_failure' CHECK (restart IN ('on_failure', 'never'));
