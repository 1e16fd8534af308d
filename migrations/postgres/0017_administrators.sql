-- Accounts with a password. Who is tied to a host account has his role by its peer credential too.
CREATE TABLE administrators (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    host_name TEXT,
    host_uid BIGINT UNIQUE,
    -- argon2id in PHC's text form.
    password TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    password_at BIGINT NOT NULL,
    signed_in_at BIGINT
);
