#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# sluice test-plugin: every plugin of ours passes; each of the bad ones (tests/plugins/bad) is caught by the tests that
# its head names, and by no others; the command's own manners.
set -u
: "${SLUICE_BUILD:?}" "${SLUICE_SOURCE:?}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
sluice=$SLUICE_BUILD/sluice
unset SLUICE_PLUGIN_PATH
failed=0
fail() { echo "FAIL: $*" >&2; failed=1; }

# --- ours, and one built against the frozen headers of ABI 1
for file in "$SLUICE_BUILD"/plugins/*.so "$SLUICE_BUILD/tests/abi/frozen.so"; do
    name=$(basename "$file" .so)
    set --
    case $name in
    judge-command)
        [ -x "$SLUICE_BUILD/tests/judge_program" ] || continue # made with cmocka's tests
        set -- --set "command=$SLUICE_BUILD/tests/judge_program"
        ;;
    esac
    "$sluice" test-plugin "$file" --timeout 60 "$@" >"$work/said" 2>&1 ||
        fail "$name: $(grep -E '^(FAILED|CRASHED|HUNG)' "$work/said" || tail -n 3 "$work/said")"
    # Where there is no GPU, what can be tested of its backend is.
    grep -E '^WARNING|^SKIPPED +works' "$work/said" | grep -v '^WARNING .*: the CUDA backend cannot start' >"$work/warned" && fail "$name: $(cat "$work/warned")"
done

# --- the bad ones
for source in "$SLUICE_SOURCE"/tests/plugins/bad/*.c; do
    name=$(basename "$source" .c)
    file=$SLUICE_BUILD/tests/plugins/bad/$name.so
    wanted=$(sed -n 's,.*Caught by: \(.*\) \*/.*,\1,p' "$source")
    case $wanted in
    '') fail "$name: its head does not say what it is caught by" ;;
    *HUNG*) limit=8 ;;
    *) limit=60 ;;
    esac
    "$sluice" test-plugin "$file" --timeout $limit >"$work/said" 2>&1
    code=$?
    found=$(awk '/^(FAILED|CRASHED|HUNG) / { printf "%s%s=%s", n++ ? " " : "", $2, $1 }' "$work/said")
    [ "$found" = "$wanted" ] || fail "$name: caught by '$found' instead of '$wanted': $(cat "$work/said")"
    [ $code = 1 ] || fail "$name: exit code $code instead of 1"
done

# --- manners
"$sluice" test-plugin --list >"$work/list" || fail "--list"
[ "$(wc -l <"$work/list")" -ge 20 ] || fail "--list is short"
"$sluice" test-plugin "$SLUICE_BUILD/plugins/keep.so" --only works --only fields >"$work/said" || fail "--only"
[ "$(grep -c PASSED "$work/said")" = 2 ] || fail "--only runs others: $(cat "$work/said")"
"$sluice" test-plugin "$SLUICE_BUILD/plugins/keep.so" --json --only works >"$work/json" || fail "--json"
grep -q '"test": "works", "class": "keep", "verdict": "PASSED"' "$work/json" || fail "--json: $(cat "$work/json")"
"$sluice" test-plugin "$SLUICE_BUILD/plugins/keep.so" --only nothing >"$work/said" 2>&1
[ $? = 2 ] || fail "an unknown test"
"$sluice" test-plugin "$work/none.so" >"$work/said" 2>&1
[ $? = 1 ] || fail "a file that is not there"
echo text >"$work/text.so"
"$sluice" test-plugin "$work/text.so" >"$work/said" 2>&1
[ $? = 1 ] || fail "a file that is no shared object: $(cat "$work/said")"
mkfifo "$work/pipe.so"
for file in "$work" "$work/pipe.so"; do
    "$sluice" test-plugin "$file" >"$work/said" 2>&1
    [ $? = 1 ] && grep -q 'is no file' "$work/said" || fail "$file, which is no file: $(cat "$work/said")"
done
"$sluice" test-plugin >"$work/said" 2>&1
[ $? = 2 ] || fail "no file"

[ $failed = 0 ] && echo "all plugins conform; all bad ones are caught"
exit $failed
