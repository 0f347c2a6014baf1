#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# Whole models on the emulated device: training steps against the goldens, answers, and pipelines. `make check` has the
# quicker ones (tests/gpu/run_models.sh, test_plugins.sh).
set -u
SLUICE_TEST_DEVICE=$SLUICE_BUILD/tests/cuda/plugins/cuda.so
SLUICE_TEST_QUICK=1
SLUICE_STORE=off
export SLUICE_TEST_DEVICE SLUICE_TEST_QUICK SLUICE_STORE
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
check() {
    if "$@" >"$work/log" 2>&1; then
        echo "ok: $*"
    else
        tail -n 40 "$work/log"
        echo "FAIL: $*"
        failed=1
    fi
}
for invariant in 0 1; do
    export SLUICE_CUDA_INVARIANT=$invariant
    for test in test_training test_generate; do
        check "$SLUICE_BUILD/tests/$test"
    done
done
unset SLUICE_CUDA_INVARIANT SLUICE_TEST_QUICK
export SLUICE_PLUGIN_PATH="$SLUICE_BUILD/tests/cuda/plugins"
check "$SLUICE_BUILD/sluice" run "$SLUICE_SOURCE/pipelines/quickstart.cfg" --out "$work/quickstart" \
    --set runtime.device=cuda --set start-questions.count=8 --set prompts.count=8 --set control-prompts.count=8 \
    --set questions.count=8 --set control-questions.count=8
exit $failed
