#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# kill -9 at random moments, then the same command, and again: streams, metrics and models are those of an undisturbed run, also
# when a kill came in the middle of sampling, of training or of averaging. Three shortened pipelines; each is killed up to eight
# times on its way to its end, then compared, then begun anew, until KILLS=n (18) kills have hit. KILL_SEED=n: other moments.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 all=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { failed=$((failed + 1)); echo "not ok: $*"; }
cd "$work" || exit 1

# run PIPELINE FOLDER: takes the place of the shell that calls it.
run() {
    name=$1 to=$2
    case $name in
    quickstart)
        set -- prompts.count=256 control-prompts.count=64 start-questions.count=64 questions.count=64 control-questions.count=64 \
            phases.align.repeat=1 phases.control.repeat=1 train.checkpoint_every=0 control-train.checkpoint_every=0.05
        ;;
    self-rewarding)
        set -- seeds.limit=48 tune.epochs=1 prompts.limit=96 first.limit=16 again.limit=16 phases.align.repeat=2 \
            tune.checkpoint_every=0 train.checkpoint_every=0
        ;;
    warm)
        set -- seeds.count=32 made-up.count=32 made-up-held.count=24 train-questions.count=24 \
            held-questions.count=24 questions.count=6 answers.n=4 phases.start.repeat=2 \
            tune.checkpoint_every=0 probing.checkpoint_every=0 train-first.start=policy@1 train-second.start=policy@1 \
            train-third.start=policy@1 train-fourth.start=policy@2 train-fifth.start=policy@2 train-sixth.start=policy@2 \
            train-apart-a.start=policy@2 train-apart-b.start=policy@2 probing.start=policy@2 answers.model=policy@2 \
            train-answers.model=policy@2 held-answers.model=policy@2
        for one in first second third fourth fifth sixth blank-a; do
            set -- "$@" train-$one.checkpoint_every=0 train-$one.epochs=2
        done
        ;;
    esac
    for setting in "$@"; do
        set -- "$@" --set "$setting"
        shift
    done
    exec env SLUICE_STORE="$work/store-$to" "$SLUICE_BUILD/sluice" run "$SLUICE_SOURCE/pipelines/$name.cfg" --quiet --out "$to" "$@"
}

# draws SEED: moments in seconds, one a line, half of them soon after the start.
draws() {
    awk -v seed="$1" 'BEGIN { srand(seed); for (i = 0; i < 20000; i++) printf "%.3f\n", 0.02 + (rand() < 0.5 ? 0.3 : 1.5) * rand() }'
}

# chain PIPELINE: up to eight kills, then to the end; adds to `kills`.
chain() {
    rm -rf killed store-killed
    hit=0 ended=no
    while [ $hit -lt 8 ] && [ $((kills + hit)) -lt "$share" ]; do
        read -r moment <&3
        (run "$1" killed) >out 2>&1 &
        child=$!
        sleep "$moment"
        if kill -9 $child 2>/dev/null; then
            hit=$((hit + 1))
            wait $child 2>/dev/null
        else
            wait $child
            ended=$?
            break
        fi
    done
    kills=$((kills + hit))
    [ "$ended" != no ] || { (run "$1" killed) >out 2>&1; ended=$?; }
    [ "$ended" = 0 ] || { bad "$1: exit code $ended after $hit kills: $(cat out)"; return 1; }
    diff -rq -x .lock -x log.txt -x timing.jsonl -x environment.txt whole killed >difference ||
        { bad "$1: another result after $hit kills: $(cat difference)"; return 1; }
    ! grep -q 'goes on after step' killed/log.txt || on=$((on + 1))
}

share=$(((${KILLS:-18} + 2) / 3))
for name in quickstart self-rewarding warm; do
    rm -rf whole store-whole
    (run $name whole) >out 2>&1 || { bad "$name, undisturbed: $(cat out)"; continue; }
    draws "${KILL_SEED:-7}$(echo $name | wc -c)" >moments
    kills=0 chains=0 on=0 good=0
    exec 3<moments
    while [ $kills -lt $share ]; do
        chains=$((chains + 1))
        chain $name && good=$((good + 1))
    done
    exec 3<&-
    all=$((all + kills))
    [ $good = $chains ] && ok "$name: $kills kills in $chains chains, $on of which went on within a training"
done
echo "$all kills, $passed passed, $failed failed"
[ $failed = 0 ]
