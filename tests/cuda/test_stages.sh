#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# Stages that ask the device for more than models do, on the emulated one: two trainings with bfloat16 moments, merged by SLERP.
# Beside the processor's numbers, twice, and with a device that fails in the middle of a training.
set -u
[ -f "$SLUICE_BUILD/tests/cuda/plugins/cuda.so" ] || { echo "skipped: there is no emulated device (no C++ compiler)"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { failed=$((failed + 1)); echo "not ok: $*"; tail -n 15 log err 2>/dev/null; }
unset EMULATED_CUDA SLUICE_CUDA_WAIT SLUICE_CUDA_MEMORY
SLUICE_STORE=off
SLUICE_PLUGIN_PATH=$SLUICE_BUILD/tests/cuda/plugins
export SLUICE_STORE SLUICE_PLUGIN_PATH
sluice=$SLUICE_BUILD/sluice
cd "$work" || exit 1
cat >warp.cfg <<END
sluice = 1;
name   = "warp";
seed   = 3;
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; }; left = { path = "$SLUICE_SOURCE/models/embedded"; }; right = { path = "$SLUICE_SOURCE/models/embedded"; }; };
phases = ( { name = "warp"; stages = (
  { name = "pairs"; use = "tasks"; form = "preference"; count = 16; },
  { name = "train-left";  use = "trainer"; from = "pairs"; model = "left";  start = "policy"; loss = "dpo"; lr = 4e-4; batch = 4; moments = "bf16"; checkpoint_every = 0; },
  { name = "train-right"; use = "trainer"; from = "pairs"; model = "right"; start = "policy"; loss = "dpo"; lr = 4e-4; batch = 4; moments = "bf16"; checkpoint_every = 0; },
  { name = "merge"; use = "averager"; after = ( "train-left", "train-right" ); model = "policy"; models = ( "left", "right" ); method = "slerp"; eta = 0.3; },
  { name = "again"; use = "tasks"; form = "preference"; count = 16; },
  { name = "own"; use = "judge-implicit"; from = "again"; after = "merge"; model = "policy"; reference = "policy@0"; },
  { name = "eval"; use = "evaluator"; from = "own"; judge = "own"; } ); } );
END
# numbers RUN: what a run measured, a line each.
numbers() { sed -n 's/.*"stage":"\([^"]*\)".*"\(train_loss\|weights_changed\|pair_margin\|pair_accuracy\)":\([-0-9.e]*\).*/\1 \2 \3/p' "$1/metrics.jsonl"; }
"$sluice" run warp.cfg --out cpu --set runtime.device=cpu --quiet >log 2>err && ok "on the processor" || bad "on the processor"
EMULATED_CUDA_COUNTS=$work/counts "$sluice" run warp.cfg --out cuda --set runtime.device=cuda --quiet >log 2>err && ok "on the device" || bad "on the device"
count() { sed -n "\$s/.*\\b$1 \\([0-9]*\\).*/\\1/p" counts; }
if [ "$(count contexts)" = 1 ] && [ "$(count allocations)$(count pinned)$(count streams)$(count events)" = 0000 ]; then ok "one context, nothing left behind"; else bad "left behind: $(cat counts)"; fi
numbers cpu >a && numbers cuda >b
if [ "$(wc -l <a)" -ge 3 ] && paste -d' ' a b | awk '{ d = $3 - $6; if ($1 != $4 || (d < 0 ? -d : d) > 1e-4 * ($3 < 0 ? -$3 : $3)) exit 1 }'; then
    ok "the same numbers, to 1e-4"
else
    bad "other numbers than the processor's: $(paste a b)"
fi
for model in left@1 right@1 policy@1; do
    [ -s "cuda/models/$model/model.safetensors" ] || bad "$model is not there"
done
cmp -s cpu/models/policy@1/model.safetensors cuda/models/policy@1/model.safetensors && bad "the device did not compute" || ok "computed on the device"

"$sluice" run warp.cfg --out twice --set runtime.device=cuda --quiet >log 2>err && ok "a second time" || bad "a second time"
cmp -s cuda/models/policy@1/model.safetensors twice/models/policy@1/model.safetensors && ok "to the bit" || bad "another model the second time"

# The device fails in the middle of a training: the run goes on from the checkpoint, to the bit.
launches=$(count launches)
EMULATED_CUDA=fail_launch=$((launches / 2)) SLUICE_CUDA_WAIT=1 "$sluice" run warp.cfg --out broken --set runtime.device=cuda --quiet >log 2>err && bad "a device that fails ends the run"
grep -q "stage 'train-.*illegal memory access" err && ok "a device that fails in a training is told of" || bad "a device that fails in a training is told of"
"$sluice" run warp.cfg --out broken --set runtime.device=cuda --quiet >log 2>err && ok "the run goes on" || bad "the run goes on"
cmp -s cuda/models/policy@1/model.safetensors broken/models/policy@1/model.safetensors && ok "to the same model" || bad "to another model"

# The command, on the folders of that run.
"$sluice" average --method slerp --base "$SLUICE_SOURCE/models/embedded" --eta 0.3 --out by-hand cuda/models/left@1 cuda/models/right@1 >log 2>err &&
    cmp -s by-hand/model.safetensors cuda/models/policy@1/model.safetensors && ok "sluice average makes the same model" || bad "sluice average makes another model"
SLUICE_CUDA_MEMORY=2M "$sluice" average --method slerp --base "$SLUICE_SOURCE/models/embedded" --out none cuda/models/left@1 cuda/models/right@1 >log 2>err && bad "memory was enough"
grep -q 'no memory to merge models (4.0 MiB asked for' err && [ ! -e none ] && ok "too little memory: the numbers, and no folder" || bad "too little memory"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
