/* What a hostile tenant tries: every attempt is a line, with the errors by which the kernel may refuse it.
 *
 *   attack WHO HOST_PID OTHER_PID MARKER ABSTRACT KEY OTHER_KEY SHM HOME     WHO: root or user (uid 1000)
 *
 * Lines are `refused|WRONG <tab> name <tab> errno <tab> expected`, the last one `attempts N wrong M`. Run in a berth by tests/hostile.rs. */
#include "attack.h"

#define AT_FDCWD (-100)
#define O_WRONLY 1
#define O_PATH 010000000
#define MS_RDONLY 1
#define MS_REMOUNT 32
#define MS_BIND 4096
#define MS_MOVE 8192
#define MS_REC 16384
#define MS_PRIVATE (1 << 18)
#define MNT_DETACH 2
#define MNT_EXPIRE 4
#define NEWNS 0x20000
#define NEWUSER 0x10000000
#define NEWCGROUP 0x02000000

/* On i386 the older call takes 16 bits of an id. */
#ifdef __NR_setresuid32
#define SETRESUID __NR_setresuid32
#else
#define SETRESUID __NR_setresuid
#endif

static int root;
static long host_pid, other_pid, host_key, other_key, shm_key;
static const char *marker, *abstract, *home;
static char path[4096], other[4096];

static long open_at(const char *file, int flags) { return sys(__NR_openat, AT_FDCWD, file, flags); }
static long opened(const char *file, int flags) { long fd = open_at(file, flags); if (fd >= 0) sys(__NR_close, fd); return fd; }
static long written(const char *file, const char *text)
{
    long fd = open_at(file, O_WRONLY), r = fd;
    if (fd >= 0) r = sys(__NR_write, fd, text, length(text)), sys(__NR_close, fd);
    return r;
}
static long mounted(const char *what, const char *where, const char *kind, long flags) { return sys(__NR_mount, what, where, kind, flags, 0); }
static long unmounted(const char *where, int flags) { return sys(__NR_umount2, where, flags); }
static long made_dir(const char *dir) { long r = sys(__NR_mkdir, dir, 0700); return r == -EEXIST ? 0 : r; }
static long alone(void) { long r = sys(__NR_unshare, NEWNS); return r < 0 ? r : mounted(0, "/", 0, MS_REC | MS_PRIVATE); }
struct attributes { u64 set, clear, propagation, userns; };
static long cleared(int fd, const char *where, int flags)
{
    struct attributes a = {0, 1 | 2 | 4, 0, 0}; /* ro, nosuid, nodev */
    return sys(__NR_mount_setattr, fd, where, flags, &a, sizeof a);
}

/* S02: each on every way into the kernel. Numbers of x86-64 and i386; 0: there is none. */
static const struct { const char *name; int n64, n32; } refused[] = {
    {"io_uring_setup", 425, 425}, {"io_uring_enter", 426, 426}, {"io_uring_register", 427, 427}, {"bpf", 321, 357}, {"perf_event_open", 298, 336},
    {"kexec_load", 246, 283}, {"kexec_file_load", 320, 0}, {"init_module", 175, 128}, {"finit_module", 313, 350}, {"delete_module", 176, 129},
    {"request_key", 249, 287}, {"clock_settime", 227, 264}, {"clock_settime64", 0, 404}, {"settimeofday", 164, 79}, {"stime", 0, 25},
    {"swapon", 167, 87}, {"swapoff", 168, 115}, {"reboot", 169, 88}, {"userfaultfd", 323, 374}, {"acct", 163, 51}, {"iopl", 172, 110},
    {"ioperm", 173, 101}, {"syslog", 103, 103}, {"vhangup", 153, 111},
};
static char timex[512];

static void s02(void)
{
    for (unsigned i = 0; i < sizeof refused / sizeof *refused; i++) {
        const char *name = refused[i].name;
#ifdef __x86_64__
        if (refused[i].n64) {
            attempt(join(path, "S02 64-bit ", name), sys(refused[i].n64, 0, 0, 0), "EPERM");
            /* kexec_load has a number of its own there. */
            attempt(join(path, "S02 x32 ", name), sys((refused[i].n64 == 246 ? 528 : refused[i].n64) | 0x40000000, 0, 0, 0), "EPERM");
        }
#endif
        if (refused[i].n32) attempt(join(path, "S02 int 0x80 ", name), call80(refused[i].n32, 0, 0, 0), "EPERM");
    }
    timex[0] = 2; /* ADJ_FREQUENCY */
    attempt("S02 adjtimex", sys(__NR_adjtimex, timex), "EPERM");
    attempt("S02 clock_adjtime", sys(__NR_clock_adjtime, 0, timex), "EPERM");
    attempt("S02 keyctl describe a key of the host", sys(__NR_keyctl, 6, host_key, path, 64), "EACCES ENOKEY");
    attempt("S02 keyctl read a key of the host", sys(__NR_keyctl, 11, host_key, path, 64), "EACCES ENOKEY");
    attempt("S02 keyctl link a key of the host", sys(__NR_keyctl, 8, host_key, -3), "EACCES ENOKEY");
    attempt("S02 keyctl revoke a key of the host", sys(__NR_keyctl, 3, host_key), "EACCES ENOKEY");
    attempt("S02 keyctl describe a key of another berth", sys(__NR_keyctl, 6, other_key, path, 64), "EACCES ENOKEY");
    attempt("S02 keyctl read a key of another berth", sys(__NR_keyctl, 11, other_key, path, 64), "EACCES ENOKEY");
    attempt("S02 keyctl link a key of another berth", sys(__NR_keyctl, 8, other_key, -3), "EACCES ENOKEY");
    attempt("S02 fanotify of a file system", sys(__NR_fanotify_init, 4, 0), "EPERM");
}

static void processes(const char *whose, long pid)
{
    static u32 header[2], data[6];
    static char name[128];
    static long vector[2] = {(long)path, 8};
#define ON(what) join(name, what, whose)
    attempt(ON("I06 kill "), sys(__NR_kill, pid, 9), "ESRCH");
    attempt(ON("I06 tgkill "), sys(__NR_tgkill, pid, pid, 9), "ESRCH");
    attempt(ON("I06 pidfd_open "), sys(__NR_pidfd_open, pid, 0), "ESRCH");
    attempt(ON("S01 ptrace attach "), sys(__NR_ptrace, 16, pid, 0, 0), "ESRCH");
    attempt(ON("S01 ptrace seize "), sys(__NR_ptrace, 0x4206, pid, 0, 0), "ESRCH");
    attempt(ON("S01 process_vm_readv "), sys(__NR_process_vm_readv, pid, vector, 1, vector, 1, 0), "ESRCH");
    attempt(ON("S01 process_vm_writev "), sys(__NR_process_vm_writev, pid, vector, 1, vector, 1, 0), "ESRCH");
    attempt(ON("I06 prlimit "), sys(__NR_prlimit64, pid, 7, 0, path), "ESRCH");
    attempt(ON("I06 sched_setaffinity "), sys(__NR_sched_setaffinity, pid, 8, path), "ESRCH");
    attempt(ON("I06 setpriority "), sys(__NR_setpriority, 0, pid, 5), "ESRCH");
    attempt(ON("I06 ioprio_set "), sys(__NR_ioprio_set, 1, pid, 0), "ESRCH");
    attempt(ON("I06 move_pages "), sys(__NR_move_pages, pid, 0, 0, 0, 0, 0), "ESRCH ENOSYS");
    attempt(ON("I06 getsid "), sys(__NR_getsid, pid), "ESRCH");
    header[0] = 0x20080522, header[1] = (u32)pid;
    attempt(ON("I04 capget "), sys(__NR_capget, header, data), "ESRCH");
    for (const char *const *file = (const char *const[]){"/ns/mnt", "/ns/user", "/root", "/environ", "/mem", 0}; *file; file++) {
        char text[24], *p = text + 23;
        *p = 0;
        for (long n = pid; n; n /= 10) *--p = (char)('0' + n % 10);
        join(path, "/proc/", p), join(other, path, *file);
        join(path, "I03 open ", *file + 1);
        attempt(join(name, join(path + 64, path, " "), whose), opened(other, 0), "ENOENT");
    }
}

static void namespaces(void)
{
    /* linux/nsfs.h: the parent of what the berth has is out of its sight. */
    for (const char *const *kind = (const char *const[]){"user", "pid", 0}; *kind; kind++) {
        long fd = open_at(join(path, "/proc/self/ns/", *kind), 0);
        attempt(join(other, "I03 parent of the namespace ", *kind), fd < 0 ? -PREPARING : sys(__NR_ioctl, fd, 0xb702, 0), "EPERM");
        sys(__NR_close, fd);
    }
    /* Handles of the first namespaces, whose numbers are known; nsfs takes handles since 6.18. */
    static const struct { const char *name; u32 id, kind, inode; } first[] = {{"ipc", 1, 0x08000000, 0xefffffff}, {"uts", 2, 0x04000000, 0xeffffffe},
        {"user", 3, NEWUSER, 0xeffffffd}, {"pid", 4, 0x20000000, 0xeffffffc}, {"cgroup", 5, NEWCGROUP, 0xeffffffb}, {"time", 6, 0x80, 0xeffffffa},
        {"net", 7, 0x40000000, 0xeffffff9}, {"mnt", 8, NEWNS, 0xeffffff8}};
    for (unsigned i = 0; i < sizeof first / sizeof *first; i++) {
        struct { u32 bytes, type, id, high, kind, inode; } handle = {16, 0xf1, first[i].id, 0, first[i].kind, first[i].inode};
        attempt(join(path, "I03 handle of the host's namespace ", first[i].name), sys(__NR_open_by_handle_at, -10003, &handle, 0), "EPERM ESTALE EBADF EOPNOTSUPP");
    }
    /* Mounts of the host by their unique ids, which count from 2^31. */
    long got = -ENOENT;
    for (u32 i = 1; i <= 64; i++) {
        struct { u32 size, spare; u64 mount, mask, ns; } request = {24, 0, 0x80000000ULL + i, 2, 0};
        long r = sys(__NR_statmount, &request, path, sizeof path, 0);
        if (r != -ENOENT) got = r;
    }
    attempt("S01 statmount of the host's first mounts", got, "ENOENT ENOSYS EPERM");
    BY_CHILD("I01 map an id of outside the range", root ? "EPERM" : "EPERM EACCES", NEED(sys(__NR_unshare, NEWUSER)); return written("/proc/self/uid_map", "0 70000 1\n"););
    attempt("I02 become an id of outside the range", sys(SETRESUID, 70000, 70000, 70000), "EINVAL");
    attempt("I02 give a file to an id of outside the range", sys(__NR_fchownat, AT_FDCWD, "/tmp", 65536, 65536, 0), "EINVAL EPERM");
}

static void files(void)
{
    attempt("S01 open a file of the host", opened(marker, 0), "ENOENT");
    attempt("S01 open it below the root of PID 1", opened(join(path, "/proc/1/root", marker), 0), root ? "ENOENT" : "EACCES");
    attempt("S01 open it above the root", opened(join(path, "/../../../..", marker), 0), "ENOENT");
    attempt("S01 name_to_handle_at a file of the host", sys(__NR_name_to_handle_at, AT_FDCWD, marker, path, other, 0), "ENOENT");
    BY_CHILD("S01 out of a chroot and up", root ? "ENOENT" : "EPERM", {
        if (!root) return sys(__NR_chroot, "/tmp");
        NEED(made_dir("/tmp/jail")); long fd = open_at("/", 0200000); NEED(fd); NEED(sys(__NR_chroot, "/tmp/jail")); NEED(sys(__NR_fchdir, fd));
        for (int i = 0; i < 64; i++) sys(__NR_chdir, "..");
        NEED(sys(__NR_chroot, ".")); return opened(marker, 0);
    });
    /* A handle is a guess: inode 2 is the root of an ext4. Of the disk the berth sees two directories, of the home's file system one. */
    for (const char *const *at = (const char *const[]){"/var/lib/docker", "/", "/etc/resolv.conf", "/dev", home, 0}; *at; at++) {
        struct { u32 bytes, type, inode, generation; } handle = {8, 1, 2, 0};
        if (!root && same(*at, "/var/lib/docker")) continue;
        long fd = open_at(*at, 0);
        attempt(join(path, "S01 open_by_handle_at inode 2 of ", same(*at, home) ? "the home" : *at), fd < 0 ? -PREPARING : sys(__NR_open_by_handle_at, fd, &handle, 0), "EPERM ESTALE EOPNOTSUPP");
        sys(__NR_close, fd);
    }
    for (const char *const *at = (const char *const[]){"/sys/fs/cgroup/unified", "/sys/fs/cgroup", 0}; *at; at++) {
        struct { u32 bytes, type, low, high; } handle = {8, 0xfe, 1, 0};
        long fd = open_at(*at, 0);
        if (fd < 0) continue;
        attempt(join(path, "S01 open_by_handle_at the first group of ", *at), sys(__NR_open_by_handle_at, fd, &handle, 0), "EPERM ESTALE EOPNOTSUPP");
        sys(__NR_close, fd);
    }
    attempt("S01 write to the program of PID 1", opened("/proc/1/exe", O_WRONLY), "ETXTBSY EPERM EACCES");
    long leaked = -EBADF;
    for (int fd = 3; fd < 4096; fd++)
        if (sys(__NR_fcntl, fd, 1) >= 0) leaked = fd;
    attempt("S01 a descriptor that was left open", leaked, "EBADF");
    for (const char *const *dev = (const char *const[]){"/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg", "/dev/vda", "/dev/sda", "/dev/loop0", "/dev/loop-control", "/dev/kvm",
             "/dev/dri", "/dev/mapper/control", "/dev/userfaultfd", "/dev/vsock", "/dev/rtc0", "/dev/watchdog", "/dev/cpu/0/msr", "/dev/uinput", "/dev/zram0", 0}; *dev; dev++)
        attempt(join(path, "M04 open ", *dev), opened(*dev, 0), "ENOENT");
    for (const char *const *file = (const char *const[]){"/proc/kcore", "/proc/kmsg", "/proc/sysrq-trigger", "/proc/sys/kernel/sysrq", 0}; *file; file++)
        attempt(join(path, "P06 open ", *file), opened(*file, same(*file, "/proc/kcore") || same(*file, "/proc/kmsg") ? 0 : O_WRONLY), same(*file, "/proc/kmsg") ? "EACCES EPERM" : "EACCES EPERM ENOENT"); /* not in every kernel */
    for (const char *const *file = (const char *const[]){"kernel/panic", "kernel/modprobe", "kernel/core_pattern", "kernel/randomize_va_space", "kernel/kptr_restrict", "kernel/dmesg_restrict",
             "kernel/perf_event_paranoid", "kernel/threads-max", "kernel/printk", "kernel/keys/maxkeys", "vm/drop_caches", "vm/overcommit_memory", "vm/panic_on_oom", "vm/nr_hugepages", "fs/file-max",
             "fs/suid_dumpable", "fs/protected_symlinks", "fs/nr_open", "fs/pipe-max-size", "fs/inotify/max_user_watches", 0}; *file; file++)
        attempt(join(other, "P05 write ", *file), written(join(path, "/proc/sys/", *file), "1\n"), same(*file, "kernel/modprobe") || same(*file, "vm/nr_hugepages") ? "EACCES EROFS EPERM ENOENT" : "EACCES EROFS EPERM");
    attempt("P05 write nf_conntrack_max", written("/proc/sys/net/netfilter/nf_conntrack_max", "1\n"), "EACCES EPERM ENOENT");
    for (const char *const *file = (const char *const[]){"/sys/power/state", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/release_agent",
             "/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/systemd/release_agent", "/sys/devices/system/cpu/cpu0/online", "/sys/module/loop/parameters/max_loop", "/sys/class/block/loop0/uevent", "/sys/fs/cgroup/devices/devices.allow", 0}; *file; file++)
        attempt(join(path, "M04 write ", *file), written(*file, "a\n"), "EACCES EPERM EROFS ENOENT");
    for (const char *const *up = (const char *const[]){"/sys/fs/cgroup/../cgroup.procs", "/sys/fs/cgroup/pids/../../cgroup.procs", "/sys/fs/cgroup/unified/../../../cgroup.procs", 0}; *up; up++)
        attempt(join(path, "Q05 into a group above by ", *up), written(*up, "0\n"), "ENOENT ENOTDIR EACCES");
}

static const char *victim;
static long remounted(const char *where) { return mounted(0, where, 0, MS_REMOUNT | MS_BIND); }

/* M02, M03: a mount that came from the host; `file`: what can be a bind's target of its kind. */
static void host_mount(const char *place, const char *name, const char *file)
{
    static char full[256], what[256], copy[256];
    victim = place;
    join(copy, "/tmp/", file);
    static const char *target;
    target = copy;
#define M(text) join(full, text, name)
    (void)what;
    attempt(M("M02 remount "), remounted(place), "EPERM");
    attempt(M("M02 remount the file system of "), mounted(0, place, 0, MS_REMOUNT), "EPERM");
    attempt(M("M02 mount_setattr on "), cleared(AT_FDCWD, place, 0), "EPERM");
    long tree = sys(__NR_open_tree, AT_FDCWD, place, 1);
    attempt(M("M02 mount_setattr on a detached copy of "), tree < 0 ? (root ? -PREPARING : tree) : cleared((int)tree, "", 0x1000), "EPERM");
    sys(__NR_close, tree);
    attempt(M("M03 umount "), unmounted(victim, 0), root ? "EINVAL" : "EPERM");
    attempt(M("M03 umount lazily "), unmounted(victim, MNT_DETACH), root ? "EINVAL" : "EPERM");
    attempt(M("M03 umount by expiry "), unmounted(victim, MNT_EXPIRE), root ? "EINVAL EBUSY" : "EPERM");
    attempt(M("M03 umount by force "), unmounted(victim, 1), "EPERM EINVAL");
    attempt(M("M03 move "), mounted(victim, target, 0, MS_MOVE), root ? "EINVAL" : "EPERM");
    tree = sys(__NR_open_tree, AT_FDCWD, place, 0);
    attempt(M("M03 move_mount "), tree < 0 ? -PREPARING : sys(__NR_move_mount, tree, "", AT_FDCWD, target, 4), root ? "EINVAL" : "EPERM");
    sys(__NR_close, tree);
    if (root) {
        BY_CHILD(M("M02 bind a copy and remount "), "EPERM", NEED(alone()); NEED(mounted(victim, target, 0, MS_BIND)); return remounted(target););
        BY_CHILD(M("M02 remount in a fresh namespace "), "EPERM", NEED(alone()); return remounted(victim););
        BY_CHILD(M("M02 remount after chroot "), "EPERM", NEED(alone()); NEED(sys(__NR_chroot, "/")); return remounted(victim););
        BY_CHILD(M("M02 remount after pivot_root "), "EPERM", {
            NEED(alone()); NEED(made_dir("/tmp/pivot")); NEED(mounted("/", "/tmp/pivot", 0, MS_BIND | MS_REC)); NEED(sys(__NR_chdir, "/tmp/pivot"));
            NEED(sys(__NR_pivot_root, ".", ".")); NEED(unmounted(".", MNT_DETACH)); return remounted(victim);
        });
        BY_CHILD(M("M03 umount in a fresh namespace "), "EINVAL", NEED(alone()); return unmounted(victim, MNT_DETACH););
        BY_CHILD(M("M03 umount in a copy of the tree "), "EINVAL", {
            NEED(alone()); NEED(made_dir("/tmp/copy")); NEED(mounted("/", "/tmp/copy", 0, MS_BIND | MS_REC)); return unmounted(join(path, "/tmp/copy", victim), MNT_DETACH);
        });
        BY_CHILD(M("M03 pivot_root to "), "EINVAL ENOTDIR", NEED(alone()); return sys(__NR_pivot_root, victim, victim););
    }
    /* Where an ordinary user gets capabilities: a lesser namespace of his own. */
    BY_CHILD(M("M02 remount in a lesser namespace "), "EPERM", NEED(sys(__NR_unshare, NEWUSER | NEWNS)); return remounted(victim););
    BY_CHILD(M("M03 umount in a lesser namespace "), "EINVAL", NEED(sys(__NR_unshare, NEWUSER | NEWNS)); return unmounted(victim, MNT_DETACH););
}

static void mounts(void)
{
    made_dir("/tmp/dir");
    long fd = sys(__NR_openat, AT_FDCWD, "/tmp/file", 0101, 0600);
    sys(__NR_close, fd);
    host_mount("/dev", "/dev", "dir");
    host_mount("/etc/resolv.conf", "/etc/resolv.conf", "file");
    host_mount("/usr/local/sbin/runc", "the wrapper of runc", "file");
    host_mount(home, "the home", "dir");
    attempt("M02 write to /etc/resolv.conf", opened("/etc/resolv.conf", O_WRONLY), root ? "EROFS" : "EROFS EACCES");
    attempt("M02 write to the wrapper of runc", opened("/usr/local/sbin/runc", O_WRONLY), root ? "EROFS ETXTBSY" : "EROFS ETXTBSY EACCES");
    if (root) {
        BY_CHILD("M03 bind what lies below all mounts", "EINVAL", NEED(alone()); return mounted("/", "/tmp/dir", 0, MS_BIND););
        BY_CHILD("M03 clone what lies below all mounts", "EINVAL", NEED(alone()); return sys(__NR_open_tree, AT_FDCWD, "/", 1););
        BY_CHILD("M03 a lower layer of what lies below all mounts", "EINVAL", NEED(alone()); return sys(__NR_mount, "none", "/tmp/dir", "overlay", 1, "lowerdir=/:/tmp"););
    }
    for (const char *const *kind = (const char *const[]){"ext4", "xfs", "btrfs", "vfat", "iso9660", "devtmpfs", "debugfs", "tracefs", "securityfs", "configfs", "hugetlbfs", "pstore", "efivarfs", 0}; *kind; kind++)
        attempt(join(path, "M01 mount a ", *kind), mounted("/dev/loop0", "/tmp/dir", *kind, 0), "EPERM ENODEV ENOENT");
    static const struct { const char *name; int mode, major, minor; } nodes[] = {{"block 7:0", 060600, 7, 0}, {"block 8:0", 060600, 8, 0}, {"block 254:0", 060600, 254, 0},
        {"character 1:1 (mem)", 020600, 1, 1}, {"character 1:11 (kmsg)", 020600, 1, 11}, {"character 10:237 (loop-control)", 020600, 10, 237}};
    for (unsigned i = 0; i < sizeof nodes / sizeof *nodes; i++)
        for (const char *const *dir = (const char *const[]){"/tmp/", "/dev/", "/dev/shm/", 0}; *dir; dir++) {
            join(path, *dir, "node");
            join(join(other, "M04 mknod ", nodes[i].name) + length(other), " in ", *dir);
            attempt(other, sys(__NR_mknod, path, nodes[i].mode, nodes[i].major << 8 | nodes[i].minor), same(*dir, "/dev/") && !root ? "EPERM EACCES" : "EPERM");
        }
    attempt("Q03 quotactl", sys(__NR_quotactl, 0x800002 << 8, "/dev/loop0", 0, 0), "EPERM ENOENT ENODEV ENOSYS EINVAL");
}

static long acknowledged(int protocol, unsigned short type, const void *body, unsigned long size)
{
    static struct { u32 length; unsigned short type, flags; u32 sequence, port; char body[256]; } message, answer;
    memset(&message, 0, sizeof message);
    message.length = (u32)(16 + size), message.type = type, message.flags = 1 | 4;
    memcpy(message.body, body, size);
    long fd = sys(__NR_socket, 16, 3, protocol);
    if (fd < 0) return fd;
    long r = sys(__NR_sendto, fd, &message, message.length, 0, 0, 0);
    if (r >= 0) r = sys(__NR_read, fd, &answer, sizeof answer);
    sys(__NR_close, fd);
    return r < 0 ? r : answer.type == 2 ? *(int *)answer.body : 0;
}

static void sockets(void)
{
    struct { unsigned short family; char name[108]; } address;
    memset(&address, 0, sizeof address);
    address.family = 1;
    memcpy(address.name + 1, abstract, length(abstract));
    for (int kind = 1; kind <= 5; kind += kind == 1 ? 1 : 3) {
        long fd = sys(__NR_socket, 1, kind, 0);
        attempt(kind == 1 ? "N01 abstract socket of the host, stream" : kind == 2 ? "N01 abstract socket of the host, datagram" : "N01 abstract socket of the host, packets",
            fd < 0 ? -PREPARING : sys(__NR_connect, fd, &address, 3 + length(abstract)), "ECONNREFUSED");
        sys(__NR_close, fd);
    }
    char status[40];
    memset(status, 0, sizeof status);
    attempt("N01 audit by netlink", acknowledged(9, 1000, status, sizeof status), "EPERM ECONNREFUSED EPROTONOSUPPORT");
    struct { unsigned char family, pad; unsigned short type; int index; u32 flags, change; unsigned short length, attribute; u32 pid; } link = {0, 0, 0, 1, 0, 0, 8, 19, (u32)host_pid};
    attempt("N01 a link into the host's network", acknowledged(0, 16, &link, sizeof link), root ? "ESRCH" : "EPERM ESRCH");
    attempt("I03 shared memory of another berth", sys(__NR_shmget, shm_key, 0, 0), "ENOENT");
    struct { u32 policy; } priority = {1};
    attempt("Q02 real-time scheduling", sys(__NR_sched_setscheduler, 0, 1, &priority), "EPERM");
    attempt("Q02 a higher priority than the host's", sys(__NR_setpriority, 0, 0, -20), "EACCES EPERM");
    static const struct { u64 soft, hard; } more = {1ULL << 40, 1ULL << 40};
    attempt("Q05 a higher hard limit", sys(__NR_prlimit64, 0, 8, &more, 0), "EPERM");
}

__attribute__((used)) void begin(long *stack)
{
    char **argument = (char **)(stack + 1);
    if (stack[0] != 10) {
        say("usage: attack WHO HOST_PID OTHER_PID MARKER ABSTRACT KEY OTHER_KEY SHM HOME\n");
        sys(__NR_exit_group, 2);
    }
    root = same(argument[1], "root"), host_pid = number(argument[2]), other_pid = number(argument[3]), marker = argument[4], abstract = argument[5];
    host_key = number(argument[6]), other_key = number(argument[7]), shm_key = number(argument[8]), home = argument[9];
    s02();
    processes("of the host", host_pid);
    processes("of another berth", other_pid);
    namespaces();
    files();
    mounts();
    sockets();
    say("attempts "), say_number(attempts), say(" wrong "), say_number(wrong), say("\n");
    sys(__NR_exit_group, wrong != 0);
}
