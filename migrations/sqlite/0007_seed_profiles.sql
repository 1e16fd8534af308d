-- The profiles of a fresh installation; administrators change them as they like.
INSERT INTO profiles (id, name, description, cpu_millis, memory_bytes, pids, disk_bytes, created_at, updated_at) VALUES
    ('019ab000-0000-7000-8000-000000000001', 'default', 'For everyday work', 2000, 2147483648, 1024, 10737418240, 1795000000000, 1795000000000),
    ('019ab000-0000-7000-8000-000000000002', 'student', 'A small berth for courses', 1000, 1073741824, 512, 5368709120, 1795000000000, 1795000000000),
    ('019ab000-0000-7000-8000-000000000003', 'developer', 'Builds and several services at once', 4000, 8589934592, 4096, 42949672960, 1795000000000, 1795000000000);
