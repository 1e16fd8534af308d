/* No C library: the same source makes the 64-bit and the 32-bit program, and nothing of an image is needed to run either. */
#include <asm/unistd.h>
#ifndef __NR_statmount
#define __NR_statmount 457
#endif

typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef __x86_64__
/* Bit 30 of the number: the x32 ABI. */
static long call(long n, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "0"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return r;
}
/* The 32-bit entry, taken by a 64-bit program; pointers must lie below 4 GiB. */
static long call80(long n, long a, long b, long c)
{
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "0"(n), "b"(a), "c"(b), "d"(c), "S"(0L), "D"(0L) : "r8", "r9", "r10", "r11", "memory");
    return (int)r;
}
__asm__(".globl _start\n_start: xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call begin\n");
#else
static long call(long n, long a, long b, long c, long d, long e, long f)
{
    long regs[7] = {n, a, b, c, d, e, f}, r;
    __asm__ volatile("push %%ebp\n push %%ebx\n mov 4(%%eax),%%ebx\n mov 8(%%eax),%%ecx\n mov 12(%%eax),%%edx\n mov 16(%%eax),%%esi\n"
                     "mov 20(%%eax),%%edi\n mov 24(%%eax),%%ebp\n mov (%%eax),%%eax\n int $0x80\n pop %%ebx\n pop %%ebp\n"
                     : "=a"(r) : "0"(regs) : "ecx", "edx", "esi", "edi", "memory");
    return r;
}
static long call80(long n, long a, long b, long c) { return call(n, a, b, c, 0, 0, 0); }
__asm__(".globl _start\n_start: xor %ebp,%ebp\n mov %esp,%eax\n and $-16,%esp\n sub $12,%esp\n push %eax\n call begin\n");
#endif

#define SIX(n, a, b, c, d, e, f, ...) call(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define sys(...) SIX(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

void *memset(void *p, int c, unsigned long n) { for (char *q = p; n--;) *q++ = (char)c; return p; }
void *memcpy(void *p, const void *s, unsigned long n) { char *q = p; const char *t = s; while (n--) *q++ = *t++; return p; }
static unsigned long length(const char *s) { unsigned long n = 0; while (s[n]) n++; return n; }
static int same(const char *a, const char *b) { while (*a && *a == *b) a++, b++; return *a == *b; }
static long number(const char *s) { long n = 0; while (*s >= '0' && *s <= '9') n = n * 10 + *s++ - '0'; return n; }
static void say(const char *s) { sys(__NR_write, 1, s, length(s)); }
static void say_number(long n) { char b[24], *p = b + 23; *p = 0; do *--p = (char)('0' + n % 10); while (n /= 10); say(p); }
static char *join(char *to, const char *a, const char *b)
{
    unsigned long n = length(a);
    memcpy(to, a, n);
    memcpy(to + n, b, length(b) + 1);
    return to;
}

enum { EPERM = 1, ENOENT, ESRCH, EINTR, EIO, ENXIO, E2BIG, ENOEXEC, EBADF, ECHILD, EAGAIN, ENOMEM, EACCES, EFAULT, ENOTBLK, EBUSY, EEXIST, EXDEV,
       ENODEV, ENOTDIR, EISDIR, EINVAL, ETXTBSY = 26, EROFS = 30, ENOSYS = 38, ELOOP = 40, EOVERFLOW = 75, EPROTONOSUPPORT = 93,
       ESOCKTNOSUPPORT, EOPNOTSUPP, EAFNOSUPPORT = 97, EADDRNOTAVAIL = 99, ECONNREFUSED = 111, ESTALE = 116, ENOKEY = 126 };
static const struct { int n; const char *name; } errnos[] = {
#define E(n) {n, #n}
    E(EPERM), E(ENOENT), E(ESRCH), E(EINTR), E(EIO), E(ENXIO), E(EBADF), E(ECHILD), E(EAGAIN), E(EACCES), E(EFAULT), E(EBUSY), E(EEXIST), E(EXDEV), E(ENODEV),
    E(ENOTDIR), E(EISDIR), E(EINVAL), E(ETXTBSY), E(EROFS), E(ENOSYS), E(ELOOP), E(EOVERFLOW), E(EPROTONOSUPPORT), E(ESOCKTNOSUPPORT),
    E(EOPNOTSUPP), E(EAFNOSUPPORT), E(EADDRNOTAVAIL), E(ECONNREFUSED), E(ESTALE), E(ENOKEY),
};

/* The failure of a step that only prepares an attempt; never an expected one. */
enum { PREPARING = 250 };
static int attempts, wrong;

/* `expected`: names of errnos, one blank between two. */
static void attempt(const char *name, long got, const char *expected)
{
    const char *shown = got >= 0 ? "SUCCEEDED" : got == -PREPARING ? "NOT-PREPARED" : 0;
    for (unsigned i = 0; !shown && i < sizeof errnos / sizeof *errnos; i++)
        if (errnos[i].n == -got) shown = errnos[i].name;
    int good = 0;
    for (const char *p = expected; shown && got < 0 && *p;) {
        unsigned long n = 0;
        while (p[n] && p[n] != ' ') n++;
        good |= length(shown) == n && !({ int d = 0; for (unsigned long i = 0; i < n; i++) d |= p[i] != shown[i]; d; });
        p += n + (p[n] == ' ');
    }
    attempts++;
    wrong += !good;
    say(good ? "refused\t" : "WRONG\t"), say(name), say("\t");
    if (shown) say(shown); else say("errno "), say_number(-got);
    say("\t"), say(expected), say("\n");
}

/* An attempt that changes its own namespaces or root: by a child, whose exit status is the errno. */
static long by_child(long (*act)(void))
{
    int status = 0;
    long pid = sys(__NR_fork);
    if (pid < 0) return -PREPARING;
    if (pid == 0) {
        long r = act();
        sys(__NR_exit_group, r < 0 ? -r : 0);
    }
    if (sys(__NR_wait4, pid, &status, 0, 0) != pid || (status & 0x7f)) return -PREPARING;
    return -((status >> 8) & 0xff);
}
#define BY_CHILD(name, expected, ...) do { long act(void) { __VA_ARGS__ } attempt(name, by_child(act), expected); } while (0)
#define NEED(x) do { if ((x) < 0) return -PREPARING; } while (0)
