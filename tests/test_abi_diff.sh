#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# Compares the types of the public headers with their stored description, tests/abi/sluice.abi, by abidiff (Debian:
# abigail-tools); skips without it. After a change that plugins survive - a member at the end of a struct that says its
# size, a name with a new value - store it anew: sh tests/test_abi_diff.sh --store
set -eu
: "${SLUICE_SOURCE:=$(cd "$(dirname "$0")/.." && pwd)}"
stored=$SLUICE_SOURCE/tests/abi/sluice.abi
for tool in abidw abidiff; do
    command -v $tool >/dev/null || { echo "$tool is not installed; skipped"; exit 77; }
done
# The description is of one machine's types; layout.h holds for the others.
[ "$(uname -m)" = x86_64 ] || { echo "the stored description is of x86_64; skipped"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
${CC:-cc} -std=gnu11 -g -shared -fPIC -fvisibility=hidden -I"$SLUICE_SOURCE/core/include" -o "$work/sluice-abi.so" \
    "$SLUICE_SOURCE/tests/abi/all.c"
abidw --no-corpus-path --no-comp-dir-path --no-show-locs --out-file "$work/now.abi" "$work/sluice-abi.so"
if [ "${1:-}" = --store ]; then
    sed "s|path='$SLUICE_SOURCE/|path='|" "$work/now.abi" >"$stored" # no path of this machine
    echo "stored $stored"
    exit
fi
abidiff "$stored" "$work/now.abi" || {
    echo "the ABI has changed; if plugins survive it, run: sh tests/test_abi_diff.sh --store" >&2
    exit 1
}
