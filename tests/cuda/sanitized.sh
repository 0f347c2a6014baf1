#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# sanitized.sh FOLDER: the emulated tests that tests/gpu/Makefile built there under a sanitizer, in the orders SEEDS. Under
# ThreadSanitizer two threads run the blocks of a kernel, so that races between blocks are seen, too.
set -u
at=$1
case $at in
*thread*) seeds=${SEEDS:-1 2} threads=2 ;;
*) seeds=${SEEDS:-0 1 2 3} threads=1 ;;
esac
check() {
    if "$@" >"$at/log" 2>&1; then
        echo "ok: $*"
    else
        tail -n 60 "$at/log"
        echo "FAIL: $*${EMULATED_CUDA:+ with EMULATED_CUDA=$EMULATED_CUDA}"
        exit 1
    fi
}
check "$at/test_emulator"
# Under ThreadSanitizer test_stage takes more and more memory, 16 GB after six minutes; why is not known.
case $at in *thread*) echo "not run: $at/test_stage_emulated" ;; *) check "$at/test_stage_emulated" ;; esac
for seed in $seeds; do
    export EMULATED_CUDA="seed=$seed,threads=$threads"
    echo "order $seed:"
    check "$at/test_steps_emulated"
    check "$at/test_ops_emulated" --quick
    SLUICE_CUDA_PRODUCTS=own check "$at/test_ops_emulated" --quick --only products
    SLUICE_CUDA_PRODUCTS=timed check "$at/test_ops_emulated" --quick --only products
done
check "$at/test_attention_emulated"
