/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A filter of system calls (seccomp) for a plugin that is not trusted: threads, memory and files stay as they are; the
 * network, other programs, other processes and the system's own settings are out of reach. What is refused fails with
 * EPERM, as if the user had no right to it.
 */
#include "config.h"
#include "tools/stage/setup.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#define ARCHITECTURE 0
#endif

static const int refused[] = {SYS_socket,
                              SYS_socketpair,
                              SYS_connect,
                              SYS_bind,
                              SYS_listen,
                              SYS_accept,
                              SYS_accept4, /* the network */
                              SYS_execve,
                              SYS_execveat, /* other programs */
#ifdef SYS_fork
                              SYS_fork,
                              SYS_vfork,
#endif
                              SYS_ptrace,
                              SYS_process_vm_readv,
                              SYS_process_vm_writev,
                              SYS_perf_event_open, /* other processes */
#ifdef SYS_pidfd_send_signal
                              SYS_pidfd_send_signal,
#endif
#ifdef SYS_pidfd_getfd
                              SYS_pidfd_getfd,
#endif
#ifdef SYS_io_uring_setup
                              SYS_io_uring_setup, /* it would go round the filter */
#endif
                              SYS_mount,
                              SYS_umount2,
                              SYS_pivot_root,
                              SYS_chroot,
                              SYS_setns,
                              SYS_unshare, /* the system */
                              SYS_bpf,
                              SYS_keyctl,
                              SYS_add_key,
                              SYS_request_key,
                              SYS_userfaultfd,
                              SYS_open_by_handle_at,
                              SYS_init_module,
                              SYS_finit_module,
                              SYS_delete_module,
                              SYS_kexec_load,
                              SYS_reboot,
                              SYS_swapon,
                              SYS_swapoff,
                              SYS_settimeofday,
                              SYS_clock_settime,
                              SYS_adjtimex,
                              SYS_clock_adjtime,
                              SYS_sethostname,
                              SYS_setdomainname,
                              SYS_quotactl,
                              SYS_acct};

enum { REFUSED = sizeof refused / sizeof *refused };

#define LOAD(member)         BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, member))
#define RETURN(what)         BPF_STMT(BPF_RET | BPF_K, what)
#define IF(value, yes, no)   BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), yes, no)
#define IF_SET(bit, yes, no) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (uint32_t)(bit), yes, no)
#define EPERM_RETURN         RETURN(SECCOMP_RET_ERRNO | EPERM)

bool sl_confine(char error[SL_ERROR_SIZE])
{
    const uint32_t self = (uint32_t)getpid();
    const struct sock_filter before[] = {
        LOAD(arch),
        IF(ARCHITECTURE, 1, 0),
        RETURN(SECCOMP_RET_KILL_PROCESS), /* numbers of another architecture would mean other calls */
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000u, 0, 1), /* x32 */
        EPERM_RETURN,
        /* A signal only to itself. */
        IF(SYS_kill, 1, 0),
        IF(SYS_tgkill, 0, 4),
        LOAD(args[0]),
        IF(self, 1, 0),
        EPERM_RETURN,
        RETURN(SECCOMP_RET_ALLOW),
        /* A thread, but no process: clone3 hides its flags, and glibc falls back to clone. */
        IF(SYS_clone3, 0, 1),
        RETURN(SECCOMP_RET_ERRNO | ENOSYS),
        IF(SYS_clone, 0, 4),
        LOAD(args[0]),
        IF_SET(CLONE_THREAD, 1, 0),
        EPERM_RETURN,
        RETURN(SECCOMP_RET_ALLOW),
    };
    enum { BEFORE = sizeof before / sizeof *before };
    struct sock_filter all[BEFORE + 2 * REFUSED + 1];
    memcpy(all, before, sizeof before);
    for (size_t i = 0; i < REFUSED; i++) {
        all[BEFORE + 2 * i] = (struct sock_filter)IF(refused[i], 0, 1);
        all[BEFORE + 2 * i + 1] = (struct sock_filter)EPERM_RETURN;
    }
    all[BEFORE + 2 * REFUSED] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
    const struct sock_fprog program = {sizeof all / sizeof *all, all};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0)
        return true;
    snprintf(error, SL_ERROR_SIZE, "this system has no filter of system calls (seccomp: %s); remove seccomp = true",
             strerror(errno));
    return false;
}
