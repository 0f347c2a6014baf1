#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# Cards that do not serve as they should, on the emulated device: none, too old, hidden, too small, used by another process,
# and a stage in a process of its own beside one.
. "$SLUICE_SOURCE/tests/shell.sh"
emulated
small_model small
cat >few.cfg <<END
sluice = 1; name = "few"; seed = 5;
models = { policy = { path = "small"; init = "random"; }; };
phases = ( { name = "p"; stages = (
  { name = "questions"; use = "tasks"; count = 2; },
  { name = "answers"; use = "sampler"; from = "questions"; model = "policy"; n = 2; max_tokens = 3; } ); } );
END

# --- none that serves: an error in a line with cuda; with auto the processor, and a line in the log -----------------------
# unserved SETTINGS VISIBLE WORDS (VISIBLE: CUDA_VISIBLE_DEVICES, - for unset)
unserved() {
    EMULATED_CUDA=$1
    export EMULATED_CUDA
    [ "$2" = - ] || { CUDA_VISIBLE_DEVICES=$2; export CUDA_VISIBLE_DEVICES; }
    rm -rf none
    "$sluice" run few.cfg --quiet --out none --set runtime.device=cuda >out 2>&1
    code=$?
    [ $code = 1 ] && [ "$(wc -l <out)" = 1 ] && grep -qF "device = \"cuda\": $3" out && ok "$1 $2: an error in a line" || bad "$1 $2: exit code $code"
    rm -rf none
    "$sluice" run few.cfg --quiet --out none >out 2>&1 && [ ! -s out ] && [ "$(grep -cF "models are computed on the processor: $3" none/log.txt)" = 1 ] &&
        ok "$1 $2: auto takes the processor and says so" || bad "$1 $2: auto: $(cat none/log.txt)"
    unset EMULATED_CUDA CUDA_VISIBLE_DEVICES
}
unserved driver=0 - 'there is no NVIDIA driver; install one, until nvidia-smi shows the GPU'
unserved driver=12040 - 'the NVIDIA driver supports CUDA 12.4, and this backend was built with 13.0'
unserved devices=0 - 'the NVIDIA driver finds no GPU'
unserved capability=75 - 'GPU 0 (emulated device) has compute capability 7.5; 8.0 is needed'
unserved memory=1M - 'no memory for transfers: '
unserved devices=2 '' 'CUDA_VISIBLE_DEVICES is empty, which hides every GPU'
for wrong in 99 0,0 -1 GPU-8d1f4b2a MIG-8d1f4b2a x; do
    unserved devices=2 "$wrong" "CUDA_VISIBLE_DEVICES=$wrong names no GPU of this machine, or one twice"
done
EMULATED_CUDA=capability=75 "$sluice" env >out 2>&1
says 'no GPU: GPU 0 (emulated device) has compute capability 7.5' 'env says why'

# --- small cards: cuBLAS goes without its workspace ------------------------------------------------------------------------
# What is another answer on another card, and not looked at here: how many logits a gradient sums at once.
SLUICE_CUDA_LOGITS_BYTES=524288
export SLUICE_CUDA_LOGITS_BYTES
for memory in 4G 64M 16M; do
    EMULATED_CUDA=memory=$memory "$sluice" run few.cfg --quiet --out on-$memory --set runtime.device=cuda >out 2>&1 && ok "a card of $memory" || bad "a card of $memory"
done
grep -q 'workspace\|-bare' on-4G/log.txt && bad 'a card of 4G: there was room' || ok 'a card of 4G: nothing is said'
[ "$(grep -c "matrix products do without cuBLAS' workspace" on-16M/log.txt)" = 1 ] && ok 'a card of 16M: a line says so' || bad "a card of 16M: $(cat on-16M/log.txt)"
same on-64M on-16M && ok 'small cards answer the same' || bad "small cards: $(cat difference)"
EMULATED_CUDA=memory=16M "$sluice" run few.cfg --out on-4G --explain --set runtime.device=cuda >out 2>&1
grep -q 'answers .*reused' out && bad 'answers of a larger card are taken for those of a small one' || ok 'its answers have keys of their own'

# --- another process on the card ---------------------------------------------------------------------------------------------
# One that has sampled, and now waits for a command: its pool keeps memory.
cat >holds.cfg <<END
sluice = 1; name = "holds"; seed = 5;
models = { policy = { path = "small"; init = "random"; }; };
phases = ( { name = "p"; stages = (
  { name = "questions"; use = "tasks"; count = 2; },
  { name = "answers"; use = "sampler"; from = "questions"; model = "policy"; n = 2; max_tokens = 3; },
  { name = "waits"; use = "judge-command"; from = "answers"; command = ( "sh", "wait.sh" ); timeout = 600; } ); } );
END
cat >wait.sh <<'END'
touch waiting
tries=0
until [ -e go ] || [ $((tries += 1)) -gt 600 ]; do sleep 0.05; done
exec sed -u -e 's/.*"id": *"\([^"]*\)".*/{"id": "\1", "scores": [0.5, 0.25]}/'
END
# hold: begins it, until it waits.
hold() {
    rm -rf waiting go held
    EMULATED_CUDA=memory=64M "$sluice" run holds.cfg --quiet --out held --set runtime.device=cuda >held.out 2>&1 &
    holder=$!
    tries=0
    until [ -e waiting ] || [ $((tries += 1)) -gt 600 ]; do sleep 0.05; done
}
touch go
EMULATED_CUDA=memory=64M "$sluice" run holds.cfg --quiet --out alone --set runtime.device=cuda >out 2>&1 && ok 'alone' || bad 'alone'
EMULATED_CUDA_SHARED=$work/cards
export EMULATED_CUDA_SHARED
hold
EMULATED_CUDA=memory=64M "$sluice" run few.cfg --quiet --out beside --set runtime.device=cuda >out 2>&1 && same on-64M beside && ok 'a second process, the same answers' || bad 'a second process'
EMULATED_CUDA=memory=64M,exclusive=1 "$sluice" run few.cfg --quiet --out none --set runtime.device=cuda >out 2>&1 && bad 'an exclusive card'
says 'GPU 0 is taken by another process (exclusive compute mode); wait for it, or let several use it: nvidia-smi -i 0000:01:00.0 -c DEFAULT' 'an exclusive card is told of'
SLUICE_CUDA_MEMORY=100% EMULATED_CUDA=memory=10M "$sluice" run few.cfg --quiet --out none --set runtime.device=cuda >out 2>&1 && bad 'a card that another has filled'
grep -q 'no memory for transfers: .* asked for, .* in use by this run, .* of 10.0 MiB free on GPU 0.*; nvidia-smi shows who uses it' out && ok 'a card that another has filled: the numbers' || bad 'a card that another has filled'
touch go
wait $holder && same alone held && ok 'the first ends as it does alone' || bad "the first: $(cat held.out difference)"
hold
kill -9 $holder
wait $holder 2>/dev/null
EMULATED_CUDA=memory=64M,exclusive=1 "$sluice" run few.cfg --quiet --out after --set runtime.device=cuda >out 2>&1 && ok 'what a killed process held is free' || bad 'what a killed process held is free'
touch go
EMULATED_CUDA=memory=64M "$sluice" run holds.cfg --quiet --out held --set runtime.device=cuda >out 2>&1 && same alone held && ok 'and it goes on to the same end' || bad "killed: $(cat difference)"
unset EMULATED_CUDA_SHARED

# --- a stage in a process of its own beside the card: it never touches the GPU ----------------------------------------------
cat >beside.cfg <<END
sluice = 1; name = "beside"; seed = 5;
runtime = { device = "cuda"; };
models = { policy = { path = "small"; init = "random"; }; };
phases = ( { name = "p"; stages = (
  { name = "pairs"; use = "tasks"; count = 4; form = "preference"; },
  { name = "length"; use = "judge-command"; from = "pairs"; command = ( "sed", "-u", "-f" ); script = "score.sed"; },
  { name = "train"; use = "trainer"; from = "length"; model = "policy"; loss = "dpo"; lr = 1e-3; batch = 2; } ); } );
END
cat >score.sed <<'END'
s/.*"id": *"\([^"]*\)".*/{"id": "\1", "scores": [0.75, 0.5]}/
END
for isolate in false true; do
    rm -f counts
    EMULATED_CUDA_COUNTS=$work/counts "$sluice" run beside.cfg --quiet --out isolate-$isolate --set length.isolate=$isolate >out 2>&1 && ok "isolate = $isolate" || bad "isolate = $isolate"
    [ "$(wc -l <counts)" = 1 ] && [ "$(count contexts)" = 1 ] && ok 'one process used the GPU' || bad "processes: $(cat counts)"
done
same isolate-false isolate-true && ok 'the same model' || bad "another model: $(cat difference)"
summary
