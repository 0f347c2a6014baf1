#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# Whole runs on several emulated GPUs joined by the emulated NCCL: the numbers of one, the same bits again, nothing left
# behind; and each thing that can go wrong, which ends for all GPUs with a line, and from which the run goes on.
set -u
[ -f "$SLUICE_BUILD/tests/cuda/plugins/cuda.so" ] || { echo "skipped: there is no emulated device (no C++ compiler)"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { failed=$((failed + 1)); echo "not ok: $*"; }
unset NCCL_P2P_DIRECT_DISABLE SLUICE_CUDA_WAIT SLUICE_CUDA_MEMORY CUDA_VISIBLE_DEVICES
cd "$work" || exit 1
cp "$SLUICE_BUILD/sluice" .
mkdir with
ln -s "$SLUICE_BUILD"/plugins/*.so with/
rm -f with/cuda.so
ln -s "$SLUICE_BUILD/tests/cuda/plugins/cuda.so" with/
SLUICE_PLUGIN_PATH=$work/with SLUICE_STORE=off
export SLUICE_PLUGIN_PATH SLUICE_STORE
cat >train.cfg <<END
sluice = 1; name = "train"; seed = 5;
runtime = { device = "cuda"; devices = 2; };
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "float32"; }; };
phases = ( { name = "p"; stages = (
  { name = "pairs"; use = "tasks"; count = 8; form = "preference"; },
  { name = "train"; use = "trainer"; from = "pairs"; model = "policy"; loss = "dpo"; batch = 4; lr = 1e-4; dropout = 0.1; max_grad_norm = 0.5; }
); } );
END
# on CARDS [key=value,…] -- sluice run of train.cfg
on() { EMULATED_CUDA=devices=$1; export EMULATED_CUDA; shift; ./sluice run train.cfg --quiet "$@" >out 2>&1; }
says() { grep -qF -- "$1" out && ok "$2" || bad "$2: $(cat out)"; }
count() { sed -n "\$s/.*\\b$1 \\([0-9]*\\).*/\\1/p" counts; }
# near FILE FILE: every number of the two metrics files agrees to 1e-4, relatively or against 1.
near() {
    tr ',{}:' '\n' <"$1" >a && tr ',{}:' '\n' <"$2" >b && paste a b | awk '
        $1 != $2 && (($1 "" !~ /^-?[0-9.e+-]+$/) || ($2 "" !~ /^-?[0-9.e+-]+$/)) { print "not a number: " $0; exit 1 }
        { d = $1 - $2; s = $1 < 0 ? -$1 : $1; if (s < 1) s = 1; if (d > 1e-4 * s || d < -1e-4 * s) { print; exit 1 } }'
}
weights=models/policy@1/model.safetensors

for n in 1 2 3; do
    EMULATED_CUDA_COUNTS=$work/counts on 3 --out d$n --set runtime.devices=$n && ok "$n GPUs" || bad "$n GPUs: $(cat out)"
    [ "$(count contexts)" = $n ] && ok "$n contexts" || bad "contexts: $(cat counts)"
    [ "$(count allocations)$(count pinned)$(count streams)$(count events)$(count communicators)" = 00000 ] && ok 'nothing is left behind' ||
        bad "left behind: $(cat counts)"
    [ $n = 1 ] || [ "$(count sums)" = 2 ] && ok 'one sum a step' || bad "sums: $(cat counts)"
done
for n in 2 3; do
    near d1/metrics.jsonl d$n/metrics.jsonl >out && ok "$n GPUs: the numbers of one" || bad "$n GPUs: $(cat out)"
    cmp -s d1/$weights d$n/$weights && bad "$n GPUs: the bits of one, so nothing was dealt" || ok "$n GPUs: sums in another order"
done
grep -qF '(nccl2.28.9)' d2/log.txt && ok 'the log names NCCL' || bad "log: $(cat d2/log.txt)"
on 2,seed=3 --out again && cmp -s d2/$weights again/$weights && ok 'in another order of work the same bits' || bad "other bits: $(cat out)"
CUDA_VISIBLE_DEVICES=2,1 on 3 --out visible --set runtime.devices=0 && cmp -s d2/$weights visible/$weights && ok 'all that CUDA_VISIBLE_DEVICES shows' ||
    bad "visible: $(cat out)"
on 2,closed=1 --out closed && cmp -s d2/$weights closed/$weights && ok 'memory that cannot be opened: the same bits by way of buffers' || bad "closed: $(cat out)"
[ "$(grep -c "sums over GPUs go through buffers of NCCL, .*: GPU 1's memory cannot be opened to GPU 0" closed/log.txt)" = 1 ] && ok 'and the log says so' || bad "log: $(cat closed/log.txt)"
grep -q 'buffers of NCCL' d2/log.txt && bad 'memory was open' || ok 'which it does not elsewhere'
EMULATED_CUDA=devices=2 ./sluice env >out 2>&1
says '2 such; for training on several: NCCL 2.28.9' 'env says what is there'

# --- what cannot begin ---
on 2,nccl=0 --out none && bad 'without NCCL'
says 'devices = 2: several GPUs train together by NCCL, and there is no NCCL: libnccl.so.2 cannot be opened' 'without NCCL'
on 2,nccl=21403 --out none && bad 'an old NCCL'
says 'there is NCCL 2.14.3, too old: 2.18 is needed' 'an old NCCL'
on 2,other=1 --out none && bad 'two kinds'
says 'GPU 1 is of another kind' 'GPUs of two kinds'
on 1 --out none && bad 'two of one'
says 'devices = 2, and there is 1 GPU' 'more than there are'
[ "$(wc -l <out)" -eq 1 ] && ok 'in one line' || bad "lines: $(cat out)"

# --- what goes wrong in the middle: a line with the stage, an end for all, and the run goes on ---
# fault NAME SETTINGS WORDS
fault() {
    rm -rf broken
    on "2,$2" --out broken && bad "$1 ends the run" || ok "$1 ends the run"
    says "$3" "$1 is told of"
    says "stage 'train'" "$1: with the stage"
    [ "$(wc -l <out)" -eq 1 ] && ok "$1: in one line" || bad "$1: lines: $(cat out)"
    on 2 --out broken && cmp -s d2/$weights broken/$weights && ok "$1: the run goes on to the same weights" || bad "$1: resuming: $(cat out)"
}
for at in 0,40 1,200; do
    fault "GPU ${at%,*} failing at launch ${at#*,}" "fail_device=${at%,*},fail_launch=${at#*,}" "GPU ${at%,*} (emulated device) failed"
done
fault 'a lost link' fail_nccl=3 'NCCL failed in a sum over GPUs: unhandled system error'
fault 'no memory on one GPU' fail_device=1,fail_allocation=12,refusals=0 'out of memory'
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
