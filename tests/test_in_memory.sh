#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# in_memory = true: what comes out is what comes out without it, also after kill -9 at random moments (KILLS=n, 8); what cannot
# be in memory is refused; explain, check, graph, cat and doctor say what is.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ok() { passed=$((passed + 1)); }
bad() {
    failed=$((failed + 1))
    echo "not ok: $*"
    sed 's/^/    /' out 2>/dev/null | tail -n 15
}
cd "$work" || exit 1
sluice=$SLUICE_BUILD/sluice file=$SLUICE_SOURCE/pipelines/self-rewarding.cfg
SLUICE_STORE=off
export SLUICE_STORE
short="seeds.limit=48 tune.epochs=1 prompts.limit=96 first.limit=16 again.limit=16 phases.align.repeat=2"
memory="now.in_memory=true checked.in_memory=true pairs.in_memory=true again.in_memory=false marked.in_memory=true"

sets() { for s; do printf -- '--set %s ' "$s"; done; }
# run FOLDER SETTING…: takes the place of the shell that calls it.
run() {
    to=$1
    shift
    exec "$sluice" run "$file" --quiet --out "$to" $(sets $short "$@")
}
says() { grep -q -e "$1" out && ok || bad "no '$1' in what it said"; }
# same A B: all but the streams that B has not; sets `without`, how many those are.
same() {
    diff -rq -x .lock -x log.txt -x timing.jsonl -x environment.txt -x pipeline.cfg "$1" "$2" >difference
    without=$(grep -c "^Only in $1/.*\.zst$" difference)
    if grep -v "^Only in $1/.*\.zst$" difference >out; then bad "$2 differs from $1"; else ok; fi
}

(run kept) >out 2>&1 || bad "it does not run"
(run memory $memory) >out 2>&1 || bad "it does not run in memory"
same kept memory
[ "$without" = 8 ] && ok || bad "$without streams are not there, not 8 (four stages, twice)"

# What nobody needs is not made again; what somebody needs is, and all before it that was in memory.
explain() { "$sluice" run "$file" --explain --out memory $(sets $short $memory "$@") >out 2>&1 || bad "explain $*"; }
explain
says '^0 of '
says 'now  *reused, from this folder; its records, in memory alone, are not needed'
rm memory/streams/align-2/trust.done
explain
says "align 2/2  *pairs  *runs: 'trust' needs its records, which stay in memory alone"
says "align 2/2  *checked  *runs: 'pairs' needs its records"
says "align 2/2  *now  *runs: 'checked' needs its records"
says '^4 of '
(run memory $memory) >out 2>&1 || bad "it does not go on"
same kept memory
# A stream that an earlier run kept is read.
cp -r kept mixed && rm mixed/streams/align-1/trust.done
(run mixed $memory) >out 2>&1 || bad "it does not go on from a run that kept its streams"
same kept mixed
[ "$without" = 0 ] && ok || bad "streams that were kept are gone"
(run memory) >out 2>&1 || bad "it does not run when its streams are to be kept after all"
same kept memory
[ "$without" = 0 ] && ok || bad "$without streams are not kept"

# Kills.
kills=0 chains=0
awk -v seed="${KILL_SEED:-5}" 'BEGIN { srand(seed); for (i = 0; i < 20000; i++) printf "%.3f\n", 0.02 + (rand() < 0.3 ? 0.3 : 2.5) * rand() }' >moments
exec 3<moments
while [ $kills -lt "${KILLS:-8}" ]; do
    rm -rf killed
    hit=0 ended=no
    while [ $hit -lt 8 ] && [ $((kills + hit)) -lt "${KILLS:-8}" ]; do
        read -r moment <&3
        (run killed $memory) >out 2>&1 &
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
    [ $ended != no ] || { (run killed $memory) >out 2>&1; ended=$?; }
    [ $ended = 0 ] || { bad "exit code $ended after $hit kills"; break; }
    same kept killed
    kills=$((kills + hit)) chains=$((chains + 1))
done
exec 3<&-
echo "$kills kills in $chains chains"

# What is said of it.
"$sluice" check "$file" $(sets $memory) >out 2>&1 || bad "check"
says 'now  *judge-implicit, in memory'
"$sluice" graph "$file" $(sets $memory) >out 2>&1 || bad "graph"
says '"now" -> "checked" \[style=dotted, label="in memory"\]'
"$sluice" cat killed/streams/align-1/now.zst >out 2>&1 && bad "cat of what is not there"
says 'keeps no stream: it writes none, or has in_memory = true'
"$sluice" doctor killed >out 2>&1 || bad "doctor"
says 'align-1/now.done: whole, .* in memory'
(run kept $memory) >out 2>&1 || bad "it does not run again"
"$sluice" run "$file" --out table $(sets $short $memory) >out 2>&1 || bad "it does not run"
says '^now .* in memory$'

# What cannot be.
refuses() { # WORDS SETTING…
    words=$1
    shift
    "$sluice" check "$file" $(sets "$@") >out 2>&1 && bad "check takes $*"
    says "$words"
}
refuses "'answers'.*'sampler' cannot be in_memory: it may give its records in another order" answers.in_memory=true
refuses "'train'.*'trainer' cannot be in_memory: it gives no records; remove" train.in_memory=true
refuses "'trust'.*cannot be in_memory, for 'train' takes its input as it likes" trust.in_memory=true
refuses "'pairs'.*cannot be in_memory, for 'trust' reads its input twice" pairs.in_memory=true trust.use=cream \
    trust.current=now trust.previous=now
refuses "'now'.*cannot be in_memory: it has a process of its own" now.in_memory=true now.isolate=true
refuses "'now'.*cannot be in_memory, for 'checked' has a process of its own" now.in_memory=true checked.isolate=true
refuses "'now'.*cannot be in_memory, for 'checked' begins only after another stage" now.in_memory=true checked.after=again
refuses "'now'.*'in_memory' is a string; true or false is wanted" now.in_memory=maybe
echo "$passed passed, $failed failed"
[ $failed = 0 ]
