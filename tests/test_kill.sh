#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# kill -9 at many moments, then the same command: streams, metrics and models are those of an undisturbed run, also when the
# kill came in the middle of sampling or of training. KILLS=n makes it longer.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { failed=$((failed + 1)); echo "not ok: $*"; }
run() {
    to=$1
    shift
    exec "$SLUICE_BUILD/sluice" run "$SLUICE_SOURCE/pipelines/quickstart.cfg" --quiet --out "$to" --set prompts.count=400 \
        --set control-prompts.count=100 --set start-questions.count=200 --set questions.count=100 --set control-questions.count=100 \
        --set phases.align.repeat=1 --set phases.control.repeat=1 --set train.checkpoint_every=0 "$@"
}
cd "$work" || exit 1
(run whole) >out 2>&1 && ok "an undisturbed run" || bad "an undisturbed run: $(cat out)"
kills=0 ended=no
for moment in $(awk -v n="${KILLS:-20}" 'BEGIN { srand(7); for (i = 0; i < n; i++) printf "%.3f ", 0.03 + 0.5 * rand() }'); do
    run killed >out 2>&1 &
    child=$!
    sleep "$moment"
    if kill -9 $child 2>/dev/null; then
        kills=$((kills + 1))
        wait $child 2>/dev/null
    else
        wait $child
        ended=$?
        break
    fi
done
[ "$ended" != no ] || { (run killed) >out 2>&1; ended=$?; }
[ "$ended" = 0 ] && ok "it came to its end after $kills kills" || bad "exit code $ended after $kills kills: $(cat out)"
if diff -rq -x .lock -x log.txt -x timing.jsonl -x environment.txt whole killed >difference; then
    ok "the same streams, metrics and models"
else
    bad "another result after $kills kills: $(cat difference)"
fi
grep -q 'goes on after step' killed/log.txt && ok "a training went on from a checkpoint" || echo "no kill fell into a training"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
