-- Requests that came with an Idempotency-Key, and what they were answered. No status: the request is under way, or was when the server with
-- that `life` ended. No body: the answer is not kept. `request` is a hash of method, path and body. Old rows go: store/keyed.rs says when.
CREATE TABLE keyed_requests (
    caller TEXT NOT NULL,
    key TEXT NOT NULL,
    request TEXT NOT NULL,
    life TEXT NOT NULL,
    at BIGINT NOT NULL,
    status BIGINT,
    headers TEXT NOT NULL,
    body TEXT,
    PRIMARY KEY (caller, key)
);
CREATE INDEX keyed_requests_at ON keyed_requests (caller, at);
