-- Further limits. Of those that a profile may leave out NULL is none; of a berth's own NULL is the profile's, and 0 is none whatever the
-- profile says. Bytes, bytes and operations per second, bits per second.
ALTER TABLE profiles ADD COLUMN cpu_weight BIGINT NOT NULL DEFAULT 100;
ALTER TABLE profiles ADD COLUMN swap_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE profiles ADD COLUMN memory_high_bytes BIGINT;
ALTER TABLE profiles ADD COLUMN inodes BIGINT;
ALTER TABLE profiles ADD COLUMN io_read_bps BIGINT;
ALTER TABLE profiles ADD COLUMN io_write_bps BIGINT;
ALTER TABLE profiles ADD COLUMN io_read_iops BIGINT;
ALTER TABLE profiles ADD COLUMN io_write_iops BIGINT;
ALTER TABLE profiles ADD COLUMN network_egress_bits BIGINT;
ALTER TABLE profiles ADD COLUMN network_ingress_bits BIGINT;
ALTER TABLE berths ADD COLUMN cpu_weight BIGINT;
ALTER TABLE berths ADD COLUMN swap_bytes BIGINT;
ALTER TABLE berths ADD COLUMN memory_high_bytes BIGINT;
ALTER TABLE berths ADD COLUMN inodes BIGINT;
ALTER TABLE berths ADD COLUMN io_read_bps BIGINT;
ALTER TABLE berths ADD COLUMN io_write_bps BIGINT;
ALTER TABLE berths ADD COLUMN io_read_iops BIGINT;
ALTER TABLE berths ADD COLUMN io_write_iops BIGINT;
ALTER TABLE berths ADD COLUMN network_egress_bits BIGINT;
ALTER TABLE berths ADD COLUMN network_ingress_bits BIGINT;
