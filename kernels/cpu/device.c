/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* The CPU device: picks the instruction set, names the numerics, owns threads and memory. */
#include "config.h"
#include "cpu.h"
#include "gemm_bf16.h"
#include "onednn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct isa {
    const char *name;
    const char *arithmetic; /* sets of one arithmetic give the same bits */
    bool (*there)(void);
    const kn_ops *(*table)(void), *(*table_bf16)(void);
    const kn_way16 *(*widened)(void);
} isa;

static bool always(void)
{
    return true;
}

#ifdef KN_HAVE_X86
static bool has_avx512(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}

#ifdef KN_HAVE_AVX512BF16
static bool has_avx512bf16(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512bf16");
}
#endif

static bool has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

/* Best first. */
static const isa sets[] = {
#ifdef KN_HAVE_X86
    {"avx512", "fma", has_avx512, kn_ops_table_avx512, kn_ops_table_bf16_avx512, kn_way16_avx512},
    {"avx2", "fma", has_avx2, kn_ops_table_avx2, kn_ops_table_bf16_avx2, kn_way16_avx2},
#endif
#ifdef KN_HAVE_NEON
    {"neon", "fma", always, kn_ops_table_neon, kn_ops_table_bf16_neon, kn_way16_neon},
#endif
    {"plain", "plain", always, kn_ops_table_plain, kn_ops_table_bf16_plain, kn_way16_plain},
};

static const isa *find_isa(const char *name, const char **why)
{
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        const bool wanted = !name || strcmp(name, sets[i].name) == 0;
        if (wanted && sets[i].there())
            return &sets[i];
        if (wanted && name) {
            *why = "this machine lacks the instruction set";
            return NULL;
        }
    }
    *why = "no such instruction set (plain, avx2 and avx512 on x86-64, neon on aarch64)";
    return NULL;
}

/* Who multiplies: our own loops, or oneDNN where SLUICE_CPU_MATMUL asks for it (doc/results/matmul.md compares them).
 */
static bool choose_matmul(kn_cpu *cpu, const char *arithmetic, const char **why)
{
    const char *wish = getenv("SLUICE_CPU_MATMUL");
    char name[48] = "own1";
    if (wish && *wish && strcmp(wish, "own") != 0) {
        if (strcmp(wish, "onednn") != 0) {
            *why = "SLUICE_CPU_MATMUL is neither own nor onednn";
            return false;
        }
        cpu->onednn = kn_onednn_new();
        if (!cpu->onednn) {
            *why = "SLUICE_CPU_MATMUL=onednn, and this program was built without oneDNN";
            return false;
        }
        kn_onednn_name(name, sizeof(name));
    }
    snprintf(cpu->numerics, sizeof(cpu->numerics), "cpu-%s-%s-f32", arithmetic, name);
    return true;
}

/* Who multiplies bfloat16, as SLUICE_CPU_BF16 asks (gemm_bf16.h). The instructions for it come with AVX-512 only. */
static bool choose_way16(kn_cpu *cpu, const isa *set, const char **why)
{
    const char *wish = getenv("SLUICE_CPU_BF16"), *arithmetic = set->arithmetic;
    const bool any = !wish || !*wish || strcmp(wish, "auto") == 0, wide = strcmp(set->name, "avx512") == 0;
    if (!any && strcmp(wish, "amx") != 0 && strcmp(wish, "avx512") != 0 && strcmp(wish, "widened") != 0) {
        *why = "SLUICE_CPU_BF16 is none of auto, amx, avx512, widened";
        return false;
    }
#ifdef KN_HAVE_AMX
    if (wide && (any || strcmp(wish, "amx") == 0)) {
        const char *refused = kn_amx_refused_amx();
        if (!refused) {
            cpu->way16 = kn_way16_amx();
        } else if (!any) {
            *why = refused;
            return false;
        }
    }
#endif
#ifdef KN_HAVE_AVX512BF16
    if (!cpu->way16 && wide && (any || strcmp(wish, "avx512") == 0) && has_avx512bf16())
        cpu->way16 = kn_way16_avx512bf16();
#endif
    if (!cpu->way16 && !any && strcmp(wish, "widened") != 0) {
        *why = strcmp(wish, "amx") == 0 ? "SLUICE_CPU_BF16=amx, and this machine or program has no AMX for bfloat16"
                                        : "SLUICE_CPU_BF16=avx512, and this machine or program has no AVX512-BF16";
        return false;
    }
    if (cpu->way16)
        arithmetic = cpu->way16->name;
    else
        cpu->way16 = set->widened();
    snprintf(cpu->numerics_bf16, sizeof(cpu->numerics_bf16), "cpu-%s-own1-bf16", arithmetic);
    return true;
}

kn_device *kn_cpu_new(int threads, const char *name, const char **why)
{
    const char *unheard;
    why = why ? why : &unheard;
    const isa *set = find_isa(name, why);
    if (!set)
        return NULL;
    kn_cpu *cpu = calloc(1, sizeof(*cpu));
    *why = "out of memory";
    if (!cpu)
        return NULL;
    cpu->base.ops = set->table();
    cpu->base.ops_bf16 = set->table_bf16();
    cpu->base.host_memory = true;
    cpu->base.one_answer = true;
    cpu->isa = set->name;
    cpu->scratch = kn_scratch_new();
    cpu->pool = kn_pool_new(threads < 0 ? 1 : threads);
    if (!cpu->scratch || !cpu->pool || !choose_matmul(cpu, set->arithmetic, why) || !choose_way16(cpu, set, why)) {
        kn_cpu_free(&cpu->base);
        return NULL;
    }
    *why = NULL;
    return &cpu->base;
}

void kn_cpu_free(kn_device *device)
{
    kn_cpu *cpu = (kn_cpu *)device;
    if (!cpu)
        return;
    kn_pool_free(cpu->pool);
    kn_onednn_free(cpu->onednn);
    kn_scratch_free(cpu->scratch);
    free(cpu);
}
