/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A library to be loaded before all others (LD_PRELOAD), which makes one call of a program fail:
 *
 *   FAULT=EIO       the call on a file fails: open, read, write, fsync, rename, link, mkdir, ftruncate, mmap and their
 * kin FAULT=ENOSPC    the same for those that need room on the disk FAULT=EINTR     the same for open, read and write,
 * as if a signal had come FAULT=SHORT     reading or writing does half of what was asked FAULT=ENOMEM    an allocation
 * fails, counting each place of the program (the last calls on the stack) once FAULT_N=n       which one, from 1; 0 =
 * none, calls are only counted FAULT_STAYS=1   that one and all that follow: a disk that stays full FAULT_UNDER=D only
 * files below this folder FAULT_TOLD=F    F gets one line: the call that failed, or, when the program ends without one,
 * how many there were
 *
 * Only allocations of the program itself and of plugins count: how a library ends for want of memory is its own matter.
 * Programs that it starts are left in peace. Needs glibc.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <unwind.h>

#define SHOWN __attribute__((visibility("default")))

enum { OPENS = 1, READS = 2, WRITES = 4, CHANGES = 8, MAPS = 16, MEMORY = 32 };

static unsigned counted; /* which calls */
static int number;       /* errno */
static bool halves, stays;
static long wanted;
static const char *under, *told;
static size_t under_size;
static atomic_long calls;
static _Thread_local bool inside;

static void set_up(void) __attribute__((constructor));
static void tell_count(void) __attribute__((destructor));

static void set_up(void)
{
    static const struct {
        const char *name;
        unsigned counted;
        int number;
    } kinds[] = {{"EIO", OPENS | READS | WRITES | CHANGES | MAPS, EIO},
                 {"ENOSPC", WRITES | CHANGES, ENOSPC},
                 {"EINTR", OPENS | READS | WRITES, EINTR},
                 {"SHORT", READS | WRITES, 0},
                 {"ENOMEM", MEMORY, ENOMEM}};
    const char *kind = getenv("FAULT"), *n = getenv("FAULT_N");
    under = getenv("FAULT_UNDER");
    told = getenv("FAULT_TOLD");
    under_size = under ? strlen(under) : 0;
    wanted = n ? atol(n) : 0;
    stays = getenv("FAULT_STAYS") != NULL;
    for (size_t i = 0; kind && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kind, kinds[i].name) == 0) {
            counted = kinds[i].counted;
            number = kinds[i].number;
            halves = number == 0;
        }
    unsetenv("LD_PRELOAD");
}

static void tell(const char *call, const char *path)
{
    const int fd = told ? (int)syscall(SYS_openat, AT_FDCWD, told, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
    const char *const pieces[] = {call, " ", path, "\n"};
    for (size_t i = 0; fd >= 0 && i < 4; i++)
        syscall(SYS_write, fd, pieces[i], strlen(pieces[i]));
    if (fd >= 0)
        syscall(SYS_close, fd);
}

static void tell_count(void)
{
    char text[32];
    const long n = atomic_load(&calls);
    if (!counted || (wanted && n >= wanted))
        return;
    size_t at = sizeof text - 1;
    text[at] = '\0';
    for (long left = n; left > 0 || at == sizeof text - 1; left /= 10)
        text[--at] = (char)('0' + left % 10);
    tell("none of", text + at);
}

/* Whether this call is the one. */
static bool falls(const char *call, const char *path)
{
    const long n = atomic_fetch_add(&calls, 1) + 1;
    if (!wanted || n < wanted || (n > wanted && !stays))
        return false;
    if (n == wanted)
        tell(call, path);
    errno = number;
    return true;
}

static bool path_falls(unsigned kind, const char *call, const char *path)
{
    return (counted & kind) && path && under && strncmp(path, under, under_size) == 0 && falls(call, path);
}

static bool fd_falls(unsigned kind, const char *call, int fd)
{
    char link[] = "/proc/self/fd/0000000000", path[4096];
    if (!(counted & kind) || fd < 0)
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    return path_falls(kind, call, path);
}

/* What was there before, under the same name. */
#define REAL(name, ...)                            \
    static __typeof__(name) *real;                 \
    if (!real)                                     \
        *(void **)&real = dlsym(RTLD_NEXT, #name); \
    return real(__VA_ARGS__)

/* --- files by name --------------------------------------------------------------------------------------------------
 */

#define OPENING(name)                                                                 \
    SHOWN int name(const char *path, int flags, ...)                                  \
    {                                                                                 \
        va_list args;                                                                 \
        va_start(args, flags);                                                        \
        const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0; \
        va_end(args);                                                                 \
        if (path_falls(OPENS | (flags & O_CREAT ? CHANGES : 0), #name, path))         \
            return -1;                                                                \
        REAL(name, path, flags, mode);                                                \
    }
OPENING(open)
OPENING(open64)

#define OPENING_STREAM(name)                                               \
    SHOWN FILE *name(const char *path, const char *mode)                   \
    {                                                                      \
        if (path_falls(OPENS | (*mode != 'r' ? CHANGES : 0), #name, path)) \
            return NULL;                                                   \
        REAL(name, path, mode);                                            \
    }
OPENING_STREAM(fopen)
OPENING_STREAM(fopen64)

SHOWN int rename(const char *from, const char *to)
{
    if (path_falls(CHANGES, "rename", to))
        return -1;
    REAL(rename, from, to);
}

SHOWN int link(const char *from, const char *to)
{
    if (path_falls(CHANGES, "link", to))
        return -1;
    REAL(link, from, to);
}

SHOWN int mkdir(const char *path, mode_t mode)
{
    if (path_falls(CHANGES, "mkdir", path))
        return -1;
    REAL(mkdir, path, mode);
}

/* --- files by descriptor --------------------------------------------------------------------------------------------
 */

#define MOVING(name, kind, type)                                  \
    SHOWN ssize_t name(int fd, type bytes, size_t size)           \
    {                                                             \
        if ((!halves || size > 1) && fd_falls(kind, #name, fd)) { \
            if (!halves)                                          \
                return -1;                                        \
            size /= 2;                                            \
        }                                                         \
        REAL(name, fd, bytes, size);                              \
    }
MOVING(read, READS, void *)
MOVING(write, WRITES, const void *)

#define MOVING_AT(name, kind, type, offset_type)                            \
    SHOWN ssize_t name(int fd, type bytes, size_t size, offset_type offset) \
    {                                                                       \
        if ((!halves || size > 1) && fd_falls(kind, #name, fd)) {           \
            if (!halves)                                                    \
                return -1;                                                  \
            size /= 2;                                                      \
        }                                                                   \
        REAL(name, fd, bytes, size, offset);                                \
    }
MOVING_AT(pread, READS, void *, off_t)
MOVING_AT(pread64, READS, void *, off64_t)
MOVING_AT(pwrite, WRITES, const void *, off_t)
MOVING_AT(pwrite64, WRITES, const void *, off64_t)

#define MOVING_PIECES(name, offset_type)                                                  \
    SHOWN ssize_t name(int fd, const struct iovec *pieces, int count, offset_type offset) \
    {                                                                                     \
        struct iovec half = *pieces;                                                      \
        if ((!halves || half.iov_len > 1) && fd_falls(WRITES, #name, fd)) {               \
            if (!halves)                                                                  \
                return -1;                                                                \
            half.iov_len /= 2;                                                            \
            pieces = &half;                                                               \
            count = 1;                                                                    \
        }                                                                                 \
        REAL(name, fd, pieces, count, offset);                                            \
    }
MOVING_PIECES(pwritev, off_t)
MOVING_PIECES(pwritev64, off64_t)

SHOWN ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    struct iovec half = *pieces;
    if ((!halves || half.iov_len > 1) && fd_falls(WRITES, "writev", fd)) {
        if (!halves)
            return -1;
        half.iov_len /= 2;
        pieces = &half;
        count = 1;
    }
    REAL(writev, fd, pieces, count);
}

SHOWN int fsync(int fd)
{
    if (fd_falls(CHANGES, "fsync", fd))
        return -1;
    REAL(fsync, fd);
}

#define CUTTING(name, offset_type)           \
    SHOWN int name(int fd, offset_type size) \
    {                                        \
        if (fd_falls(CHANGES, #name, fd))    \
            return -1;                       \
        REAL(name, fd, size);                \
    }
CUTTING(ftruncate, off_t)
CUTTING(ftruncate64, off64_t)

#define MAPPING(name, offset_type)                                                                 \
    SHOWN void *name(void *at, size_t size, int protection, int flags, int fd, offset_type offset) \
    {                                                                                              \
        if (fd_falls(MAPS, #name, fd))                                                             \
            return MAP_FAILED;                                                                     \
        REAL(name, at, size, protection, flags, fd, offset);                                       \
    }
MAPPING(mmap, off_t)
MAPPING(mmap64, off64_t)

/* The C library's streams write by calls of its own: what they lose shows when they are emptied and closed. */
SHOWN size_t fwrite(const void *bytes, size_t size, size_t count, FILE *file)
{
    if (!halves && number != EINTR && fd_falls(WRITES, "fwrite", fileno(file)))
        return 0;
    REAL(fwrite, bytes, size, count, file);
}

SHOWN size_t fread(void *bytes, size_t size, size_t count, FILE *file)
{
    if (!halves && number != EINTR && fd_falls(READS, "fread", fileno(file)))
        return 0;
    REAL(fread, bytes, size, count, file);
}

SHOWN int fflush(FILE *file)
{
    if (!halves && number != EINTR && file && fd_falls(WRITES, "fflush", fileno(file)))
        return EOF;
    REAL(fflush, file);
}

static int fclose_really(FILE *file)
{
    REAL(fclose, file);
}

SHOWN int fclose(FILE *file)
{
    const bool lost = !halves && number != EINTR && fd_falls(WRITES, "fclose", fileno(file));
    const int rc = fclose_really(file);
    if (lost)
        errno = number;
    return lost ? EOF : rc;
}

/* --- memory ---------------------------------------------------------------------------------------------------------
 */

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

enum { PLACES = 1 << 16, DEPTH = 8, OWN = 3 };

typedef struct trace {
    uint64_t hash;
    int depth;
    uintptr_t at[DEPTH];
} trace;

static _Unwind_Reason_Code step(struct _Unwind_Context *context, void *to)
{
    trace *t = to;
    const uintptr_t at = (uintptr_t)_Unwind_GetIP(context);
    if (t->depth >= OWN) {
        t->hash = (t->hash ^ at) * 0x9E3779B97F4A7C15u;
        t->at[t->depth - OWN] = at;
    }
    t->depth++;
    return t->depth < OWN + DEPTH && at ? _URC_NO_REASON : _URC_END_OF_STACK;
}

/* A stack that was not seen before. */
static bool is_new(uint64_t hash)
{
    static _Atomic uint64_t seen[PLACES];
    for (size_t i = (size_t)(hash >> 48), n = 0; n < PLACES; i = (i + 1) % PLACES, n++) {
        uint64_t there = 0;
        if (atomic_compare_exchange_strong(&seen[i], &there, hash))
            return true;
        if (there == hash)
            return false;
    }
    return false;
}

/* "sluice+0x1234 …", for addr2line. */
static const char *places(const trace *t, char *text, size_t size)
{
    Dl_info info;
    text[0] = '\0';
    for (int i = 0; i < t->depth - OWN && i < 5; i++)
        if (dladdr((const void *)t->at[i], &info) && info.dli_fname) {
            const size_t used = strlen(text);
            snprintf(text + used, size - used, " %s+0x%lx", info.dli_fname,
                     (unsigned long)(t->at[i] - 1 - (uintptr_t)info.dli_fbase));
        }
    return text;
}

static bool memory_falls(const char *call, const void *caller)
{
    if (!(counted & MEMORY) || inside)
        return false;
    Dl_info info;
    char text[2048];
    trace t = {0};
    bool it = false;
    inside = true;
    bool ours = dladdr(caller, &info) && info.dli_fname && strncmp(info.dli_fname, "/lib", 4) != 0 &&
                strncmp(info.dli_fname, "/usr/lib", 8) != 0;
    if (ours) { /* most of that plugin is the CUDA runtime */
        const char *name = strrchr(info.dli_fname, '/');
        ours = strcmp(name ? name + 1 : info.dli_fname, "cuda.so") != 0;
    }
    if (ours) {
        _Unwind_Backtrace(step, &t);
        it = (is_new(t.hash | 1) || (stays && atomic_load(&calls) >= wanted)) &&
             falls(call, places(&t, text, sizeof text));
    }
    inside = false;
    return it;
}

#define FALLS(call) __builtin_expect(memory_falls(call, __builtin_return_address(0)), false)

SHOWN void *malloc(size_t size)
{
    return FALLS("malloc") ? NULL : __libc_malloc(size);
}

SHOWN void *calloc(size_t count, size_t size)
{
    return FALLS("calloc") ? NULL : __libc_calloc(count, size);
}

SHOWN void *realloc(void *old, size_t size)
{
    return FALLS("realloc") ? NULL : __libc_realloc(old, size);
}

SHOWN void *aligned_alloc(size_t alignment, size_t size)
{
    return FALLS("aligned_alloc") ? NULL : __libc_memalign(alignment, size);
}

SHOWN int posix_memalign(void **to, size_t alignment, size_t size)
{
    *to = FALLS("posix_memalign") ? NULL : __libc_memalign(alignment, size);
    return *to ? 0 : ENOMEM;
}

SHOWN char *strdup(const char *text)
{
    const size_t size = strlen(text) + 1;
    char *copy = FALLS("strdup") ? NULL : __libc_malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

SHOWN FILE *open_memstream(char **text, size_t *size)
{
    if (FALLS("open_memstream"))
        return NULL;
    REAL(open_memstream, text, size);
}
