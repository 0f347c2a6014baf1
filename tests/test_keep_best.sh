#!/bin/sh
# A trainer's validation split and keep = best: the weights after the best epoch, as training for that long gives them.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 passed=0
sluice=$SLUICE_BUILD/sluice
cd "$work" || exit 1

ok() { passed=$((passed + 1)); }
bad() {
    echo "not ok: $*"
    failed=$((failed + 1))
}

cat >sft.cfg <<EOF
sluice = 1; name = "sft"; seed = 5;
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "float32"; }; };
phases = ( { name = "sft"; stages = (
    { name = "seeds"; use = "jsonl-source"; path = "$SLUICE_SOURCE/pipelines/data/seeds.jsonl"; limit = 48; },
    { name = "tune";  use = "trainer"; from = "seeds"; model = "policy"; loss = "sft"; lr = 5e-4; batch = 8; epochs = 4;
      schedule = "constant"; warmup = 0.0; validation = 0.25; } ); } );
EOF
cat >dpo.cfg <<EOF
sluice = 1; name = "dpo"; seed = 5;
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "float32"; }; };
phases = ( { name = "align"; stages = (
    { name = "pairs"; use = "jsonl-source"; path = "$SLUICE_SOURCE/pipelines/data/preferences.jsonl"; limit = 48; },
    { name = "train"; use = "trainer"; from = "pairs"; model = "policy"; loss = "dpo"; beta = 0.1; lr = 1e-4; batch = 8; epochs = 3;
      schedule = "constant"; warmup = 0.0; validation = 0.25; } ); } );
EOF

# run NAME FILE ...: a run that succeeds.
run() {
    name=$1
    shift
    "$sluice" run "$@" --out "$name" --store off --quiet >log 2>&1 || bad "$name: $(cat log)"
}
# number NAME METRIC: of the stage's own line.
number() { sed -n 's/.*"model".*"'"$2"'":\([0-9.]*\).*/\1/p' "$1/metrics.jsonl"; }
# validations NAME METRIC: after each epoch.
validations() { sed -n 's/.*"validation\/'"$2"'":\([-0-9.e]*\).*/\1/p' "$1/metrics.jsonl"; }
same() { if cmp -s "$1/models/policy@1/model.safetensors" "$2/models/policy@1/model.safetensors"; then ok; else bad "$1 and $2 differ"; fi; }

run best sft.cfg --set tune.keep=best
best=$(validations best loss | awk '{ if (NR == 1 || $1 < least) { least = $1; at = NR } } END { print at }')
[ "$(validations best loss | wc -l)" = 4 ] && ok || bad 'not every epoch was measured'
[ "$(number best best_epoch)" = "$best.0" ] && ok || bad "epoch $(number best best_epoch) was kept, $best was best"
[ "$(number best validation_examples)" != 0.0 ] && ok || bad 'nothing was held out'
run exact sft.cfg --set tune.epochs="$best"
same best exact
run last sft.cfg
[ "$(validations last loss)" = "$(validations best loss)" ] && ok || bad 'what is kept changes what is measured'
run more sft.cfg --set tune.micro_tokens=64
[ "$(validations last loss)" = "$(validations more loss)" ] && ok || bad 'micro_tokens changes what is measured'

# Of pairs, by another number.
run pairs dpo.cfg --set train.keep=best --set train.best_by=rewards/margins
best=$(validations pairs rewards\\/margins | awk '{ if (NR == 1 || $1 > most) { most = $1; at = NR } } END { print at }')
[ "$(number pairs best_epoch)" = "$best.0" ] && ok || bad "by margins: epoch $(number pairs best_epoch), not $best"

# Killed again and again on its way, with a checkpoint after each step: the same model and numbers.
"$sluice" run sft.cfg --set tune.keep=best --set tune.epochs=8 --set tune.checkpoint_every=0 --out whole --store off --quiet >log 2>&1 || bad "whole: $(cat log)"
n=0
while [ $n -lt 12 ]; do
    n=$((n + 1))
    "$sluice" run sft.cfg --set tune.keep=best --set tune.epochs=8 --set tune.checkpoint_every=0 --out killed --store off --quiet >log 2>&1 &
    child=$!
    sleep "0.$((20 + 3 * n))"
    kill -9 $child 2>/dev/null || n=12
    wait $child 2>/dev/null
done
run killed sft.cfg --set tune.keep=best --set tune.epochs=8 --set tune.checkpoint_every=0
same whole killed
cmp -s whole/metrics.jsonl killed/metrics.jsonl && ok || bad 'kills change the numbers'
grep -q 'goes on after step' killed/log.txt && ok || bad 'no kill hit the training'
# Stopped by a signal and gone on with, likewise.
"$sluice" run sft.cfg --set tune.keep=best --set tune.epochs=8 --out stopped --store off --quiet >log 2>&1 &
child=$!
sleep 0.4
kill -TERM $child
wait $child
run stopped sft.cfg --set tune.keep=best --set tune.epochs=8 
cmp -s whole/metrics.jsonl stopped/metrics.jsonl && same whole stopped || bad 'a stop changes the numbers'

# Mistakes.
"$sluice" run sft.cfg --set tune.keep=best --set tune.validation=0.0 --out no --store off >log 2>&1 && bad 'keep = best without a split'
grep -q 'keep = "best" has nothing to go by' log && ok || bad "$(tail -n 1 log)"
"$sluice" run sft.cfg --set seeds.limit=1 --out no --store off >log 2>&1 && bad 'a split of one example'
grep -q 'leaves none to' log && ok || bad "$(tail -n 1 log)"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
