#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# best-version: of the versions of a phase the one with the best number is published, whoever reported it; what was computed is not
# computed again; mistakes are said by check.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { failed=$((failed + 1)); echo "not ok: $*"; }
sluice=$SLUICE_BUILD/sluice
file=$SLUICE_SOURCE/pipelines/best-version.cfg
cd "$work" || exit 1
few="--set prompts.count=192 --set questions.count=64 --set exam.count=16 --set train.lr=3e-4 --set phases.align.repeat=3"
# shellcheck disable=SC2086
run() { # NAME, arguments
    name=$1
    shift
    "$sluice" run "$file" $few "$@" --out "$name" --store off >out 2>&1 || bad "$name: $(cat out)"
}
# of NAME STAGE METRIC: a line an iteration.
of() { sed -n 's/.*"stage":"'"$2"'",.*"'"$3"'":\([-0-9.e]*\).*/\1/p' "$1/metrics.jsonl"; }
# kept NAME VERSION AS: that version was published as AS.
kept() {
    if [ "$(of "$1" best kept_version)" = "$2.0" ] && cmp -s "$1/models/policy@$2/model.safetensors" "$1/models/policy@$3/model.safetensors" &&
        diff -rq -x .key "$1/models/policy@$2" "$1/models/policy@$3" >difference; then ok "$1: policy@$2 is kept as policy@$3"; else bad "$1: policy@$(of "$1" best kept_version) is kept, not policy@$2"; fi
}
most() { awk '{ if (NR == 1 || $1 > most) { most = $1; at = NR } } END { print at }'; }
least() { awk '{ if (NR == 1 || $1 < least) { least = $1; at = NR } } END { print at }'; }

# By the verifier behind the sampler.
run marks
best=$(of marks marked accuracy | most)
kept marks "$best" 4
grep -q "best: policy@4 is policy@$best, the best of 3 versions" out && ok 'the end of the run says so' || bad "the end says: $(tail -n 8 out)"
grep -q "kept policy@$best as policy@4: of policy@1 .*, policy@2 .*, policy@3 .* (marked/accuracy) it is the highest" marks/log.txt && ok 'the log says why' ||
    bad "the log says $(grep kept marks/log.txt)"
grep -q '"stage":"eval","model":"policy@4"' marks/metrics.jsonl && ok 'what follows goes on with it' || bad 'what follows uses another version'

# By what a trainer reports, the lower the better; only the choice and what follows run anew.
: >marks/timing.jsonl
run marks --set best.by=train/train_loss --set best.better=lower
kept marks "$(of marks train train_loss | least)" 4
[ "$(grep -c '"reused":true' marks/timing.jsonl)" = 25 ] && ok 'the phase is reused' || bad "$(grep -c '"reused":true' marks/timing.jsonl) stages were reused"
: >marks/timing.jsonl
run marks --set best.by=train/train_loss --set best.better=lower
[ "$(grep -c '"reused":true' marks/timing.jsonl)" = 29 ] && ok 'all of it is reused' || bad "$(grep -c '"reused":true' marks/timing.jsonl) of 29 stages were reused"
# The highest of two lists, and one more iteration.
: >marks/timing.jsonl
run marks --set 'best.by=[marked/accuracy,train/rewards/accuracies]' --set phases.align.repeat=4 2>/dev/null
[ "$(grep -c '"reused":true' marks/timing.jsonl)" = 25 ] && ok 'one more iteration: the earlier are reused' || bad "with one more iteration $(grep -c '"reused":true' marks/timing.jsonl) were reused"
# With fewer iterations the chosen version is the third: with three again it must be the trainer's, and what is chosen too.
run fewer
cp fewer/metrics.jsonl numbers
run fewer --set phases.align.repeat=2
cmp -s fewer/models/policy@3/model.safetensors marks/models/policy@3/model.safetensors && bad 'the chosen version is the one trained third'
rm fewer/streams/align-3/marked.done fewer/streams/align-3/tried.done
run fewer
cmp -s fewer/models/policy@3/model.safetensors marks/models/policy@3/model.safetensors && cmp -s fewer/metrics.jsonl numbers &&
    ok 'fewer iterations and as many again' || bad "after fewer iterations and as many again policy@3 is another stage's"
kept fewer "$best" 4
# Versions that nothing else reads stay until the choice is made.
run pruned --set models.policy.keep_versions=1
[ "$(of pruned best kept_version)" = "$best.0" ] && cmp -s pruned/models/policy@4/model.safetensors marks/models/policy@"$best"/model.safetensors &&
    ok 'keep_versions waits for the choice' || bad "with keep_versions policy@$(of pruned best kept_version) is kept"

# mistake PATTERN SETTING...
mistake() {
    pattern=$1
    shift
    if "$sluice" check "$file" "$@" >out 2>&1; then bad "$* is no mistake"; else grep -q -- "$pattern" out && ok "$*" || bad "$*: $(cat out)"; fi
}
mistake "no stage 'markd' stands in a phase before 'choose'; did you mean 'marked'?" --set best.by=markd/accuracy
mistake "'marked' (class 'verifier') reports no 'acuracy'; did you mean 'accuracy'?" --set best.by=marked/acuracy
mistake "'accuracy' is no metric; write \"STAGE/METRIC\"" --set best.by=accuracy
mistake "no stage 'eval' stands in a phase before 'choose'" --set best.by=eval/accuracy
mistake "the numbers of 'prompts' are about no version of 'policy'" --set best.by=prompts/questions
mistake 'cannot run in a process of its own: it asks for the numbers of other stages' --set best.isolate=true
echo "$passed passed, $failed failed"
[ $failed = 0 ]
