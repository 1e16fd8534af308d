# Users with a berth each and a trail, as months of work leave them. seed.py sqlite FILE | seed.py copy: text for psql on standard output.
import json, sqlite3, sys

USERS, CALLS, ACTIONS = (int(word) for word in sys.argv[2:5])
NOW = 1795000000000
DEFAULT = "019ab000-0000-7000-8000-000000000001"


def uuid(at, number):
    return f"{at:012x}"[:8] + "-" + f"{at:012x}"[8:] + f"-7{number >> 36 & 0xfff:03x}-8{number >> 24 & 0xfff:03x}-{number & 0xffffff:012x}"


def berth(number):
    return uuid(NOW, number)


def status(number):
    limits = {"cpu_millis": 2000, "cpu_weight": 100, "memory_bytes": 2147483648, "swap_bytes": 0, "pids": 1024, "disk_bytes": 10737418240}
    limits |= {name: None for name in ("memory_high_bytes inodes io_read_bps io_write_bps io_read_iops io_write_iops network_egress_bits"
                                       " network_ingress_bits").split()}
    return json.dumps({
        "user": f"user{number:05}", "id": berth(number), "state": "stopped", "docker_ready": False, "conditions": [],
        "image": "sha256:" + "ab" * 32, "limits": limits, "uid": 100000 + number, "id_base": 2000224256 + number * 65536 % 100000000,
        "id_count": 65536, "address": "10.0.0.2", "socket": f"/run/berth/users/{100000 + number}/docker.sock", "pid": None,
        "started_at": None, "usage": None,
    })


def users():
    for n in range(USERS):
        yield uuid(NOW, USERS + n), f"user{n:05}", 100000 + n, NOW


def berths():
    for n in range(USERS):
        yield (berth(n), uuid(NOW, USERS + n), DEFAULT, "sha256:" + "ab" * 32, "default", False, "present", 1, 1, "stopped", status(n), NOW, NOW, NOW, f"user{n:05}")


def audit():
    for n in range(ACTIONS):
        at = NOW + n * 1000
        details = json.dumps({"cpu_millis": 1500, "memory_bytes": 4294967296})
        yield (uuid(at, n), at, "root", 0, "admin", "change_berth", "berth", f"user{n * 7919 % USERS:05}", details, uuid(at, n), uuid(at, n))


def calls():
    for n in range(CALLS):
        at, user = NOW + n * 100, n * 7919 % USERS
        yield (uuid(at, n), n + 1, at, berth(user), f"user{user:05}", 100000 + user, 100000 + user, 4242, "docker", "GET", "1.45",
               f"/containers/{n:064x}/json", "docker.io/library/busybox:latest", f"{n:064x}", 200, 120, 4096, 3, "answered", 0, 600)


TABLES = {
    "users": ("id name uid created_at", users),
    "berths": ("id user_id profile_id image image_name allow_system wanted generation applied state status observed_at created_at updated_at user_name", berths),
    "audit": ("id at actor actor_uid role action subject_kind subject details operation_id request_id", audit),
    "calls": ("id seq at berth_id user_name user_uid uid pid command method version path image container status request_bytes response_bytes"
              " duration_ms outcome lost size", calls),
}

if sys.argv[1] == "copy":
    show = lambda value: {None: "\\N", True: "t", False: "f"}.get(value) or str(value) if value is None or isinstance(value, bool) else str(value)
    for table, (columns, rows) in TABLES.items():
        print(f"COPY {table} ({', '.join(columns.split())}) FROM STDIN;")
        for row in rows():
            print("\t".join(show(value) for value in row))
        print("\\.")
    print("ANALYZE;")
else:
    database = sqlite3.connect(sys.argv[5])
    database.execute("PRAGMA synchronous = OFF")
    for table, (columns, rows) in TABLES.items():
        names = columns.split()
        database.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", rows())
    database.commit()
