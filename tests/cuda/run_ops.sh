#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# Every op of the CUDA backend against the reference, executed without a GPU; SEEDS: the orders of threads and streams.
set -u
log=tests/cuda/run_ops.table
for seed in ${SEEDS:-4}; do
    EMULATED_CUDA="seed=$seed${EMULATED_CUDA:+,$EMULATED_CUDA}" tests/cuda/test_ops --quick >"$log" 2>&1 || {
        cat "$log"
        echo "FAIL with seed $seed"
        exit 1
    }
    echo "seed $seed: $(tail -n 1 "$log")"
    for products in own timed; do # the other ways of multiplying matrices
        EMULATED_CUDA="seed=$seed${EMULATED_CUDA:+,$EMULATED_CUDA}" SLUICE_CUDA_PRODUCTS=$products \
            tests/cuda/test_ops --quick --only products >"$log" 2>&1 || {
            cat "$log"
            echo "FAIL with seed $seed, SLUICE_CUDA_PRODUCTS=$products"
            exit 1
        }
    done
done
