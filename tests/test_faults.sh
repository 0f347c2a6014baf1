#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# Every call on files of a run is made to fail, each in turn, and every place that asks for memory: no crash, one line that says
# what happened, nothing half-written under a final name; then the same command without faults ends with the streams, metrics and
# models of an undisturbed run. FAULTS=n tries n calls of each kind, spread over the run (3); FAULTS=all tries them all.
# FAULT_KINDS="EIO ENOMEM" tries only those kinds.
set -u
preload=$SLUICE_BUILD/tests/faults/preload.so
if [ ! -e "$preload" ] || ldd "$SLUICE_BUILD/sluice" | grep -q libasan; then
    echo "skipped: no fault-injecting library here"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
cp -r "$SLUICE_SOURCE/models/embedded" model
cp "$SLUICE_SOURCE/pipelines/data/prompts.jsonl" .
chmod -R u+w model prompts.jsonl
cp "$SLUICE_BUILD/tests/judge_program" .
failed=0 tried=0

# run [VARIABLE=VALUE …]: always under the one name "run", which the sink's path holds; the store beside it gets faults as well.
sed "s|OUT/|$work/run/|" "$SLUICE_SOURCE/tests/faults/pipeline.cfg" >faults.cfg
run() {
    timeout 60 env SLUICE_STORE="$work/run-store" "$@" "$SLUICE_BUILD/sluice" run faults.cfg --quiet --out run >out 2>err
}
bad() {
    failed=$((failed + 1))
    echo "not ok: $*"
    sed 's/^/    /' err | head -n 5
}
# What is allowed to differ: the lock, what a clock wrote, and, of a run that was cut short, what is not yet finished.
differences() {
    diff -rq -x .lock -x log.txt -x timing.jsonl -x environment.txt -x 'events.out.*' "$@"
}
run || { bad "an undisturbed run: exit code $?"; exit 1; }
mv run whole
rm -rf run-store

# try KIND N [stays]
try() {
    kind=$1 n=$2 stays=${3-}
    rm -rf run run-store told
    tried=$((tried + 1))
    run LD_PRELOAD="$preload" FAULT="$kind" FAULT_N="$n" ${stays:+FAULT_STAYS=1} FAULT_UNDER="$work/run" FAULT_TOLD="$work/told"
    code=$?
    call="$kind${stays:+ that stays} at call $n ($(cat told))"
    if [ $code -ge 124 ]; then
        bad "$call: $([ $code = 124 ] && echo it hung || echo it crashed with exit code $code)"
    elif [ $code != 0 ] && [ "$(grep -vc -e '^sluice: warning: ' -e 'the run goes on' err)" != 1 ]; then
        bad "$call: not one line of error"
    fi
    # Under a final name there is nothing or the whole. Of metrics.jsonl there is a part; a .done that does not fit its stage only
    # makes that run again.
    if [ -d run ] && differences -x metrics.jsonl -x '*.done' whole run | grep -v '^Only in' >half; then
        bad "$call: half-visible: $(cat half)"
    fi
    run A=1 || bad "$call: the run after it: exit code $?"
    differences whole run >half || bad "$call: another result: $(cat half)"
}

for kind in ${FAULT_KINDS:-EIO ENOSPC ENOSPC-stays EINTR SHORT ENOMEM}; do
    stays=${kind#*-}
    [ "$stays" != "$kind" ] || stays=
    kind=${kind%-*}
    rm -rf run run-store told
    run LD_PRELOAD="$preload" FAULT="$kind" FAULT_N=0 FAULT_UNDER="$work/run" FAULT_TOLD="$work/told" ||
        { bad "a run that counts: exit code $?"; exit 1; }
    total=$(sed 's/none of //' told)
    differences whole run || bad "a run that counts: another result"
    share=${FAULTS:-3}
    [ "$share" != all ] && [ "$share" -lt "$total" ] || share=$total
    i=0 before=$failed
    while [ $i -lt "$share" ]; do
        try "$kind" $((1 + i * total / share)) $stays
        i=$((i + 1))
    done
    echo "$kind${stays:+, from there on}: $share of $total calls tried, $((failed - before)) failed"
done
echo "$tried tried, $failed failed"
[ $failed = 0 ]
