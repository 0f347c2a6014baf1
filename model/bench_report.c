/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "model/bench.h"

#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* --- memory ---------------------------------------------------------------------------------------------------------
 */

double bench_peak_gigabytes(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss * 1024 * 1e-9;
}

void bench_memory(const char *what)
{
    unsigned long long all = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%llu %llu", &all, &resident) != 2)
        resident = 0;
    if (file)
        fclose(file);
    printf("memory %-36s %6.3f GB now, %6.3f GB at most\n", what,
           (double)resident * (double)sysconf(_SC_PAGESIZE) * 1e-9, bench_peak_gigabytes());
}

/* --- ops ------------------------------------------------------------------------------------------------------------
 */

void bench_print_ops(kn_device *profile, const kn_limits *limits, double seconds)
{
    kn_profile_row rows[KN_PROFILE_ROWS];
    const size_t count = kn_profile_read(profile, rows, KN_PROFILE_ROWS);
    double total = 0;
    printf("%-24s %-8s %7s %9s %6s %9s %6s %8s %6s\n", "op", "type", "calls", "ms", "share", "GFLOP/s", "limit", "GB/s",
           "limit");
    for (size_t i = 0; i < count; i++) {
        const kn_profile_row *r = &rows[i];
        const double most = r->dtype == KN_BF16 ? limits->bf16 : limits->f32;
        const double flops = r->flops / r->seconds, bytes = r->bytes / r->seconds;
        printf("%-24s %-8s %7llu %9.2f %5.1f%% %9.1f %5.0f%% %8.2f %5.0f%%\n", r->op,
               r->dtype == KN_BF16 ? "bfloat16" : "float32", (unsigned long long)r->calls, r->seconds * 1e3,
               100 * r->seconds / seconds, flops * 1e-9, 100 * flops / most, bytes * 1e-9, 100 * bytes / limits->copy);
        total += r->seconds;
    }
    printf("%-24s %-8s %7s %9.2f %5.1f%%\n", "between ops", "", "", (seconds - total) * 1e3,
           100 * (seconds - total) / seconds);
}
