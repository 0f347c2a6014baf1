#!/bin/sh
# sluice sweep: variants and seeds, what they share, kills, failures, the table.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 passed=0
sluice=$SLUICE_BUILD/sluice
study=$SLUICE_SOURCE/pipelines/ablation-cream.cfg
cd "$work" || exit 1

ok() { passed=$((passed + 1)); }
bad() {
    echo "not ok: $*"
    failed=$((failed + 1))
}

# exits CODE PATTERN ARGUMENTS...: that exit code, and one line that says this.
exits() {
    code=$1 pattern=$2
    shift 2
    "$sluice" "$@" >out 2>err
    got=$?
    if [ "$got" = "$code" ] && cat out err | grep -q -- "$pattern"; then ok; else bad "$*: exit $got, said $(cat out err | tail -n 3)"; fi
}

small="--set seeds.limit=32 --set tune.epochs=1 --set prompts.limit=96 --set first.limit=16 --set again.limit=16 --set phases.align.repeat=2"

# What it will do.
# shellcheck disable=SC2086
exits 0 'Of 360 stages 212 are to run, 148 are shared' sweep "$study" $small --set 'seeds=[1,2]' --out sweep --plan
grep -q 'Time: unknown' out && ok || bad "a time from nothing: $(tail -n 1 out)"
[ ! -e sweep ] && ok || bad '--plan made a folder'

# It does it.
# shellcheck disable=SC2086
exits 0 '12 of 12 runs: 6 variants, 2 seeds' sweep "$study" $small --set 'seeds=[1,2]' --out sweep -j 2
for form in md csv json; do [ -s sweep/table.$form ] && ok || bad "there is no table.$form"; done
[ "$(grep -c done err)" = 12 ] && ok || bad "runs that were not told of: $(cat err)"
[ "$(grep -l '"iteration":1,"stage":"answers","start"' sweep/*/timing.jsonl | wc -l)" = 2 ] && ok || bad 'answers of the first iteration were sampled more than once a seed'
[ "$(grep -l '"stage":"tune","start"' sweep/*/timing.jsonl | wc -l)" = 2 ] && ok || bad 'SFT ran more than once a seed'

# The mean and the interval of one row: two seeds, so half the interval is 12.706 |a - b| / 2.
accuracy() { sed -n 's/.*"iteration":2,"stage":"eval",.*"accuracy":\([0-9.]*\),.*/\1/p' "sweep/$1/metrics.jsonl"; }
want=$(echo "$(accuracy verifier-1) $(accuracy verifier-2) $(accuracy self-rewarding-1) $(accuracy self-rewarding-2)" | awk '
    { m = ($1 + $2) / 2; h = 12.706 * ($1 > $2 ? $1 - $2 : $2 - $1) / 2; d = m - ($3 + $4) / 2
      printf "%.5f %.5f %.5f %.5f", m, m - h, m + h, d }')
got=$(grep '^"eval","accuracy","align",2,"verifier",2,' sweep/table.csv | awk -F, '{ printf "%.5f %.5f %.5f %.5f", $7, $8, $9, $11 }')
[ "$want" = "$got" ] && ok || bad "the table says $got, the runs $want"

# Once more: nothing to do, the same table.
cp sweep/table.json before.json
# shellcheck disable=SC2086
exits 0 '12 of 12 runs' sweep "$study" $small --set 'seeds=[1,2]' --out sweep
[ "$(grep -c 'there, looked at' err)" = 12 ] && ok || bad "finished runs were not kept: $(cat err)"
cmp -s before.json sweep/table.json && ok || bad 'the table of the same runs is another'
# shellcheck disable=SC2086
exits 0 'Of 360 stages 0 are to run' sweep "$study" $small --set 'seeds=[1,2]' --out sweep --plan
# A third seed: how long it takes is known now.
# shellcheck disable=SC2086
exits 0 'Time: about' sweep "$study" $small --set 'seeds=[1,2,3]' --out sweep --plan

# A run by itself is the same to the byte.
# shellcheck disable=SC2086
exits 0 'align 2/2' run "$study" $small --set variant=cream-sample --set seed=2 --out alone
cmp -s alone/metrics.jsonl sweep/cream-sample-2/metrics.jsonl && cmp -s alone/models/policy@3/model.safetensors sweep/cream-sample-2/models/policy@3/model.safetensors &&
    ok || bad 'a run of a sweep is not what it would be alone'

# Killed in the middle, then the same command.
# shellcheck disable=SC2086
"$sluice" sweep "$study" $small --set 'seeds=[1,2]' --out sweep --fresh -j 2 >/dev/null 2>&1 &
sweep=$!
sleep 1
kill -9 "$sweep"
wait "$sweep" 2>/dev/null
# shellcheck disable=SC2086
exits 0 '12 of 12 runs' sweep "$study" $small --set 'seeds=[1,2]' --out sweep -j 2
cmp -s before.json sweep/table.json && ok || bad 'a kill changed the table'

# Stopped, then the same command.
# shellcheck disable=SC2086
"$sluice" sweep "$study" $small --set 'seeds=[1,2]' --out sweep --fresh -j 2 >/dev/null 2>stopped &
sweep=$!
for i in 1 2 3 4 5 6 7 8 9 10; do grep -q started stopped 2>/dev/null && break || sleep 0.5; done
kill -TERM "$sweep"
wait "$sweep"
[ $? = 130 ] && grep -q 'the same command goes on' stopped && ok || bad "stopped: $(tail -n 2 stopped)"
# shellcheck disable=SC2086
exits 0 '12 of 12 runs' sweep "$study" $small --set 'seeds=[1,2]' --out sweep -j 2
cmp -s before.json sweep/table.json && ok || bad 'a stop changed the table'

# One page of all.
exits 0 'comparison.html' report sweep/*-[12]
grep -q '6 variants' comparison.html && ok || bad 'the page does not know the variants'

# A run that fails does not stop the others.
cat >partly.cfg <<EOF
sluice = 1; name = "partly"; seed = 1;
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "float32"; }; };
phases = ( { name = "try"; stages = (
    { name = "questions"; use = "tasks";    split = "test"; count = 8; fresh = false; },
    { name = "answers";   use = "sampler";  from = "questions"; model = "policy"; n = 1; max_tokens = 8; },
    { name = "marked";    use = "verifier"; from = "answers"; },
    { name = "eval";      use = "evaluator"; from = "marked"; model = "policy"; truth = "marked"; } ); } );
ablation = { two = { }; lost = { marked = { answer = "nowhere"; }; }; one = { answers = { temperature = 0.0; }; }; };
EOF
exits 1 'sluice sweep: lost-1 failed: .*nowhere' sweep partly.cfg --metric eval/accuracy --metric eval/beauty
[ "$(grep -c 'done in' err)" = 2 ] && ok || bad "the others did not run: $(cat err)"
grep -q "no run reported 'eval/beauty'" err && ok || bad 'a metric that is nowhere is not told of'
grep -q '^| lost  *|  *–' out && ok || bad "a failed run in the table: $(cat out)"
grep -q 'eval/accuracy' runs/partly-sweep/table.md && ok || bad 'no table in runs/partly-sweep'

# Wrong use.
exits 2 'there is nothing to sweep' sweep "$SLUICE_SOURCE/pipelines/sft.cfg"
exits 2 "no variant 'cream-simple'; did you mean 'cream-sample'" run "$study" --set variant=cream-simple --out no
exits 2 'leave variant=fixed out' sweep "$study" --set variant=fixed --out no
exits 2 'the seed 3 twice' sweep "$study" --set 'seeds=[3,3]' --out no
exits 2 'names no stage' sweep "$study" --metric accuracy
exits 2 "has no stage 'evil'" sweep "$study" --metric evil/accuracy --plan
exits 2 'one pipeline file' sweep
[ ! -e no ] && ok || bad 'wrong use made a folder'

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
