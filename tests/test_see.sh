#!/bin/sh
# Seeing a pipeline and a run: dry-run, graph, trace, the table of times.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 passed=0
sluice=$SLUICE_BUILD/sluice
pipelines=$SLUICE_SOURCE/pipelines
cd "$work" || exit 1
mkdir tmp
export TMPDIR="$work/tmp"

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

says() { if grep -qE -- "$2" "$1"; then ok; else bad "$1 does not say: $2"; fi; }

# A file of its own, with a sink whose file a later phase reads.
cat >small.cfg <<EOF
sluice = 1; name = "small"; seed = 3;
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "float32"; }; };
phases = (
  { name = "make"; stages = (
      { name = "questions"; use = "tasks";      split = "train"; count = 64; },
      { name = "kept";      use = "jsonl-sink"; from = "questions"; path = "kept.jsonl"; form = "prompt"; } ); },
  { name = "align"; repeat = 2; stages = (
      { name = "prompts"; use = "jsonl-source"; path = "kept.jsonl"; },
      { name = "answers"; use = "sampler";      from = "prompts"; model = "policy"; n = 4; max_tokens = 12; },
      { name = "checked"; use = "verifier";     from = "answers"; },
      { name = "pairs";   use = "ranker";       from = "checked"; by = "checked"; truth = "checked"; },
      { name = "train";   use = "trainer";      from = "pairs"; model = "policy"; loss = "dpo"; beta = 0.1; lr = 1e-5; epochs = 3; } ); } );
EOF

# One record through all stages; nothing stays.
: >kept.jsonl
exits 0 'align / train  (trainer, dpo)' dry-run small.cfg
says out 'align / answers  \(sampler\)'
says out 'candidates\[3\]\.text  '
says out 'scores\.checked  '
says out 'pairs\[0\]\.chosen  '
says out 'train_loss 0\.'
[ "$(grep -c ' prompt  ' out)" -le 3 ] && ok || bad 'what did not change is printed again'
[ ! -s kept.jsonl ] && ok || bad 'a sink wrote its real file'
[ -z "$(ls -A tmp)" ] && [ ! -e runs ] && ok || bad "something was left: $(ls -A tmp)"
exits 0 '^8 records' dry-run small.cfg --records 8
echo '{"prompt": 3}' >broken.jsonl
exits 3 'broken.jsonl:1' dry-run small.cfg --set prompts.path=broken.jsonl
says out 'did not run to its end'
exits 2 'there is no class' dry-run small.cfg --set pairs.use=rankre
exits 2 'one pipeline file' dry-run
[ -z "$(ls -A tmp)" ] && ok || bad "a failed dry run left something: $(ls -A tmp)"

# The graph.
exits 0 '^digraph "small"' graph small.cfg
exits 0 '^<svg xmlns' graph small.cfg --format svg
says out '</svg>'
says out '>questions</text>'
"$sluice" graph small.cfg --out small.svg && cmp -s out small.svg && ok || bad 'a file ending in .svg is no SVG'
exits 0 'digraph' graph "$pipelines/cream.cfg" --set models.policy.path=nowhere
exits 2 "no format 'png'" graph small.cfg --format png
exits 1 'cannot write' graph small.cfg --out nowhere/x.dot

# Times at the end of a run, and the trace.
exits 0 'at most [0-9]* MB of memory' run small.cfg --set questions.count=48 --out once --store off
says out '^stage  *in  *out  *tokens in  *tokens out'
says out '^answers  *96  *96  '
says once/timing.jsonl '"stage":"answers",.*"writing":[0-9.]+,"records_in":48,"records":48,.*"tokens_out":[1-9][0-9]*,.*"memory":[1-9]'
exits 0 '"traceEvents":\[' trace once
says out '"ph":"X".*"name":"answers 2".*"records_in":48'
says out '"name":"process_name","args":\{"name":"align"\}'
[ "$(grep -c '"ph":"X"' out)" = 12 ] && ok || bad 'not every stage that ran is in the trace'
if command -v python3 >/dev/null; then
    python3 -c 'import json; json.load(open("out"))' && ok || bad 'the trace is no JSON'
fi
echo '{"phase":"align","iter' >>once/timing.jsonl
exits 0 '1 line is damaged' trace once --out trace.json
[ -s trace.json ] && ok || bad 'there is no trace.json'
exits 1 'name the folder of a run' trace nowhere
mkdir empty && echo nonsense >empty/timing.jsonl
exits 3 'no line can be read' trace empty

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
