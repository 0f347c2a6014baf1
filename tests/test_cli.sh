#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# The command line: help, exit codes, one line an error, and the forms that scripts rely on.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
sluice=$SLUICE_BUILD/sluice
cd "$work" || exit 1

ok() { passed=$((passed + 1)); }
bad() {
    failed=$((failed + 1))
    echo "not ok: $1"
    sed 's/^/    /' out err 2>/dev/null
}

# exits CODE WORDS COMMAND...: the exit code, and words (a basic regular expression) on standard error, or output where it is 0.
exits() {
    code=$1 words=$2
    shift 2
    "$sluice" "$@" >out 2>err </dev/null
    got=$?
    if [ $got != "$code" ]; then
        bad "sluice $*: exit code $got, not $code"
    elif [ "$code" = 0 ] && ! grep -q -e "$words" out; then
        bad "sluice $*: no '$words' on standard output"
    elif [ "$code" != 0 ] && ! grep -q -e "$words" err; then
        bad "sluice $*: no '$words' on standard error"
    else
        ok
    fi
}

exits 0 'sluice [0-9]' --version
exits 0 'Example' --help
exits 2 "did you mean 'sample'" smaple
for command in run check dry-run graph sweep trace plugins describe new-plugin cat doctor recover sample score average env; do
    exits 0 'Example' $command --help
    [ "$(wc -l <out)" -le 30 ] && ! grep -q '.\{125\}' out && ok || bad "$command --help does not fit a screen"
    exits 0 'Example' help $command
    exits 2 'there is no option' $command --no-such-option
done
exits 2 'a stream or a run' doctor
exits 2 '--out is wanted' recover x.zst
exits 1 'No such file.*streams lie in RUN/streams' recover x.zst --out y.zst
exits 1 'No such file.*streams lie in RUN/streams' cat x.zst
"$sluice" doctor nowhere >out 2>err
[ $? = 1 ] && grep -q "No such file.*name a run's folder" out && ok || bad "doctor of nothing: $(cat out)"
exits 1 'No such file.*name the .so' test-plugin nowhere.so
exits 0 'Lists are written .a,b.' run --help
cat >headless.cfg <<CFG
sluice = 1; name = "headless";
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "float32"; }; };
phases = ( { name = "p"; stages = (
  { name = "prompts"; use = "tasks"; split = "train"; count = 4; },
  { name = "answers"; use = "sampler"; from = "prompts"; model = "policy"; },
  { name = "marks"; use = "judge-reward-model"; from = "answers"; models = ["policy"]; } ); } );
CFG
exits 2 "headless.cfg:6: stage 'marks': models: 'policy' is a language model without a reward head" check headless.cfg
exits 2 "'memory' is for a stage in a process of its own\|'limits' is for a stage in a process of its own" check headless.cfg --set answers.limits.memory=1G
exits 2 "'models' takes a list, and 'policy,policy' is one word; write models=.policy,policy." check headless.cfg --set marks.models=policy,policy
# What a killed export left goes at the next; that of one that runs stays.
process=$(sh -c 'echo $$')
mkdir ".small.tmp-$process-0" ".small.tmp-$$-0" ".smaller.tmp-$process-0"
"$sluice" export --model "$SLUICE_SOURCE/models/embedded" --out small >out 2>err || bad "export: $(cat err)"
[ "$(ls -A | grep -c '^[.]small[.]')" = 1 ] && [ -d ".small.tmp-$$-0" ] && [ -d ".smaller.tmp-$process-0" ] && [ -s small/model.safetensors ] && ok || bad "an export leaves $(ls -dA .small*)"
exits 2 'did you mean --set' check --sett x
exits 2 '--set wants a value' check --set
exits 2 'one pipeline file is wanted, 0' run
exits 2 'contradict' run x.cfg --fresh --resume
exits 2 "choose text, markdown, json or man" describe cream --format pdf
exits 2 'one class is wanted' describe
exits 2 'name none' describe --all cream
exits 2 'goes with --all' describe cream --out x
exits 1 'text' describe --all --out /dev/null/text
exits 2 "did you mean 'cream'" describe craem
exits 0 'epsilon: number, default 0.1; at least 0 and at most 0.5' describe label-smoothing
exits 0 '^## cream' describe cream --format markdown
exits 0 '"name": "epsilon", "type": "number", "required": false, "default": 0.1, "min": 0.0, "max": 0.5' describe label-smoothing --format json
exits 0 '^.TH SLUICE.-LABEL.-SMOOTHING 7 ' describe label-smoothing --format man
exits 0 '^# Classes' describe --all --format markdown
exits 0 'label-smoothing.*regularizer' plugins
# The user guide names every number that a class reports.
for class in $("$sluice" plugins | awk 'NR > 1 { print $1 }'); do
    for metric in $("$sluice" describe "$class" | awk 'inside && /^  [^ ]/ { print $1 } /^metrics$/ { inside = 1 }'); do
        if grep -qF "\`$metric\`" "$SLUICE_SOURCE/doc/user-guide.md"; then ok "$class: $metric"; else bad "doc/user-guide.md does not name $metric of $class"; fi
    done
done
exits 0 'plugin ABI' env
printf 'sluice = 1; name = "x";\nnaem = "y";\n' >wrong.cfg
exits 2 'cannot be read' check no-such-file.cfg
exits 2 '^wrong.cfg:2: .*did you mean .name' check wrong.cfg
exits 2 '^2 mistakes' check wrong.cfg
exits 0 '^digraph' graph "$SLUICE_SOURCE/pipelines/cream.cfg"
for file in "$SLUICE_SOURCE"/pipelines/*.cfg; do
    exits 0 '^phase' check "$file" --no-files
done
exits 0 'keep  *pairs' check "$SLUICE_SOURCE/pipelines/cream.cfg" --no-files --set trust.use=keep
exits 1 'no-such-stream' cat no-such-stream
echo 'no stream' >text
exits 1 'text' cat text

# Plugins that are none are said, and do no harm.
mkdir plugins
echo 'no plugin' >plugins/odd.so
SLUICE_PLUGIN_PATH=$work/plugins exits 0 'refused: .*odd.so: not a shared object' plugins
mkfifo plugins/pipe.so
SLUICE_PLUGIN_PATH=$work/plugins exits 0 'refused: .*pipe.so: no regular file' plugins
SLUICE_PLUGIN_PATH=plugins exits 0 'refused: plugins: .*absolute' plugins

# What a sink of a repeated phase leaves is its last iteration's, however often the file is run.
cat >repeated.cfg <<EOF
sluice = 1; name = "repeated";
phases = ( { name = "a"; repeat = 2; stages = (
  { name = "made"; use = "tasks"; count = 5; },
  { name = "kept"; use = "jsonl-sink"; from = "made"; path = "kept.jsonl"; } ); } );
EOF
exits 0 metrics run repeated.cfg
cp kept.jsonl first.jsonl
exits 0 metrics run repeated.cfg
cmp -s kept.jsonl first.jsonl && ok || bad "running again exchanges a sink's iterations"
rm kept.jsonl
exits 0 metrics run repeated.cfg
cmp -s kept.jsonl first.jsonl && ok || bad "a sink's file that was lost is not written again"
exits 0 metrics run repeated.cfg --set made.count=6
exits 0 metrics run repeated.cfg
cmp -s kept.jsonl first.jsonl && ok || bad "going back to earlier settings leaves another file"

# Closed standard files: what is meant for them goes into none of the run's.
cp runs/repeated/metrics.jsonl metrics.before
"$sluice" run repeated.cfg <&- >&- 2>&-
cmp -s runs/repeated/metrics.jsonl metrics.before && ok || bad "the table goes into metrics.jsonl where standard output is closed"

# A folder that holds other things keeps them.
mkdir mine
touch mine/notes.tmp mine/book.part
exits 0 metrics run repeated.cfg --out mine --fresh
[ -f mine/notes.tmp ] && [ -f mine/book.part ] && ok || bad "a run removes files that it did not make"

# The model runtime by itself, on a small model of random weights.
model=$SLUICE_SOURCE/tests/golden/model/grouped
[ -n "${SLUICE_STORIES:-}" ] && model=$SLUICE_STORIES
exits 2 '--model is missing' sample --prompt x
exits 2 '--prompt is missing' sample --model "$model"
exits 1 'no folder' sample --model nowhere --prompt x
exits 2 '--temperature is -1' sample --model "$model" --prompt x --temperature -1
exits 3 'UTF-8' sample --model "$model" --prompt "$(printf 'a\377')"
exits 2 '--out is missing' average "$model"
exits 2 'choose mean, weighted, running or slerp' average --method median --out x "$model"
exits 2 'slerp wants --base' average --method slerp --out x "$model"
exits 2 "eta is '2'" average --method slerp --base "$model" --eta 2 --out x "$model"
exits 2 'base goes with slerp' average --base "$model" --out x "$model"
exits 2 '1 number for 2 models' average --method weighted --weights 1 --out x "$model" "$model"
# A damaged model, and models that do not belong together: which, what to do, exit code 3, and nothing is left behind.
embedded=$SLUICE_SOURCE/models/embedded
cp -R "$embedded" cut && cp -R "$embedded" foreign && chmod -R u+w cut foreign
head -c 1000000 "$embedded/model.safetensors" >cut/model.safetensors
sed 's/<|user|>/<|human|>/' "$embedded/tokenizer.json" >foreign/tokenizer.json
exits 3 'cut/model.safetensors: .* is truncated; copy it again' average --out both "$embedded" cut
exits 3 'tokenizer.json: added_tokens.1.content is "<|user|>" in .* in foreign; take versions of one model' average --out both "$embedded" foreign
exits 3 'cut/model.safetensors' sample --model cut --prompt x
exits 3 'cut/model.safetensors' export --model cut --out both --dtype bf16
[ ! -e both ] && ok || bad "a merge that failed left a folder"
if [ -f "$model/tokenizer.json" ]; then
    exits 0 . sample --model "$model" --prompt 'Once upon a time' --max-tokens 8 --n 2 --seed 3 --json
    cp out first
    exits 0 . sample --model "$model" --prompt 'Once upon a time' --max-tokens 8 --n 2 --seed 3 --json --batch 1 --threads 1
    cmp -s out first && ok || bad "--batch and --threads change the answer"
    [ "$(wc -l <first)" = 2 ] && ok || bad "--n 2 --json gives two lines"

    # What was recorded when an answer was sampled equals a later scoring of its tokens, digit by digit.
    exits 0 . sample --model "$model" --prompt 'Once upon a time' --max-tokens 8 --json --raw
    tokens=$(sed 's/.*"tokens": \[\([^]]*\)\].*/\1/' out) recorded=$(sed 's/.*"logprobs": //; s/}$//' out)
    printf '{"prompt": "Once upon a time", "completion": "x", "id": "a"}\n' >lines
    "$sluice" score --raw --model "$model" lines >scored 2>err || bad "score"
    grep -q '"id": "a".*"sum": -' scored && ok || bad "score keeps the line's own keys"
    prompt=$(sed 's/.*"tokens": \[\([^]]*\)\].*/\1/; ' scored) from=$(sed 's/.*"from": \([0-9]*\).*/\1/' scored)
    prompt=$(printf %s "$prompt" | cut -d, -f1-"$from")
    printf '{"tokens": [%s, %s], "from": %s}\n' "$prompt" "$tokens" "$from" |
        "$sluice" score --model "$model" >scored 2>err || bad "score of tokens"
    grep -qF "\"logprobs\": $recorded" scored && ok || bad "scoring gives other log-probabilities than sampling: $recorded $(cat scored)"

    printf '{"tokens": [1, 2], "from": 1}\n{"tokens": [1, 99999999], "from": 1}\n' >lines
    exits 3 '^lines:2: token 1 is no id' score --model "$model" lines
    [ "$(wc -l <out)" = 1 ] && ok || bad "the lines before a wrong one are written"
    printf '{"tokens": [1, 2], "from": 1}\n{"tokens": [%s1], "from": 1}\n' "$(printf '1, %.0s' $(seq 3000))" >lines
    exits 3 '^lines:2: 3001 tokens are more' score --model "$model" lines
    [ "$(wc -l <out)" = 1 ] && ok || bad "the lines before one that is too long are written"
    exits 1 'cannot be read' score --model "$model" .
    for line in 'nonsense' '{"prompt": 5, "completion": "x"}' '{"prompt": "x"}' '[1]' '{"tokens": [1], "from": 2}' \
        '{"prompt": "a", "prompt": "b", "completion": "x"}' "$(printf '{"prompt": "\377", "completion": "x"}')"; do
        printf '%s\n' "$line" >lines
        exits 3 '^lines:1: ' score --model "$model" lines
        [ "$(wc -l <err)" = 1 ] && ok || bad "one line says what is wrong with: $line"
    done
    "$sluice" average --out mean "$model" "$model" >out 2>err || bad "average"
    exits 0 . sample --model mean --prompt 'Once upon a time' --max-tokens 8 --json --raw
    grep -qF "$recorded" out && ok || bad "the mean of a model and itself is another model"
    exits 1 'mean' average --out mean "$model"
    "$sluice" average --method slerp --base "$model" --eta 0.5 --out turned "$model" "$model" >out 2>err || bad "average by slerp"
    cmp -s mean/model.safetensors turned/model.safetensors && ok || bad "models that are their base merge to another"
    "$sluice" export --model "$model" --dtype bf16 --out half >out 2>err || bad "export"
    grep -q '"torch_dtype": "bfloat16"\|"dtype": "bfloat16"' half/config.json && ok || bad "an exported model says its dtype"
    "$sluice" average --out whole half >out 2>err || bad "average of one"
    "$sluice" export --model whole --out again >out 2>err || bad "export in the original dtype"
    cmp -s half/model.safetensors again/model.safetensors && ok || bad "an export remembers the original dtype"
    exits 2 'model is missing' export --out x
    exits 2 'int4' export --model "$model" --out x --dtype int4
else
    skipped=$((skipped + 1))
    echo "skipped: sample and score (no tokenizer; SLUICE_STORIES names no model)"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
