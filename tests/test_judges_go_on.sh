#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# Judges that were killed go on with what they had said: the same bytes as undisturbed, and a program is not asked everything again.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { failed=$((failed + 1)); echo "not ok: $*"; }
cd "$work" || exit 1
cat >judge.sh <<'EOF'
while read -r line; do
    echo x >>"$1"
    id=${line#*\"id\":*\"}
    printf '{"id": "%s", "scores": [0.5, null]}\n' "${id%%\"*}"
    [ "$(wc -l <"$1")" -ne 500 ] || sleep 60 # once: until the run is killed
done
EOF
cat >judges.cfg <<EOF
sluice = 1; name = "judges"; seed = 3;
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "float32"; };
           other  = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "bf16"; }; };
phases = ( { name = "p"; stages = (
  { name = "prompts"; use = "tasks";          split = "train"; count = 800; },
  { name = "answers"; use = "sampler";        from = "prompts"; model = "policy"; n = 2; max_tokens = 6; },
  { name = "own";     use = "judge-implicit"; from = "answers"; after = "answers"; model = "policy"; reference = "other"; },
  { name = "words";   use = "judge-llm";      from = "own"; after = "own"; model = "policy"; mode = "question";
    prompt = "$SLUICE_SOURCE/prompts/embedded-question.txt"; },
  { name = "program"; use = "judge-command";  from = "words"; after = "words"; command = ( "sh", "$work/judge.sh", "$work/asked" ); }
); } );
EOF
run() { exec "$SLUICE_BUILD/sluice" run judges.cfg --quiet --out "$1"; }
yes x | head -n 1000 >asked # so that this one does not wait
(run whole) >out 2>&1 && ok 'an undisturbed run' || bad "an undisturbed run: $(cat out)"
rm asked
# until FILE...: starts a run, and kills it when a file is there and a moment has gone by.
kill_when() {
    run killed >out 2>&1 &
    child=$!
    until [ -e "$1" ] || ! kill -0 $child 2>/dev/null; do sleep 0.02; done
    sleep "$2"
    kill -9 $child 2>/dev/null
    wait $child 2>/dev/null
}
kill_when killed/streams/p-1/own.zst.part 0.2
kill_when killed/streams/p-1/own.done 0.3
kill_when killed/streams/p-1/own.done 1.2
run killed >out 2>&1 &
child=$!
until [ -e asked ] && [ "$(wc -l <asked)" -ge 500 ]; do
    kill -0 $child 2>/dev/null || break
    sleep 0.05
done
kill -9 $child 2>/dev/null
wait $child 2>/dev/null
(run killed) >out 2>&1 && ok 'went on after four kills' || bad "after four kills: $(cat out)"
if diff -rq -x .lock -x log.txt -x timing.jsonl -x environment.txt whole killed >difference; then
    ok 'the same streams and metrics'
else
    bad "other results: $(cat difference)"
fi
# What was in its hands when it was killed, a batch at most, is asked again.
asked=$(wc -l <asked)
[ "$asked" -lt 950 ] && ok "the program was asked $asked times about 800 records" || bad "the program was asked $asked times about 800 records"

# An ensemble whose members' scores are not kept, and an evaluator: what they count goes on too.
cat >counts.cfg <<EOF
sluice = 1; name = "counts"; seed = 3;
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "float32"; };
           first  = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "float32"; };
           second = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "float32"; };
           other  = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "bf16"; }; };
phases = ( { name = "train"; stages = (
  { name = "few";  use = "tasks";   split = "train"; form = "preference"; count = 32; },
  { name = "one";  use = "trainer"; from = "few"; model = "first";  loss = "bradley-terry"; lr = 1e-4; },
  { name = "two";  use = "trainer"; from = "few"; model = "second"; loss = "bradley-terry"; lr = 3e-4; } ); },
 { name = "p"; stages = (
  { name = "held";  use = "tasks";              split = "validation"; form = "preference"; count = RECORDS; },
  { name = "score"; use = "judge-reward-model"; from = "held"; models = ["first@1", "second@1"]; combine = "lower"; },
  { name = "eval";  use = "evaluator";          from = "score"; after = "score"; model = "policy"; reference = "other"; judge = "score"; group = "family"; }
); } );
EOF
sed -i "s/RECORDS/${RECORDS:-4500}/" counts.cfg
run() { exec "$SLUICE_BUILD/sluice" run counts.cfg --quiet --out "$1"; }
(run whole-counts) >out 2>&1 && ok 'an undisturbed run' || bad "an undisturbed run: $(cat out)"
# kill_at CHECKPOINT: a run is killed once that is there. A machine may be so fast that the stage is done by then: only what
# was left unfinished beside a checkpoint must go on.
unfinished=0
kill_at() {
    run killed-counts >out 2>&1 &
    child=$!
    # shellcheck disable=SC2086
    until ls $1 >/dev/null 2>&1 || ! kill -0 $child 2>/dev/null; do sleep 0.05; done
    kill -9 $child 2>/dev/null
    wait $child 2>/dev/null
    stage=${1%.checkpoint-*}
    [ -e "$stage.done" ] || ! ls "$stage".checkpoint-* >/dev/null 2>&1 || unfinished=$((unfinished + 1))
}
kill_at 'killed-counts/streams/p-1/score.checkpoint-1'
kill_at 'killed-counts/streams/p-1/score.checkpoint-2'
kill_at 'killed-counts/streams/p-1/eval.checkpoint-1'
kill_at 'killed-counts/streams/p-1/eval.checkpoint-2'
(run killed-counts) >out 2>&1 && ok 'went on after four kills' || bad "after four kills: $(cat out)"
went=$(grep -c 'goes on after record' killed-counts/log.txt)
[ "$went" -ge "$unfinished" ] && ok "from what had been counted, $went times of $unfinished" || bad "goes on $went times of $unfinished"
if diff -rq -x .lock -x log.txt -x timing.jsonl -x environment.txt whole-counts killed-counts >difference; then
    ok 'the same scores and numbers'
else
    bad "other results: $(cat difference)"
fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
