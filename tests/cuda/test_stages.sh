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
SLUICE_CUDA_MEMORY=5M "$sluice" average --method slerp --base "$SLUICE_SOURCE/models/embedded" --out none cuda/models/left@1 cuda/models/right@1 >log 2>err && bad "memory was enough"
grep -q 'no memory to merge models (4.0 MiB asked for' err && [ ! -e none ] && ok "too little memory: the numbers, and no folder" || bad "too little memory"
# Too little memory for as many candidates as usual: the sampler takes fewer at once, says so once, and answers the same.
cat >sample.cfg <<END
sluice = 1;
name   = "sample";
seed   = 3;
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; }; };
phases = ( { name = "p"; stages = (
  { name = "questions"; use = "tasks"; count = 4; },
  { name = "answers"; use = "sampler"; from = "questions"; model = "policy"; n = 8; max_tokens = 8; } ); } );
END
# (With our own products: cuBLAS without its workspace may compute otherwise than with it.)
SLUICE_CUDA_PRODUCTS=own "$sluice" run sample.cfg --out ample --set runtime.device=cuda --quiet >log 2>err || bad "sampling"
grep -q 'memory ran out' ample/log.txt && bad "memory was enough" || ok "enough memory: nothing is said"
for limit in 16M 12M; do
    SLUICE_CUDA_PRODUCTS=own SLUICE_CUDA_MEMORY=$limit "$sluice" run sample.cfg --out little-$limit --set runtime.device=cuda --quiet >log 2>err || bad "sampling in $limit"
    line=$(grep "stage 'answers': memory ran out: " little-$limit/log.txt)
    echo "$line" | grep -q 'memory ran out: at most [0-9]* candidates were decoded at once instead of 256, .*asked for.*SLUICE_CUDA_MEMORY allows' &&
        [ "$(echo "$line" | wc -l)" = 1 ] && ok "a shrunken sampler says so, with the numbers ($limit)" || bad "a shrunken sampler says so ($limit): $(cat little-$limit/log.txt)"
    "$sluice" cat ample/streams/p-1/answers.zst >a && "$sluice" cat little-$limit/streams/p-1/answers.zst >b && cmp -s a b &&
        ok "and answers the same" || bad "and answers something else"
done

# Decoding steps of which CUDA makes no graph: the same answers, and one line. (Hot, so that answers are long.)
sed 's/max_tokens = 8/max_tokens = 24; temperature = 4.0/' sample.cfg >hot.cfg
for run in graphs:seed=0 calls:refuse_graph=900; do
    EMULATED_CUDA=${run#*:} EMULATED_CUDA_COUNTS=$work/counts "$sluice" run hot.cfg --out "${run%:*}" --set runtime.device=cuda --quiet >log 2>err || bad "sampling with $run"
    case ${run%:*}:$(count graphs) in graphs:0 | calls:[1-9]*) bad "$run: $(cat counts)" ;; esac
done
cmp -s graphs/streams/p-1/answers.zst calls/streams/p-1/answers.zst && ok "no graphs: the same answers" || bad "no graphs: other answers"
[ "$(grep -c 'decoding steps are launched call by call, .*CUDA makes no graph of them' calls/log.txt)" = 1 ] && ok "and the log says so once" || bad "no graphs: $(cat calls/log.txt)"
grep -q 'call by call' graphs/log.txt && bad "graphs were made" || ok "which it does not where there are graphs"

# Heads that the device does not compute are refused when the model is opened.
mkdir wide && cp "$SLUICE_SOURCE"/models/embedded-start/* wide/
sed -i 's/"head_dim": 32/"head_dim": 264/' wide/config.json
sed 's|path = "[^"]*"|path = "wide"; init = "random"|' sample.cfg >wide.cfg
"$sluice" run wide.cfg --out wide-run --set runtime.device=cuda --quiet >log 2>err && bad "heads of 264 numbers"
grep -q "stage 'answers'.*attention heads have 264 numbers.*runtime.device=cpu" err && [ "$(wc -l <err)" = 1 ] && ok "wide heads are refused in a line" || bad "wide heads"
"$sluice" run wide.cfg --out wide-run --set runtime.device=cpu --quiet >log 2>err && ok "and run on the processor" || bad "and run on the processor"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
