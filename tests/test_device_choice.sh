#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# runtime.device: which device computes, what is said where there is none, and a run whose device breaks. In place of a
# GPU stands tests/plugins/far_backend.c.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { failed=$((failed + 1)); echo "not ok: $*"; }
cd "$work" || exit 1
# The program away from its plugins, and two folders of them: all but CUDA's, and with the test's in its place.
cp "$SLUICE_BUILD/sluice" .
for folder in without with; do
    mkdir $folder
    ln -s "$SLUICE_BUILD"/plugins/*.so $folder/
    rm -f $folder/cuda.so
done
ln -s "$SLUICE_BUILD/tests/plugins/far_backend.so" with/
cat >small.cfg <<END
sluice = 1; name = "small"; seed = 5;
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; dtype = "float32"; }; };
phases = ( { name = "p"; stages = (
  { name = "prompts"; use = "tasks";          split = "train"; count = 48; },
  { name = "answers"; use = "sampler";        from = "prompts"; model = "policy"; n = 4; max_tokens = 8; },
  { name = "checked"; use = "verifier";       from = "answers"; },
  { name = "own";     use = "judge-implicit"; from = "checked"; model = "policy"; reference = "policy@0"; },
  { name = "pairs";   use = "ranker";         from = "own"; by = "checked"; pick = "best-worst"; truth = "checked"; },
  { name = "train";   use = "trainer";        from = "pairs"; model = "policy"; loss = "dpo"; batch = 8; lr = 1e-4; dropout = 0.1; },
  { name = "again";   use = "sampler";        from = "prompts"; after = "train"; model = "policy"; n = 2; max_tokens = 8; }
); } );
END
# sluice with the backend, and without.
with() { SLUICE_PLUGIN_PATH="$work/with" ./sluice "$@"; }
without() { SLUICE_PLUGIN_PATH="$work/without" ./sluice "$@"; }
# says TEXT: what the last command wrote has it.
says() { grep -qF -- "$1" out && ok "$2" || bad "$2: $(cat out)"; }

without run small.cfg --quiet --out cpu --set runtime.device=cpu >out 2>&1 && ok 'the processor' || bad "cpu: $(cat out)"
with run small.cfg --quiet --out far >out 2>&1 && ok 'a device that is there is used' || bad "far: $(cat out)"
grep -qF 'computed on the GPU of a test' far/log.txt && ok 'which the log says' || bad "log: $(cat far/log.txt)"
grep -q '(far-cpu' far/log.txt && ok 'with its numerics' || bad "log: $(cat far/log.txt)"
cmp cpu/models/policy@1/model.safetensors far/models/policy@1/model.safetensors && ok 'the same weights' || bad 'other weights'
for stage in answers own pairs again; do
    # what a stage made, without what its header says of the run
    for run in cpu far; do
        without cat "$run/streams/p-1/$stage.zst" >"$run.$stage" 2>&1 || bad "cat: $(cat "$run.$stage")"
    done
    cmp -s "cpu.$stage" "far.$stage" && ok "the same records of '$stage'" || bad "other records of '$stage'"
done

# What another device made is not taken for one's own.
cp -r far other
without run small.cfg --out other --explain >out 2>&1
says 'run' 'another device, other keys'
grep -E '^ *answers .*reused' out && bad "reused: $(cat out)" || ok 'answers of another device are not reused'

with env >out 2>&1
says 'far: of a test' 'env names the device'
says '1 such; for training on several: the host' 'and what joins several'

# None there.
without run small.cfg --quiet --out none --set runtime.device=cuda >out 2>&1
code=$?
[ $code -eq 1 ] && [ "$(wc -l <out)" -eq 1 ] && ok 'cuda without a backend: a line' || bad "exit $code: $(cat out)"
says "no CUDA backend is installed (it is built where configure finds the CUDA toolkit; \`sluice plugins\` says" "which says why"
without check small.cfg --set runtime.device=gpu >out 2>&1
[ $? -eq 2 ] && ok 'a device that does not exist is a mistake in the file' || bad "gpu: $(cat out)"

# A file of a backend that is damaged is not the same as none: auto goes on with the processor, and one line says so.
cp -r without damaged
head -c 3000 "$SLUICE_BUILD/tests/plugins/far_backend.so" >damaged/cuda.so
SLUICE_PLUGIN_PATH="$work/damaged" ./sluice run small.cfg --quiet --out damaged-run >out 2>&1 && ok 'a damaged backend: auto goes on' || bad "damaged: $(cat out)"
[ "$(grep -c 'warning: .*damaged/cuda.so was refused: ' damaged-run/log.txt)" = 1 ] && ok 'and one line says so' || bad "log: $(cat damaged-run/log.txt)"
SLUICE_PLUGIN_PATH="$work/damaged" ./sluice run small.cfg --quiet --out damaged-cuda --set runtime.device=cuda >out 2>&1 && bad 'a damaged backend and cuda' || ok 'a damaged backend and cuda'
says 'damaged/cuda.so was refused: ' 'says it too'

FAR_BACKEND=refuse with run small.cfg --quiet --out refused --set runtime.device=cuda >out 2>&1 && bad 'refused' || ok 'cuda that refuses'
says 'no driver, says a test' "with the backend's reason"
FAR_BACKEND=refuse with run small.cfg --quiet --out refused >out 2>&1 && ok 'auto goes on with the processor' || bad "auto: $(cat out)"
grep -qF 'no driver, says a test' refused/log.txt && ok 'and the log says why' || bad "log: $(cat refused/log.txt)"
cmp cpu/models/policy@1/model.safetensors refused/models/policy@1/model.safetensors && ok 'to the same end' || bad 'another end'
FAR_BACKEND=refuse with env >out 2>&1
says 'no driver, says a test' 'as does env'
FAR_BACKEND=old with run small.cfg --quiet --out old --set runtime.device=cuda >out 2>&1 && bad 'old' || ok 'a backend of another build'
says 'of another version of sluice' 'is told of'

# It breaks: the run names the stage, and goes on where it was once the device is back.
for calls in 200 900 1300; do
    rm -rf broken
    FAR_BACKEND=$calls with run small.cfg --quiet --out broken >out 2>&1 && bad "call $calls did not break" || ok "broken at call $calls"
    says 'stopped working' 'the run says so'
    grep -q "stage '" out && ok 'and names the stage' || bad "no stage: $(cat out)"
    with run small.cfg --quiet --out broken >out 2>&1 && ok 'the run goes on' || bad "resuming: $(cat out)"
    cmp -s cpu/models/policy@1/model.safetensors broken/models/policy@1/model.safetensors && ok 'to the same weights' || bad 'other weights'
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
