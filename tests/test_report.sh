#!/bin/sh
# sluice report: pages of a whole run, of one that failed, one that goes on and a damaged one; hostile texts; several runs.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 passed=0
sluice=$SLUICE_BUILD/sluice
pipelines=$SLUICE_SOURCE/pipelines
cd "$work" || exit 1

ok() { passed=$((passed + 1)); }
bad() {
    echo "not ok: $*"
    failed=$((failed + 1))
}

# says FILE TEXT: the page has this text, to the letter.
says() { if grep -qF -- "$2" "$1"; then ok; else bad "$1 does not say: $2"; fi; }
lacks() { if grep -qF -- "$2" "$1"; then bad "$1 says: $2"; else ok; fi; }

# whole FILE: tags open and close in order, nothing is fetched, nothing runs.
whole() {
    if ! awk '
        { text = text $0 "\n" }
        END {
            while (match(text, /<[^>]*>/)) {
                tag = substr(text, RSTART + 1, RLENGTH - 2)
                text = substr(text, RSTART + RLENGTH)
                name = tag
                sub(/[ \n].*/, "", name)
                if (name ~ /^!/ || name == "meta" || tag ~ /\/$/) continue
                if (name ~ /^\//) {
                    if (depth == 0 || stack[depth] != substr(name, 2)) { print "</" substr(name, 2) "> closes <" stack[depth] ">"; exit 1 }
                    depth--
                } else stack[++depth] = name
            }
            if (depth != 0) { print "<" stack[depth] "> stays open"; exit 1 }
        }' "$1"; then bad "$1 is not well-formed"; else ok; fi
    if grep -qE '<(script|img|iframe|link|object|embed|base)|<[^>]*[ "](src|href|srcset|on[a-z]+)=|@import|url\([^#]' "$1"; then bad "$1 fetches or runs something"; else ok; fi
    if grep -qE 'https?://' "$1"; then bad "$1 names a place in the network"; else ok; fi
}

# exits CODE PATTERN ARGUMENTS...: that exit code, and one line that says this.
exits() {
    code=$1 pattern=$2
    shift 2
    "$sluice" report "$@" >out 2>err
    got=$?
    if [ "$got" = "$code" ] && cat out err | grep -q -- "$pattern"; then ok; else bad "report $*: exit $got, said $(cat out err | head -n 2)"; fi
}

cat >hostile.jsonl <<'EOF'
{"prompt": "</p></div><script>alert(1)</script>", "answer": "1"}
{"prompt": "<img src=x onerror=\"alert(2)\"> & 'quotes' \u0007 \u202e", "answer": "2"}
{"prompt": "<!-- <style>*{display:none}</style>", "answer": "3"}
{"messages": [{"role": "user", "content": "]]></svg><a href=\"data:text/html,x\">"}], "answer": "4"}
EOF
small="--set seeds.limit=64 --set tune.epochs=1"

# A whole run with hostile prompts, in a folder with a hostile name.
name='run "><script>alert(3)'
# shellcheck disable=SC2086
"$sluice" run "$pipelines/sft.cfg" --out "$name" $small --set held-out.path=hostile.jsonl --quiet >log 2>&1 || bad "run: $(cat log)"
exits 0 'report.html' "$name"
page="$name/report.html"
whole "$page"
says "$page" '&lt;script&gt;alert(1)&lt;/script&gt;'
says "$page" '&lt;img src=x onerror=&quot;alert(2)&quot;&gt; &amp; &#39;quotes&#39;'
says "$page" "user: ]]&gt;&lt;/svg&gt;"
says "$page" "default-src 'none'"
for part in results samples pipeline timing more; do says "$page" "id=\"$part\""; done
says "$page" 'aria-label="Chart of loss'
says "$page" 'policy@1'
says "$page" 'trainer (sft)'
says "$page" 'seed 1<'
says "$page" 'sluice 0'
lacks "$page" 'class="note"'
exits 0 'other.html' "$name" --out other.html --title '<i>Title'
says other.html '<h1>&lt;i&gt;Title</h1>'
whole other.html
cp "$page" first.html
exits 0 'report.html' "$name/"
cmp -s first.html "$page" && ok || bad 'a second report is another page'

# A run that failed: what there is, and why.
head -n 40 "$pipelines/data/held-out.jsonl" >broken.jsonl
echo '{"prompt": 3' >>broken.jsonl
# shellcheck disable=SC2086
"$sluice" run "$pipelines/sft.cfg" --out failed $small --set held-out.path=broken.jsonl --quiet >/dev/null 2>&1 && bad 'a broken line of data did no harm'
exits 0 'failed/report.html' failed
whole failed/report.html
says failed/report.html 'This run is not finished.'
says failed/report.html 'broken.jsonl:41'

# One that goes on: its folder is locked.
if command -v flock >/dev/null; then
    cp -r failed going
    flock going/.lock "$sluice" report going >out 2>&1 && ok || bad "$(cat out)"
    says going/report.html 'This run is going on.'
else
    echo 'skipped: a run that goes on (flock is not there)'
fi

# Damage: a line, the end of a stream, a missing file.
# shellcheck disable=SC2086
"$sluice" run "$pipelines/sft.cfg" --out damaged $small --set held-out.limit=32 --quiet >log 2>&1 || bad "run: $(cat log)"
sed '2s/.*/{"phase":"sft","iteration":1,"stage":"tune","step":2,"loss":/' damaged/metrics.jsonl >m && mv m damaged/metrics.jsonl
printf '{"phase":"sft","iter' >>damaged/metrics.jsonl
size=$(wc -c <damaged/streams/sft-1/marked.zst)
head -c $((size / 2)) damaged/streams/sft-1/marked.zst >s && mv s damaged/streams/sft-1/marked.zst
rm damaged/timing.jsonl
exits 0 'damaged/report.html' damaged
whole damaged/report.html
says damaged/report.html '2 lines of metrics.jsonl are damaged, the first is line 2'
says damaged/report.html 'There is no timing.jsonl'
says damaged/report.html 'marked.zst'
rm -r damaged/streams
echo 'nonsense = ' >damaged/pipeline.cfg
head -c 300 /dev/urandom >damaged/log.txt
exits 0 'damaged/report.html' damaged
whole damaged/report.html
says damaged/report.html 'The pipeline file cannot be understood here'

# No run at all.
mkdir empty
exits 1 "there is no folder 'nowhere'" nowhere
exits 1 "'empty' is no run's folder" empty
exits 2 'name the folder of a run'
exits 2 'did you mean --title' "$name" --titel x
exits 1 'cannot write' "$name" --out nowhere/x.html
[ -z "$(ls empty)" ] && ok || bad 'something was left in the folder that is no run'

# What choosing among N is worth, and the columns of times.
"$sluice" run "$pipelines/best-of-n.cfg" --out choice --set questions.count=16 --set answers.n=4 --set held-out.count=8 --quiet >log 2>&1 || bad "run: $(cat log)"
exits 0 'choice/report.html' choice
whole choice/report.html
says choice/report.html '<th scope="col">best of them (%)</th>'
says choice/report.html '<tr><th scope="row">by-likelihood</th><td>4</td>'
for title in writing 'tokens in' 'tokens out' 'packed from' memory; do says choice/report.html "<th scope=\"col\">$title</th>"; done

# Thousands of names, and steps that fall: in seconds.
mkdir many
cp damaged/environment.txt many/ 2>/dev/null
cp choice/pipeline.cfg many/
awk 'BEGIN {
    printf "{\"phase\":\"choose\",\"iteration\":1,\"stage\":\"eval\",\"model\":\"policy@1\""
    for (i = 0; i < 20000; i++) printf ",\"many/%d\":%d", i, i
    print "}"
    for (v = 0; v < 2; v++) { printf "{\"phase\":\"choose\",\"iteration\":%d,\"stage\":\"tune\",\"step\":%d", 1, v + 1
        for (i = 0; i < 20000; i++) printf ",\"more/%d\":%d", i, i + v
        print "}" }
    for (step = 60000; step > 0; step--) printf "{\"phase\":\"choose\",\"iteration\":1,\"stage\":\"tune\",\"step\":%d,\"loss\":%d}\n", step, step
    print "{\"phase\":\"choose\",\"iteration\":1,\"stage\":\"tune\",\"step\":30000,\"loss\":7}" }' >many/metrics.jsonl
timeout 60 "$sluice" report many >out 2>err
[ $? = 0 ] && ok || bad "a page of 40,000 numbers and 60,000 falling steps: $(cat err)"

# Several: seeds of one variant beside another.
for seed in 1 2; do
    for epsilon in 0.1 0.3; do
        "$sluice" run "$pipelines/dpo.cfg" --out "dpo-$seed-$epsilon" --set seed=$seed --set trust.epsilon=$epsilon \
            --set preferences.limit=64 --set held-out.limit=16 --quiet >log 2>&1 || bad "run: $(cat log)"
    done
done
exits 0 '^both.html' dpo-* --out both.html --title 'Two seeds'
whole both.html
says both.html '<h1>Two seeds</h1>'
says both.html '4 runs'
says both.html '2 variants'
says both.html 'trust.epsilon=0.3'
says both.html 'class="band'
[ -s dpo-1-0.1/report.html ] && ok || bad 'a run has no page of its own'
exits 0 'comparison.html' dpo-1-0.1 dpo-2-0.1
says comparison.html '1 variant<'

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
