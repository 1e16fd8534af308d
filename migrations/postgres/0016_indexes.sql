-- What is due is asked with every intent, what is past its time every hour: neither reads the whole table.
CREATE INDEX berths_due ON berths (id) WHERE generation > applied OR wanted = 'deleted' OR status IS NULL;
CREATE INDEX operations_finished ON operations (finished_at);
CREATE INDEX audit_at ON audit (at);
