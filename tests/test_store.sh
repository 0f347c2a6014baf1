#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# The store: what one run computed another takes; what differs is computed, and --explain says why. Damage, two runs at once, and
# folders that are not to be trusted.
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
unset SLUICE_STORE
XDG_CACHE_HOME=$work/cache
export XDG_CACHE_HOME
cat >small.cfg <<'CFG'
sluice = 1;
name = "small";
seed = 5;
models = { policy = { path = "MODEL"; dtype = "float32"; }; };
phases = ( { name = "once"; stages = (
  { name = "prompts"; use = "tasks";    split = "train"; count = 60; },
  { name = "answers"; use = "sampler";  from = "prompts"; model = "policy"; n = 4; temperature = 0.8; max_tokens = 8; },
  { name = "checked"; use = "verifier"; from = "answers"; },
  { name = "pairs";   use = "ranker";   from = "checked"; by = "checked"; pick = "best-worst"; },
  { name = "trust";   use = "label-smoothing"; from = "pairs"; epsilon = 0.1; },
  { name = "train";   use = "trainer";  from = "trust"; model = "policy"; loss = "dpo"; lr = 5e-5; batch = 16; epochs = 1; }
); } );
CFG
sed -i "s|MODEL|$SLUICE_SOURCE/models/embedded|" small.cfg
run() { "$sluice" run small.cfg --quiet "$@" >out 2>&1; }
reused() { grep -c '"reused":true' "$1/timing.jsonl"; }
same() { diff -rq -x .lock -x log.txt -x timing.jsonl -x environment.txt -x pipeline.cfg "$1" "$2"; }

check 'a run' run --out a --store s
[ "$(reused a)" = 0 ] && ok 'an empty store gives nothing' || bad "$(reused a) stages were reused from an empty store"
check 'a second run in a new folder' run --out b --store s
[ "$(reused b)" = 6 ] && ok 'all stages come from the store' || bad "$(reused b) of 6 stages came from the store"
same a b >difference && ok 'with the same bytes' || bad "other bytes: $(cat difference)"
[ -d cache/sluice/store ] && bad 'the default store was used beside the one named' || ok 'the store that was named, and no other'

"$sluice" run small.cfg --explain --out c --store s --set trust.epsilon=0.2 >out 2>&1
[ "$(grep -c 'reused, from the store' out)" = 4 ] && ok 'explain: what comes before the change is reused' || bad "explain: $(cat out)"
grep -q 'trust *runs: epsilon: 0.1 → 0.2$' out && ok 'explain: the parameter, old → new' || bad "explain: $(cat out)"
grep -q "train *runs: its input 'trust' changes" out && ok 'explain: the input' || bad "explain: $(cat out)"
[ -e c ] && bad 'explain made the folder' || ok 'explain changes nothing'
"$sluice" run small.cfg --explain --out c --store s --set seed=6 >out 2>&1
grep -q 'prompts *runs: seed: 5 → 6$' out && ok 'explain: the seed' || bad "explain: $(cat out)"
check 'the changed run' run --out c --store s --set trust.epsilon=0.2
[ "$(reused c)" = 4 ] && ok 'runs that stage and what follows, nothing before' || bad "$(reused c) of 4 were reused"

sed 's|^); } );|,{ name = "again"; use = "sampler"; from = "prompts"; after = "train"; model = "policy"; n = 1; max_tokens = 8; }); } );|' small.cfg >longer.cfg
"$sluice" run longer.cfg --quiet --out d --store s >out 2>&1
[ "$(reused d)" = 6 ] && ok 'a stage added at the end: nothing else runs' || bad "a stage added: $(reused d) of 6 reused; $(cat out)"
rm -rf a
check 'a run whose folder is removed takes nothing from others' run --out b --store s
check 'removed model versions' test -s b/models/policy@1/model.safetensors

check '--fresh' run --out b --store s --fresh
[ "$(tail -n 6 b/timing.jsonl | grep -c '"reused":true')" = 0 ] && ok '--fresh computes everything' || bad '--fresh reused something'
SLUICE_STORE=$work/s "$sluice" run small.cfg --quiet --out e >out 2>&1
[ "$(reused e)" = 6 ] && ok 'SLUICE_STORE names it as well' || bad "SLUICE_STORE: $(reused e) reused; $(cat out)"
sed "s|^seed|store = \"$work/s\"; seed|" small.cfg >named.cfg
"$sluice" run named.cfg --quiet --out f >out 2>&1
[ "$(reused f)" = 6 ] && ok 'the pipeline file names it as well' || bad "store = …: $(reused f) reused; $(cat out)"
check '--store off' run --out g --store off
[ "$(reused g)" = 0 ] && ok 'off is off' || bad 'a store that is off gave something'

# Damage. A file of the store is shared with runs, so it is replaced and not written over.
spoil() { # stage, what to do to its stream
    for entry in s/??/*; do
        [ "$(sed -n 's/^stage\t//p' "$entry/inputs")" = "$1" ] && [ -e "$entry/stream.zst" ] || continue
        cp "$entry/stream.zst" spoilt && chmod u+w spoilt && rm -f "$entry/stream.zst" && eval "$2" && mv spoilt "$entry/stream.zst"
    done 2>/dev/null
}
n=0
for how in 'printf X | dd of=spoilt bs=1 seek=200 conv=notrunc' 'truncate -s 100 spoilt' 'rm spoilt' 'echo more >>spoilt'; do
    n=$((n + 1))
    spoil answers "$how"
    "$sluice" run small.cfg --explain --out h$n --store s >out 2>&1
    grep -q 'answers *runs: its entry in the store is damaged' out && ok "explain: damage ($how)" || bad "explain: damage ($how): $(cat out)"
    check "a run over damage ($how)" run --out h$n --store s
    grep -q "'answers' (once): its entry in the store .* is damaged (stream.zst .*): removed, and computed again" out &&
        [ "$(reused h$n)" = 5 ] && same g h$n >difference && ok "is found, said and computed again ($how)" || bad "damage ($how): $(cat out difference)"
done
for file in inputs files; do
    entry=$(dirname "$(grep -l '^stage	pairs$' s/??/*/inputs | head -n 1)")
    echo more >>"$entry/$file"
    check "a run over a damaged list ($file)" run --out i-$file --store s
    grep -q 'damaged' out && same g i-$file >difference && ok "a damaged list ($file) is found" || bad "damaged $file: $(cat out)"
done

# Two at once: what they share is computed once.
rm -rf s
(run --out j --store s; echo $? >j.code) &
("$sluice" run small.cfg --quiet --out k --store s --set trust.epsilon=0.3 >out.k 2>&1; echo $? >k.code) &
wait
[ "$(cat j.code)$(cat k.code)" = 00 ] && ok 'two runs at once on one store' || bad "two at once: $(cat out out.k)"
[ $(($(reused j) + $(reused k))) = 4 ] && ok 'compute what they share once' || bad "two at once: $(reused j) and $(reused k) reused"
same g j >difference && ok 'with the same bytes' || bad "two at once: $(cat difference)"
# A killed run holds no claim, and leaves nothing half-written that counts.
rm -rf s
run --out l --store s &
sleep 0.3
kill -9 $! 2>/dev/null
wait $! 2>/dev/null
check 'a run after one that was killed' run --out m --store s
same g m >difference && ok 'goes on with what was whole' || bad "after a kill: $(cat difference)"

tool() { "$sluice" store "$@" --store s >out 2>&1; }
check 'store ls' tool ls
[ "$(grep -c once out)" = 6 ] && ok 'lists the entries' || bad "store ls: $(cat out)"
key=$(awk '/train/ { print $1 }' out)
check 'store du' tool du
grep -q '^entries  6$' out && ok 'counts them' || bad "store du: $(cat out)"
check 'store rm' tool rm "$key"
tool ls
grep -q train out && bad 'rm left the entry' || ok 'rm removes an entry'
tool rm 0000000000 && bad 'rm of a key that is not there' || { grep -q 'has no entry' out && ok 'a key that is not there is said'; }
check 'store gc --older-than' tool gc --older-than 1d
grep -q '^0 entries removed' out && ok 'keeps what was used lately' || bad "gc: $(cat out)"
check 'store gc --max-size 0' tool gc --max-size 0
same g m >difference && ok 'gc touches no run' || bad "gc: $(cat difference)"
tool du && grep -q '^alone *0 B' out && ok 'gc leaves nothing of its own' || bad "gc: $(cat out)"
tool gc --max-size many && bad 'a size that is none' || { grep -q "write a size: 500M" out && ok 'a size that is none is said'; }

# Stores that are not to be trusted, or are none.
mkdir open && chmod 777 open
run --out n --store open && bad 'a store that everybody can write' || ok 'a store that everybody can write is refused'
[ "$(wc -l <out)" = 1 ] && grep -q 'can be written by everybody' out && ok 'with one line' || bad "world-writable: $(cat out)"
mkdir other && echo mine >other/letter
run --out n --store other && bad 'a folder with other things' || { grep -q 'holds other things' out && ok 'a folder with other things is refused'; }
[ "$(ls other)" = letter ] && ok 'and left alone' || bad "it holds $(ls other)"
run --out n --store small.cfg && bad 'a file as store' || { grep -q 'is not a folder' out && ok 'a file is refused'; }
if [ "$(id -u)" = 0 ]; then
    mkdir foreign && chown 12345 foreign
    run --out n --store foreign && bad "another user's store" || { grep -q 'belongs to another user' out && ok "another user's store is refused"; }
else
    echo "skipped: another user's store (needs root)"
fi
check 'the default store' run --out o
[ -e cache/sluice/store/sluice-store ] && ok 'lies in the cache folder' || bad 'the default store is not where it should be'
echo "$passed passed, $failed failed"
[ $failed = 0 ]
