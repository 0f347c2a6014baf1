#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# runtime.devices: trained on two and three devices beside one; what is asked for that is not there; devices that break
# in the middle, and that compute differently. In place of GPUs stand those of tests/plugins/far_backend.c, joined by
# the host.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { failed=$((failed + 1)); echo "not ok: $*"; }
cd "$work" || exit 1
cp "$SLUICE_BUILD/sluice" .
mkdir with
ln -s "$SLUICE_BUILD"/plugins/*.so with/
rm -f with/cuda.so
ln -s "$SLUICE_BUILD/tests/plugins/far_backend.so" with/
SLUICE_PLUGIN_PATH=$work/with FAR_DEVICES=3 SLUICE_STORE=off
export SLUICE_PLUGIN_PATH FAR_DEVICES SLUICE_STORE
unset CUDA_VISIBLE_DEVICES
# A language model by DPO with dropout and clipping, a reward model, a head alone, a loss per token.
cat >train.cfg <<END
sluice = 1; name = "train"; seed = 5;
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "float32"; }; judge = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "float32"; };
           probe = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "float32"; }; };
phases = ( { name = "p"; stages = (
  { name = "pairs"; use = "tasks"; count = 48; form = "preference"; },
  { name = "train"; use = "trainer"; from = "pairs"; model = "policy"; loss = "dpo"; batch = 8; lr = 1e-4; dropout = 0.1; max_grad_norm = 0.5; },
  { name = "reward"; use = "trainer"; from = "pairs"; model = "judge"; loss = "bradley-terry"; batch = 8; lr = 1e-4; head = 2; },
  { name = "head"; use = "trainer"; from = "pairs"; model = "probe"; loss = "bradley-terry"; batch = 8; lr = 1e-3; head = 1; freeze = "body"; }
); } );
END
# says TEXT: what the last command wrote has it.
says() { grep -qF -- "$1" out && ok "$2" || bad "$2: $(cat out)"; }

for n in 1 2 3; do
    ./sluice run train.cfg --quiet --out d$n --set runtime.devices=$n >out 2>&1 && ok "$n devices" || bad "$n devices: $(cat out)"
done
grep -qF 'trained on 3 of them (host)' d3/log.txt && ok 'the log says so' || bad "log: $(cat d3/log.txt)"
./sluice run train.cfg --quiet --out all --set runtime.devices=0 >out 2>&1 && ok 'all there are' || bad "all: $(cat out)"
for slot in policy judge probe; do
    cmp -s d3/models/$slot@1/model.safetensors all/models/$slot@1/model.safetensors && ok "$slot: the same configuration, the same bits" || bad "$slot: other bits"
done
./sluice run train.cfg --quiet --out micro --set runtime.devices=2 --set train.micro_tokens=64 >out 2>&1 || bad "micro: $(cat out)"
# near FILE FILE: every number of the two metrics files agrees to 1e-4, relatively or against 1.
near() {
    tr ',{}:' '\n' <"$1" >a && tr ',{}:' '\n' <"$2" >b && paste a b | awk '
        $1 != $2 && (($1 "" !~ /^-?[0-9.e+-]+$/) || ($2 "" !~ /^-?[0-9.e+-]+$/)) { print "not a number: " $0; exit 1 }
        { d = $1 - $2; s = $1 < 0 ? -$1 : $1; if (s < 1) s = 1; if (d > 1e-4 * s || d < -1e-4 * s) { print; exit 1 } }'
}
near d2/metrics.jsonl micro/metrics.jsonl >out && ok 'micro-batches are memory, not another answer' || bad "micro-batches: $(cat out)"
for n in 2 3; do
    near d1/metrics.jsonl d$n/metrics.jsonl >out && ok "$n devices: the numbers of one" || bad "$n devices: $(cat out)"
    cmp -s d1/models/policy@1/model.safetensors d$n/models/policy@1/model.safetensors && bad "$n devices: the bits of one, so nothing was dealt" || ok "$n devices: sums in another order"
done
# Another number of devices is another class of numbers.
cp -r d1 other
./sluice run train.cfg --out other --set runtime.devices=2 --explain >out 2>&1
grep -E '^ *train .*reused' out && bad "reused: $(cat out)" || ok 'what one device trained is not taken for what two train'

# --- what is not there ---
./sluice run train.cfg --quiet --out none --set runtime.devices=4 >out 2>&1 && bad '4 of 3'
says 'devices = 4, and there are 3 GPUs; ask for fewer, or 0' 'more than there are: a line'
[ "$(wc -l <out)" -eq 1 ] || bad "lines: $(cat out)"
CUDA_VISIBLE_DEVICES=1 FAR_DEVICES=1 ./sluice run train.cfg --quiet --out none --set runtime.devices=2 >out 2>&1 && bad '2 of 1'
says 'there is 1 GPU that CUDA_VISIBLE_DEVICES=1 shows' 'with what hides the others'
./sluice run train.cfg --quiet --out none --set runtime.device=cpu --set runtime.devices=2 >out 2>&1 && bad 'two processors'
says 'the processor is one device' 'the processor is one device'
FAR_BACKEND=refuse ./sluice run train.cfg --quiet --out none --set runtime.devices=2 >out 2>&1 && bad 'no GPU at all'
says 'devices = 2: no driver, says a test' 'no GPU at all'
FAR_JOIN=refuse ./sluice run train.cfg --quiet --out none --set runtime.devices=2 >out 2>&1 && bad 'not joined'
says 'devices = 2: they cannot be joined, says a test' 'what cannot be joined says why'
./sluice check train.cfg --set runtime.devices=65 >out 2>&1 && bad '65' || ok 'a number without sense is a mistake in the file'

# --- what breaks ---
FAR_JOIN=wrong ./sluice run train.cfg --quiet --out wrong --set runtime.devices=2 >out 2>&1 && bad 'replicas that differ were saved'
says 'the model on device 2 of 2 is not the one on the first' 'replicas that differ are told of'
[ ! -e wrong/models/policy@1 ] && ok 'and nothing is saved' || bad 'and something is saved'
for calls in 300 1200; do
    for which in 0 1; do
        rm -rf broken
        FAR_BACKEND=$calls FAR_BREAKS=$which ./sluice run train.cfg --quiet --out broken --set runtime.devices=2 >out 2>&1 &&
            bad "device $which, call $calls did not break" || ok "device $which broken at call $calls"
        grep -q "stage '" out && ok 'the stage is named' || bad "no stage: $(cat out)"
        grep -q 'stopped working\|sum of gradients' out && ok 'and what happened' || bad "what happened: $(cat out)"
        ./sluice run train.cfg --quiet --out broken --set runtime.devices=2 >out 2>&1 && ok 'the run goes on' || bad "resuming: $(cat out)"
        cmp -s d2/models/policy@1/model.safetensors broken/models/policy@1/model.safetensors && ok 'to the same weights' || bad 'other weights'
    done
done
# In the middle of a training that keeps its best epoch, with bfloat16 moments: from its last checkpoint to the same end.
cat >best.cfg <<END
sluice = 1; name = "best"; seed = 5; runtime = { devices = 2; };
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "bf16"; }; };
phases = ( { name = "p"; stages = (
  { name = "pairs"; use = "tasks"; count = 48; form = "preference"; },
  { name = "train"; use = "trainer"; from = "pairs"; model = "policy"; loss = "dpo"; batch = 8; lr = 1e-4; epochs = 2; dropout = 0.1;
    validation = 0.25; keep = "best"; moments = "bf16"; checkpoint_every = 0.0; }
); } );
END
./sluice run best.cfg --quiet --out best >out 2>&1 && ok 'the best epoch' || bad "best: $(cat out)"
FAR_BACKEND=1500 FAR_BREAKS=1 ./sluice run best.cfg --quiet --out half >out 2>&1 && bad 'the second device did not break' || ok 'the second device breaks in the middle'
./sluice run best.cfg --quiet --out half >out 2>&1 && grep -q 'goes on after step' half/log.txt && ok 'the training goes on after a step' || bad "half: $(cat out half/log.txt)"
cmp -s best/models/policy@1/model.safetensors half/models/policy@1/model.safetensors && cmp -s best/metrics.jsonl half/metrics.jsonl && ok 'to the same weights and numbers' || bad 'other weights or numbers'
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
