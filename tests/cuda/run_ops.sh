#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# Every op of the CUDA backend against the reference, and attention alone in more of its shapes, executed without a GPU;
# SEEDS: the orders of threads and streams. In the end every kernel, with each of its template arguments, was carried out.
set -u
source=${SLUICE_SOURCE:?the source folder}
log=tests/cuda/run_ops.table
export EMULATED_CUDA_KERNELS=tests/cuda/run_ops.kernels
rm -f $EMULATED_CUDA_KERNELS
settings=${EMULATED_CUDA:+,$EMULATED_CUDA}

ops() { # SEED PRODUCTS ARGUMENT...
    export SLUICE_CUDA_PRODUCTS="$2" EMULATED_CUDA="seed=$1$settings"
    shift 2
    tests/cuda/test_ops --quick "$@" >$log 2>&1 && return
    cat $log
    echo "FAIL with EMULATED_CUDA=$EMULATED_CUDA SLUICE_CUDA_PRODUCTS=$SLUICE_CUDA_PRODUCTS"
    exit 1
}

tests/cuda/test_attention >tests/cuda/test_attention.table 2>&1 &
attention=$!
trap 'kill $attention 2>/dev/null' EXIT
for seed in ${SEEDS:-4}; do
    ops "$seed" ""
    echo "seed $seed: $(tail -n 1 $log)"
    for products in own timed; do # the other ways of multiplying matrices
        ops "$seed" $products --only products
    done
    ops "$seed" own --only vocabulary
    ops "$seed" own --only chunks
done
wait $attention
status=$?
cat tests/cuda/test_attention.table
[ $status -eq 0 ] || {
    echo "FAIL: tests/cuda/test_attention: status $status"
    exit 1
}

command -v nm >/dev/null || {
    echo "no nm: which kernels there are is not known"
    exit 0
}
# A kernel's name follows __global__, in the same line or the next.
names=$(cat "$source"/kernels/cuda/*.cu "$source"/kernels/cuda/*.cuh | sed -n '/^ *__global__/ {
    N
    s/.*__global__ *void *//
    s/__launch_bounds__([^)]*)//
    s/^[ \n]*//
    s/(.*//p
}' | sort -u)
nm -C tests/cuda/test_ops | sed -n 's/^[0-9a-f]* [tTwWuV] \(void \)\{0,1\}//p' | awk -v names="$names" '
    BEGIN { for (n = split(names, name, "\n"); n > 0; n--) kernel[name[n]] = 1 }
    {
        base = $0
        sub(/^\(anonymous namespace\)::/, "", base)
        sub(/[<(].*/, "", base)
        if (base in kernel) print
    }' | sed 's/>(.*/>/; t; s/\([a-z_0-9]\)(.*/\1/' | sort -u >$log
total=$(wc -l <$log)
left=$(sort -u $EMULATED_CUDA_KERNELS | comm -23 $log -)
[ "$total" -gt 100 ] && [ -z "$left" ] && echo "$total kernels, all carried out" && exit 0
echo "FAIL: of $total kernels these were not carried out:"
echo "$left"
exit 1
