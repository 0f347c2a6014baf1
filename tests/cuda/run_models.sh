#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# Whole models on the emulated device: training steps against the goldens, answers, and pipelines. `make check` has the
# quicker ones (tests/gpu/run_models.sh, test_plugins.sh).
set -u
SLUICE_BUILD=$(cd "$SLUICE_BUILD" && pwd) || exit 2 # plugin folders are given by absolute paths
SLUICE_TEST_DEVICE=$SLUICE_BUILD/tests/cuda/plugins/cuda.so
SLUICE_TEST_QUICK=1
SLUICE_STORE=off
export SLUICE_TEST_DEVICE SLUICE_TEST_QUICK SLUICE_STORE
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
check() {
    if "$@" >"$work/log" 2>&1; then
        echo "ok: $*" | cut -c 1-120
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
# Every pipeline that uses a model, with little of everything: short answers, few rows, two turns at most. One that has
# too little then on the processor, too, is left out.
mkdir "$work/pipelines" && ln -s "$SLUICE_SOURCE/models" "$SLUICE_SOURCE/prompts" "$work" &&
    cp -R "$SLUICE_SOURCE/pipelines/data" "$work/pipelines" && chmod -R u+w "$work/pipelines" || exit 2
for file in "$SLUICE_SOURCE"/pipelines/data/*.jsonl; do
    head -n 16 "$file" >"$work/pipelines/data/$(basename "$file")"
done
for given in "$SLUICE_SOURCE"/pipelines/*.cfg; do
    name=$(basename "$given" .cfg)
    [ "$name" != make-data ] || continue # it writes beside the pipelines
    file=$work/pipelines/$name.cfg
    turns='s/\([ ;]repeat *= *\)[0-9]*/\12/'
    grep -q '@[1-9]' "$given" && turns= # it names versions
    sed "$turns" "$given" >"$file"
    tokens=8 rows=12
    [ "$name" != judges ] || tokens=24 rows=24 # verdicts are read from answers
    few=$(sed -n 's/.*{ *name *= *"\([a-z0-9-]*\)".*[ ;]\(count\|limit\) *= *[0-9].*/--set \1.\2='$rows'/p
        s/.*{ *name *= *"\([a-z0-9-]*\)".*[ ;]max_tokens *= *[0-9].*/--set \1.max_tokens='$tokens'/p
        s/.*{ *name *= *"\([a-z0-9-]*\)".*[ ;]epochs *= *[0-9].*/--set \1.epochs=1/p' "$file")
    # shellcheck disable=SC2086 # a list of words
    if "$SLUICE_BUILD/sluice" run "$file" --out "$work/cpu" --quiet --set runtime.device=cpu $few >"$work/log" 2>&1; then
        check env SLUICE_PLUGIN_PATH="$SLUICE_BUILD/tests/cuda/plugins" "$SLUICE_BUILD/sluice" run "$file" --quiet \
            --out "$work/cuda" --set runtime.device=cuda $few
    else
        echo "left out: $name: $(tail -n 1 "$work/log")"
    fi
    rm -rf "$work/cpu" "$work/cuda"
done
exit $failed
