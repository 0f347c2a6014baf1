#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# SLUICE_CUDA_TIMELINE: what the device did is written into a file, and nothing else is another for it.
. "$SLUICE_SOURCE/tests/shell.sh"
emulated
small_model small
cat >run.cfg <<END
sluice = 1; name = "run"; seed = 5;
models = { policy = { path = "small"; init = "random"; }; };
phases = ( { name = "p"; stages = (
  { name = "questions"; use = "tasks"; count = 6; },
  { name = "answers"; use = "sampler"; from = "questions"; model = "policy"; n = 4; max_tokens = 24; temperature = 4.0; },
  { name = "pairs"; use = "tasks"; form = "preference"; count = 80; },
  { name = "train"; use = "trainer"; from = "pairs"; after = "answers"; model = "policy"; loss = "dpo"; lr = 1e-4; batch = 4; checkpoint_every = 0; } ); } );
END
run() { # OUT SETTING...
    into=$1
    shift
    EMULATED_CUDA_COUNTS=$work/counts "$sluice" run run.cfg --quiet --out "$into" --set runtime.device=cuda "$@" >log 2>err
}
# number FIELD TEXT: the n-th field after a line's first 48 characters.
number() { sed -n "s/^$2 .*/&/p" timeline | cut -c49- | awk -v n="$1" '{ print $n; exit }'; }

run plain && launches=$(count launches) && ok "without a timeline" || bad "without a timeline"
SLUICE_CUDA_TIMELINE=timeline run timed && ok "with one" || bad "with one"
[ "$(count events)" = 0 ] && ok "its events went" || bad "events are left: $(cat counts)"
same plain timed && ok "the same streams, numbers and model" || bad "something else came out: $(head -n 5 difference)"
[ -s timeline ] && [ ! -e timeline.part ] && ok "a file, under its own name alone" || bad "files: $(ls)"
calls=$(number 1 'at work')
[ "${calls:-0}" -gt 1024 ] && [ "$calls" -ge "$((launches / 2))" ] && ok "more calls than events are kept for: $calls" || bad "$calls calls, $launches launches"
for name in 'a decoding step' reading plain_tiles adamw; do
    grep -q "^$name.* [1-9][0-9]* " timeline && ok "$name is there" || bad "$name is not there: $(cat timeline)"
done
awk 'NR > 2 && /^at work|^idle/ { share += substr($0, 49) * 0 + $(NF - (/^at/ ? 1 : 1)) } END { exit !(share > 99.9 && share < 100.1) }' timeline &&
    ok "work and idleness are the whole" || bad "shares: $(head -n 6 timeline)"
[ "$(sed '1,/^$/d; /^$/,$d' timeline | cut -c49- | awk '{ s += $1 } END { print s }')" = "$calls" ] && ok "every call has its row" || bad "rows: $(cat timeline)"
[ "$(number 1 'idle: after a result')" -ge 1 ] && ok "results that the host read are told apart" || bad "$(head -n 6 timeline)"

# A device that stops: what was seen until then.
EMULATED_CUDA=fail_launch=$((launches / 2)) SLUICE_CUDA_TIMELINE=broken SLUICE_CUDA_WAIT=1 run stopped && bad "a device that stops ends the run"
grep -q 'as far as events could be read' broken && [ "$(wc -l <err)" = 1 ] && ok "a device that stops leaves what was read" || bad "a device that stops: $(head -n 3 broken)"

# Each GPU has a file.
EMULATED_CUDA=devices=2 SLUICE_CUDA_TIMELINE=both run two --set runtime.devices=2 && grep -q '^GPU 0' both && grep -q '^GPU 1' both.1 && ok "two GPUs, two files" || bad "two GPUs: $(ls)"

SLUICE_CUDA_TIMELINE=none/such run refused && bad "a folder that is not there"
grep -q 'SLUICE_CUDA_TIMELINE=none/such cannot be written; name a file' err && [ "$(wc -l <err)" = 1 ] && ok "a folder that is not there is refused in a line" || bad "a folder that is not there"
summary
