# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Sourced by tests that run sluice on what stands in for GPUs: a folder to work in, which goes with the test, and counting.
# Commands write to the files out, or log and err.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
passed=0 failed=0
unset MAKEFLAGS MFLAGS MAKELEVEL EMULATED_CUDA EMULATED_CUDA_SHARED SLUICE_CUDA_WAIT SLUICE_CUDA_TIMELINE SLUICE_CUDA_MEMORY SLUICE_CUDA_PRODUCTS SLUICE_CUDA_INVARIANT SLUICE_CUDA_OVERLAP SLUICE_CUDA_LOGITS_BYTES CUDA_VISIBLE_DEVICES
SLUICE_STORE=off
export SLUICE_STORE
sluice=$SLUICE_BUILD/sluice
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() {
    failed=$((failed + 1))
    echo "not ok: $*"
    tail -n 15 out log err 2>/dev/null
}
# says TEXT WHAT: the last command wrote TEXT.
says() { grep -qF -- "$1" out && ok "$2" || bad "$2"; }
# count NAME: what the last program that had EMULATED_CUDA_COUNTS=$work/counts left, or did.
count() { sed -n "\$s/.*\\b$1 \\([0-9]*\\).*/\\1/p" counts; }
# near FILE FILE: every number of the two metrics files agrees to 1e-4, relatively or against 1.
near() {
    tr ',{}:' '\n' <"$1" >a && tr ',{}:' '\n' <"$2" >b && paste a b | awk '
        $1 != $2 && (($1 "" !~ /^-?[0-9.e+-]+$/) || ($2 "" !~ /^-?[0-9.e+-]+$/)) { print "not a number: " $0; exit 1 }
        { d = $1 - $2; s = $1 < 0 ? -$1 : $1; if (s < 1) s = 1; if (d > 1e-4 * s || d < -1e-4 * s) { print; exit 1 } }'
}
# same FOLDER FOLDER: two runs' streams, metrics and models.
same() { diff -r -x log.txt -x timing.jsonl -x environment.txt -x pipeline.cfg -x .lock "$1" "$2" >difference; }
# emulated: the plugins, with the emulated device in the place of a GPU; ends the test where there is none.
emulated() {
    [ -f "$SLUICE_BUILD/tests/cuda/plugins/cuda.so" ] || { echo "skipped: there is no emulated device (no C++ compiler)"; exit 77; }
    SLUICE_PLUGIN_PATH=$SLUICE_BUILD/tests/cuda/plugins
    export SLUICE_PLUGIN_PATH
}
# small_model FOLDER: a model of random weights, 41,408 of them.
small_model() {
    mkdir "$1" && cp "$SLUICE_SOURCE"/models/embedded-start/* "$1"
    sed -i 's/\("hidden_size\|"intermediate_size\)": [0-9]*/\1": 64/; s/\("num_hidden_layers\|"num_key_value_heads\)": [0-9]*/\1": 1/
        s/"num_attention_heads": [0-9]*/"num_attention_heads": 2/' "$1/config.json"
}
summary() {
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
}
