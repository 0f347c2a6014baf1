#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# One more iteration of a phase computes that iteration and no other, with the bytes of a run that had it from the start.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { failed=$((failed + 1)); echo "not ok: $*"; }
check() { # words, then a command
    what=$1
    shift
    if "$@" >/dev/null 2>&1; then ok "$what"; else bad "$what: $(cat out 2>/dev/null)"; fi
}
sluice=$SLUICE_BUILD/sluice
cd "$work" || exit 1
i=0
while [ $i -lt 96 ]; do
    printf '{"prompt": "What is %d + %d?", "answer": "%d"}\n' $i 3 $((i + 3))
    i=$((i + 1))
done >prompts.jsonl
cat >again.cfg <<CFG
sluice = 1;
name = "again";
seed = 5;
store = "off";
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "float32"; }; };
phases = ( { name = "align"; repeat = 2; stages = (
  { name = "prompts"; use = "jsonl-source"; path = "prompts.jsonl"; split = "by-part"; parts = 4; },
  { name = "answers"; use = "sampler";  from = "prompts"; model = "policy"; n = 4; temperature = 0.8; max_tokens = 8; },
  { name = "checked"; use = "verifier"; from = "answers"; },
  { name = "pairs";   use = "ranker";   from = "checked"; by = "checked"; pick = "best-worst"; },
  { name = "kept";    use = "jsonl-sink"; from = "pairs"; path = "OUT.jsonl"; },
  { name = "train";   use = "trainer";  from = "pairs"; model = "policy"; loss = "dpo"; lr = 5e-5; batch = 8; epochs = 1; }
); } );
CFG
run() { "$sluice" run again.cfg --quiet --out "$1" --set "kept.path=$work/$1.jsonl" --set "phases.align.repeat=$2" >out 2>&1; }
same() { diff -rq -x .lock -x log.txt -x timing.jsonl -x environment.txt -x pipeline.cfg -x '*.inputs' -x 'kept.*' "$1" "$2"; }
explain() { "$sluice" run again.cfg --explain --out "$1" --set "kept.path=$work/$1.jsonl" "--set" "phases.align.repeat=$2" >out 2>&1; }

check 'two iterations' run grown 2
explain grown 3
[ "$(grep -c '^align [12]/3 .*reused, from this folder$' out)" = 12 ] && [ "$(grep -c '^align 3/3 .*runs: ' out)" = 6 ] &&
    ok 'explain: both are reused, the third runs' || bad "explain: $(cat out)"
: >grown/timing.jsonl
check 'a third' run grown 3
[ "$(grep -c '"reused":true' grown/timing.jsonl)" = 12 ] && ok 'leaves what was there' || bad "$(grep -c '"reused":true' grown/timing.jsonl) of 12 were reused"
check 'three from the start' run fresh 3
same grown fresh >difference && ok 'the same bytes' || bad "other bytes: $(cat difference)"
cmp grown.jsonl fresh.jsonl && ok "the sink's file is the last iteration's" || bad 'the sink kept an older iteration'

# Fewer again: the sink's file must be the second iteration's.
check 'two again' run grown 2
check 'two from the start' run short 2
cmp grown.jsonl short.jsonl && ok "with fewer iterations too" || bad 'the sink kept the third iteration'

# What hangs on the number says so.
sed -i 's/split = "by-part"; parts = 4;/split = "by-iteration";/' again.cfg
check 'a part for each iteration' run split 2
explain split 3
grep -q '^align 1/3 *prompts *runs: repeat: 2 → 3$' out && ok 'explain: the number of iterations' || bad "explain: $(cat out)"
sed -i 's/split = "by-iteration";/split = "by-part"; parts = 2;/' again.cfg
run over 3 && bad 'more iterations than parts' || { grep -q 'cut into 2 parts and this is iteration 3' out && ok 'more iterations than parts are said' || bad "parts: $(cat out)"; }
echo "$passed passed, $failed failed"
[ $failed = 0 ]
