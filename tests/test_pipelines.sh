#!/bin/sh
# Every file of pipelines/, shortened by --set, on the embedded model; and CREAM on a real pretrained one where
# SLUICE_STORIES names it.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
sluice=$SLUICE_BUILD/sluice
pipelines=$SLUICE_SOURCE/pipelines

# run NAME FILE SLOT@VERSION [--set ...]: the run succeeds, publishes that version, and it differs from the one before.
run() {
    name=$1 file=$2 version=$3
    shift 3
    if ! "$sluice" run "$file" --out "$work/$name" "$@" >"$work/$name.log" 2>&1; then
        echo "not ok: $name"
        tail -n 20 "$work/$name.log"
        failed=$((failed + 1))
        return 1
    fi
    if [ ! -s "$work/$name/models/$version/model.safetensors" ]; then
        echo "not ok: $name: $version was not published"
        failed=$((failed + 1))
        return 1
    fi
    echo "ok: $name"
    passed=$((passed + 1))
}

# again NAME FILE ...: a second run does nothing and leaves the same bytes.
again() {
    name=$1 file=$2
    shift 2
    cp "$work/$name/metrics.jsonl" "$work/metrics.before"
    if "$sluice" run "$file" --out "$work/$name" "$@" >"$work/$name.again" 2>&1 &&
        grep -q 'reused' "$work/$name.again" && cmp -s "$work/$name/metrics.jsonl" "$work/metrics.before"; then
        echo "ok: $name again"
        passed=$((passed + 1))
    else
        echo "not ok: $name again"
        tail -n 20 "$work/$name.again"
        failed=$((failed + 1))
    fi
}

differ() {
    if cmp -s "$work/$1/model.safetensors" "$work/$2/model.safetensors"; then
        echo "not ok: $1 and $2 are the same"
        failed=$((failed + 1))
    else
        echo "ok: $1 differs from $2"
        passed=$((passed + 1))
    fi
}

small="--set start-questions.count=16 --set prompts.count=48 --set control-prompts.count=48 --set questions.count=16 \
 --set control-questions.count=16"
# shellcheck disable=SC2086
run quickstart "$pipelines/quickstart.cfg" policy@3 $small && again quickstart "$pipelines/quickstart.cfg" $small
differ quickstart/models/policy@2 quickstart/models/policy@3
differ quickstart/models/policy@3 quickstart/models/control@3
run embedded-model "$pipelines/embedded-model.cfg" base@1 --set corpus.count=600 --set questions.count=16
few=""
for stage in plain shown graded two mistaken correct mannered; do few="$few --set $stage.count=16"; done
# shellcheck disable=SC2086
run embedded-judge "$pipelines/embedded-judge.cfg" base@2 --set cases.count=320 --set corpus.count=320 $few
# The data files are what make-data.cfg makes, to the byte.
mkdir "$work/data"
if "$sluice" run "$pipelines/make-data.cfg" --out "$work/make-data" --set seeds-file.path="$work/data/seeds.jsonl" \
    --set prompts-file.path="$work/data/prompts.jsonl" --set preferences-file.path="$work/data/preferences.jsonl" \
    --set held-out-file.path="$work/data/held-out.jsonl" >"$work/make-data.log" 2>&1 &&
    diff -r -x reward.py "$work/data" "$pipelines/data" >"$work/make-data.diff"; then
    echo "ok: make-data"
    passed=$((passed + 1))
else
    echo "not ok: make-data"
    tail -n 5 "$work/make-data.log" "$work/make-data.diff"
    failed=$((failed + 1))
fi
run sft "$pipelines/sft.cfg" policy@1 --set seeds.limit=48 --set held-out.limit=16 --set tune.epochs=1
run sft-bf16 "$pipelines/sft.cfg" policy@1 --set seeds.limit=48 --set held-out.limit=16 --set tune.epochs=1 --set tune.moments=bf16 &&
    differ sft-bf16/models/policy@1 sft/models/policy@1
# Moments in bfloat16 train as those in float32 do.
losses() { sed -n 's/.*"stage":"tune".*"train_loss":\([0-9.e-]*\).*/\1/p' "$work/$1/metrics.jsonl"; }
if [ "$(losses sft | wc -l)" = 1 ] && echo "$(losses sft) $(losses sft-bf16)" | awk '{ d = $1 / $2 - 1; exit !(NF == 2 && d * d < 1e-6) }'; then
    echo "ok: sft with moments in bfloat16"
    passed=$((passed + 1))
else
    echo "not ok: sft: the loss is $(losses sft), with moments in bfloat16 $(losses sft-bf16)"
    failed=$((failed + 1))
fi
run reward-model "$pipelines/reward-model.cfg" reward@2 --set first-questions.count=48 --set questions.count=48 --set held-out.count=32 &&
    differ reward-model/models/reward@1 reward-model/models/reward@2
run reward-model-4 "$pipelines/reward-model.cfg" reward@2 --set probed.head=4 --set first-questions.count=48 --set questions.count=48 \
    --set held-out.count=32
if grep -q '"stage":"full-says".*"spread":' "$work/reward-model-4/metrics.jsonl"; then # as the head of the file says
    echo "ok: four outputs on one body"
    passed=$((passed + 1))
else
    echo "not ok: reward-model-4: no spread between outputs"
    failed=$((failed + 1))
fi
run dpo "$pipelines/dpo.cfg" policy@1 --set preferences.limit=48 --set held-out.limit=16
run ipo "$pipelines/ipo.cfg" policy@1 --set preferences.limit=48 --set held-out.limit=16 && differ ipo/models/policy@1 dpo/models/policy@1
if ls "$work"/ipo/tensorboard/ipo/train/events.out.tfevents.* >/dev/null 2>&1; then
    passed=$((passed + 1))
else
    echo "not ok: ipo: no event file of its training"
    failed=$((failed + 1))
fi
run best-of-n "$pipelines/best-of-n.cfg" policy@1 --set questions.count=48 --set answers.n=8 --set held-out.count=16
run best-version "$pipelines/best-version.cfg" policy@5 --set prompts.count=96 --set questions.count=32 --set exam.count=16
run warm "$pipelines/warm.cfg" average@1 --set seeds.count=24 --set made-up.count=24 --set made-up-held.count=24 \
    --set train-questions.count=24 --set held-questions.count=24 --set questions.count=6 --set answers.n=4 && differ warm/models/average@1 warm/models/first@1
run warp "$pipelines/warp.cfg" policy@2 --set phases.warp.repeat=2 --set prompts.limit=48 --set first.limit=16 --set again.limit=16 &&
    differ warp/models/left@1 warp/models/right@1
run warp-isolated "$pipelines/warp.cfg" policy@2 --set phases.warp.repeat=2 --set prompts.limit=48 --set first.limit=16 \
    --set again.limit=16 --set merge.isolate=true
if cmp -s "$work/warp/models/policy@2/model.safetensors" "$work/warp-isolated/models/policy@2/model.safetensors"; then
    passed=$((passed + 1))
else
    echo "not ok: warp: a merge asked for by a process of its own is another"
    failed=$((failed + 1))
fi
# A reward function in Python, and the one that stands in the user guide.
if command -v python3 >/dev/null; then
    run judge-command "$pipelines/judge-command.cfg" policy@1 --set questions.count=48 --set held-out.count=16
    again judge-command "$pipelines/judge-command.cfg" --set questions.count=48 --set held-out.count=16
    mkdir "$work/guide"
    for f in reward.py reward.cfg; do
        awk -v name="$f" '$1 ~ /^```/ { inside = ($2 == name); next } inside' "$SLUICE_SOURCE/doc/user-guide.md" >"$work/guide/$f"
    done
    run reward "$work/guide/reward.cfg" policy@3 --set models.policy.path="$SLUICE_SOURCE/models/embedded"
    echo 'raise ValueError("none today")' >"$work/guide/reward.py" # an edited script is asked again
    if "$sluice" run "$work/guide/reward.cfg" --out "$work/reward" --set models.policy.path="$SLUICE_SOURCE/models/embedded" \
        >"$work/reward.log" 2>&1; then
        echo "not ok: the scores of another reward.py are used"
        failed=$((failed + 1))
    elif grep -q "did not answer for this record in 3 attempts: it ended with exit status 1; its last words: ValueError: none today" "$work/reward.log"; then
        echo "ok: a reward.py that fails"
        passed=$((passed + 1))
    else
        echo "not ok: a reward.py that fails is not told well"
        tail -n 3 "$work/reward.log"
        failed=$((failed + 1))
    fi
else
    echo "skipped: reward functions in Python (there is no python3)"
    skipped=$((skipped + 1))
fi
cream="--set seeds.limit=32 --set tune.epochs=1 --set prompts.limit=96 --set first.limit=16 --set again.limit=16"
# shellcheck disable=SC2086
run self-rewarding "$pipelines/self-rewarding.cfg" policy@4 $cream
# shellcheck disable=SC2086
run cream "$pipelines/cream.cfg" policy@4 $cream && again cream "$pipelines/cream.cfg" $cream
for v in 2 3 4; do differ cream/models/policy@$((v - 1)) cream/models/policy@$v; done
# A judge asked in words: points, A or B, and as soft labels where a regularizer stands.
words="--set seeds.count=32 --set tune.epochs=1 --set prompts.limit=96 --set first.limit=16 --set again.limit=16 --set phases.align.repeat=2"
# shellcheck disable=SC2086
run words "$pipelines/self-rewarding-judge.cfg" policy@3 $words
# shellcheck disable=SC2086
run words-pairwise "$pipelines/self-rewarding-judge.cfg" policy@2 $words --set words.mode=pairwise \
    --set words.prompt="$SLUICE_SOURCE/prompts/embedded-pairwise.txt" --set phases.align.repeat=1
# shellcheck disable=SC2086
run words-pairs "$pipelines/self-rewarding.cfg" policy@2 $cream --set phases.align.repeat=1 --set trust.use=judge-llm \
    --set trust.model=policy --set trust.mode=pairs --set trust.prompt="$SLUICE_SOURCE/prompts/embedded-pairwise.txt"
run judges "$pipelines/judges.cfg" policy@2 --set seeds.count=32 --set tune.epochs=1 --set prompts.count=96 --set fit.epochs=1 \
    --set questions.count=48
# Swapping the regularizer is one setting.
for trust in keep label-smoothing random-label fixed; do
    # shellcheck disable=SC2086
    run "cream-$trust" "$pipelines/cream.cfg" policy@2 $cream --set trust.use=$trust --set phases.align.repeat=1
done
for measure in kendall-b spearman top-order; do
    # shellcheck disable=SC2086
    run "cream-$measure" "$pipelines/cream.cfg" policy@2 $cream --set trust.measure=$measure --set trust.scope=sample --set phases.align.repeat=1
done
if [ -n "${SLUICE_STORIES:-}" ]; then
    run stories "$pipelines/cream.cfg" policy@3 --set models.policy.path="$SLUICE_STORIES" \
        --set seeds.path="$SLUICE_SOURCE/tests/stories/seeds.jsonl" --set prompts.path="$SLUICE_SOURCE/tests/stories/prompts.jsonl" \
        --set again.path="$SLUICE_SOURCE/tests/stories/prompts.jsonl" --set first.path="$SLUICE_SOURCE/tests/stories/prompts.jsonl" --set tune.epochs=1 --set phases.align.repeat=2
    differ stories/models/policy@2 stories/models/policy@3
else
    echo "skipped: CREAM on stories260K (SLUICE_STORIES names no folder)"
    skipped=$((skipped + 1))
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
