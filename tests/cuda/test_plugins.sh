#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# Plugins with CUDA kernels of their own, as `sluice new-plugin --cuda` writes them, built for the emulated runtime (and by
# nvcc where it is): two of them, models and a trainer in one run share one context and leave nothing behind; what goes
# wrong is said with the stage's name, and the run can be resumed.
set -u
[ -f "$SLUICE_BUILD/tests/cuda/plugins/cuda.so" ] || { echo "skipped: there is no emulated device (no C++ compiler)"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { failed=$((failed + 1)); echo "not ok: $*"; tail -n 15 log err 2>/dev/null; }
unset MAKEFLAGS MFLAGS MAKELEVEL EMULATED_CUDA SLUICE_CUDA_WAIT SLUICE_CUDA_MEMORY
PKG_CONFIG_PATH=$SLUICE_BUILD
SLUICE_STORE=off
export PKG_CONFIG_PATH SLUICE_BUILD SLUICE_STORE
sluice=$SLUICE_BUILD/sluice
nvcc=$SLUICE_SOURCE/tests/cuda/nvcc
cd "$work" || exit 1

for kind in judge regularizer; do
    "$sluice" new-plugin --cuda $kind ann/my-$kind >out 2>err || { bad "new-plugin --cuda $kind"; continue; }
    grep -rn '@[A-Z]*@' my-$kind >log && bad "$kind: a mark is left in what was written"
    (cd my-$kind && make -s NVCC=no-such-nvcc) >log 2>&1
    grep -q 'install the CUDA toolkit' log && ok "$kind: what is missing is said" || bad "$kind: what is missing is said"
    (cd my-$kind && make -s NVCC="$nvcc" CFLAGS=-Wall,-Wextra,-Werror) >log 2>&1 && ok "$kind is built for the emulated runtime" ||
        bad "$kind is built for the emulated runtime"
done
"$sluice" new-plugin --cuda loss ann/x >out 2>err && bad "no kernels for a loss" || grep -q 'a judge or a regularizer' err && ok "no kernels for a loss"

# Without the backend: the plugin is there, and says what is missing.
(cd my-judge && SLUICE_PLUGIN_PATH=$PWD "$sluice" run pipeline.cfg --out ../none --set runtime.device=cpu) >log 2>err
if [ -f "$SLUICE_BUILD/plugins/cuda.so" ]; then
    grep -q "no GPU" err && ok "without a GPU" || ok "without a GPU (there is one)"
else
    grep -q "stage 'mine'.*built without CUDA" err && ok "without CUDA" || bad "without CUDA"
fi

SLUICE_PLUGIN_PATH=$work/my-judge:$work/my-regularizer:$SLUICE_BUILD/tests/cuda/plugins
export SLUICE_PLUGIN_PATH
for kind in judge regularizer; do # test-plugin with the device's service, then the pipeline
    (cd my-$kind && make -s check NVCC="$nvcc" SLUICE="$sluice") >log 2>&1 && grep -q ' 0 with a warning, 0 failed' log && ok "$kind: make check" || bad "$kind: make check"
done
[ "$(grep -c '^PASSED  *\(works\|batches\|cancel\|resume\|seed\|borrowed\|memory\|threads\) ' log)" = 8 ] && ok "test-plugin drives it" || bad "test-plugin drives it"
# Runs on a GPU are killed too, after a checkpoint, and gone on with: what does so rightly passes, and what does not is found.
for ahead in 0 1; do
    "$nvcc" -shared -o counts-$ahead.so -DAHEAD=$ahead -I"$SLUICE_SOURCE" -I"$SLUICE_SOURCE/core/include" "$SLUICE_SOURCE/tests/cuda/counts_on_gpu.c" >log 2>err || bad "counts_on_gpu.c"
    "$sluice" test-plugin counts-$ahead.so --timeout 60 >log 2>err
    [ "$(awk '/^(WARNING|FAILED|CRASHED|HUNG) / { print $2 $1 }' log)" = "$([ $ahead = 0 ] || echo resumeFAILED)" ] && ok "checkpoints on a GPU (ahead by $ahead)" ||
        bad "checkpoints on a GPU (ahead by $ahead)"
done
# Mistakes with the GPU are found, and told so that their place is clear: in the kernel, with memory, in a launch.
# mistaken NAME FILE SED-SCRIPT WORDS
mistaken() {
    cp -R my-judge "mistake-$1" && sed "$3" "my-judge/$2" >"mistake-$1/$2"
    (cd "mistake-$1" && ! cmp -s "$2" "../my-judge/$2" && make -s my-judge.so NVCC="$nvcc" && "$sluice" test-plugin ./my-judge.so --only works) >log 2>&1
    grep -q "$4" log && ok "a mistake: $1" || bad "a mistake: $1"
}
mistaken number my-judge.cu 's/: NO_SHARE;/: 7;/' '^FAILED  *works .*the kernel says that [0-9.]* of answer'
mistaken memory my-judge.c '/cuda->free(gpu, texts);/d' '^WARNING  *works .*warns: [0-9]* bytes of GPU or page-locked memory in'
mistaken launch my-judge.cu 's/<<<count, 128,/<<<count, 4096,/' '^FAILED  *works .*left a CUDA error pending: invalid configuration'
# Where there is no GPU test-plugin says what is missing and what to do, in one line.
for why in driver=0 devices=0; do
    EMULATED_CUDA=$why "$sluice" test-plugin my-judge/my-judge.so --only works --only batches --only threads --only quiet >log 2>err || bad "test-plugin without a GPU ($why)"
    [ "$(grep -c 'SLUICE_PLUGIN_PATH=' log)" = 1 ] && grep -q '^WARNING  works .*does not start: .*GPU.*tests/cuda/nvcc' log &&
        grep -q '^SKIPPED  batches .*needs a GPU' log && ok "test-plugin without a GPU ($why)" || bad "test-plugin without a GPU ($why)"
done

# --- one run: a sampler, two plugins with kernels, models that judge, a trainer ----------------------------------------
cat >both.cfg <<END
sluice = 1;
name   = "both";
seed   = 1;
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; }; other = { path = "$SLUICE_SOURCE/models/embedded-judge"; }; };
phases = (
  { name = "first"; stages = (
      { name = "questions"; use = "tasks";   count = 4; },
      { name = "answers";   use = "sampler"; from = "questions"; model = "policy"; n = 3; max_tokens = 12; },
      { name = "copied";    use = "ann/my-judge"; from = "answers"; n = 1; } ); },
  { name = "second"; stages = (
      { name = "preferences"; use = "tasks"; count = 8; form = "preference"; },
      { name = "overlap"; use = "ann/my-judge"; from = "preferences"; n = 1; },
      { name = "own";     use = "judge-implicit"; from = "overlap"; model = "policy"; reference = "other"; },
      { name = "trust";   use = "ann/my-regularizer"; from = "own"; by = "own"; },
      { name = "train";   use = "trainer"; from = "trust"; model = "policy"; loss = "dpo"; lr = 1e-5; batch = 8; } ); } );
END
count() { sed -n "\$s/.*\\b$1 \\([0-9]*\\).*/\\1/p" counts; }
EMULATED_CUDA_COUNTS=$work/counts "$sluice" run both.cfg --out both --quiet >log 2>err && ok "two plugins, models and a trainer in one run" ||
    bad "two plugins, models and a trainer in one run"
if [ "$(count contexts)" = 1 ]; then ok "one context"; else bad "contexts: $(cat counts)"; fi
if [ "$(count allocations)$(count pinned)$(count streams)$(count events)" = 0000 ]; then ok "nothing is left behind"; else bad "left behind: $(cat counts)"; fi
if [ "$(count graphs)" -gt 0 ]; then ok "decoding steps were graphs"; else bad "no graphs: $(cat counts)"; fi
grep -q '"stage":"trust".*"pairs":8' both/metrics.jsonl && ok "all pairs were weighed" || bad "all pairs were weighed"
grep -q 'were not freed' both/log.txt && bad "memory was not freed" || ok "memory was freed"

sed 's/use = "ann\/my-judge"; from = "answers"; n = 1;/& isolate = true;/' both.cfg >isolated.cfg
"$sluice" check isolated.cfg >log 2>err && bad "isolate is refused" || grep -q 'cannot run in a process of its own' err && ok "isolate is refused"

# --- many pairs: 20,000 of them, whose weights are those of a plain computation ----------------------------------------
cat >score.sed <<'END'
s/.*"id": *"\([a-z]*-[0-9]*-\([0-9]*\)\)".*/{"id": "\1", "scores": [0.\2, 0.5]}/
END
cat >many.cfg <<END
sluice = 1;
name   = "many";
seed   = 1;
models = { policy = { path = "$SLUICE_SOURCE/models/embedded"; }; };
phases = ( { name = "first"; stages = (
  { name = "preferences"; use = "tasks"; count = 20000; form = "preference"; },
  { name = "own";  use = "judge-command"; from = "preferences"; command = ( "sed", "-u", "-f" ); script = "score.sed"; },
  { name = "mine"; use = "ann/my-regularizer"; from = "own"; by = "own"; } ); } );
END
cat >weights.awk <<'END'
{
    match($0, /"scores":\{"own":\[[^]]*\]/)
    split(substr($0, RSTART + 17, RLENGTH - 18), score, ",")
    match($0, /"weight":[-+.e0-9]*/)
    weight[NR] = substr($0, RSTART + 9, RLENGTH - 9)
    gap[NR] = score[1] > score[2] ? score[1] - score[2] : score[2] - score[1]
    sum += gap[NR]
    square += gap[NR] * gap[NR]
}
END {
    mean = sum / NR
    deviation = sqrt(square / NR - mean * mean)
    for (i = 1; i <= NR; i++) {
        d = weight[i] - 1 / (1 + exp(-(gap[i] - mean) / deviation))
        worst = d > worst ? d : -d > worst ? -d : worst
    }
    print NR " pairs, deviation " deviation ", the worst weight is off by " worst
    exit !(NR == 20000 && deviation > 0.1 && worst < 1e-6)
}
END
"$sluice" run many.cfg --out many --quiet --set runtime.device=cpu >log 2>err && "$sluice" cat many/streams/first-1/mine.zst 2>err | awk -f weights.awk >log &&
    ok "20,000 pairs: $(cat log)" || bad "20,000 pairs"

# The GPU is part of the key of a stage with kernels of its own, and of no other stage's, where models are on the processor.
grep -q '^gpu.*cuda-sm90' many/streams/first-1/mine.inputs && ok "the GPU is in its key" || bad "the GPU is in its key: $(cat many/streams/first-1/mine.inputs)"
grep -l '^gpu\|cuda-sm' many/streams/first-1/own.inputs many/streams/first-1/preferences.inputs >log && bad "the GPU is in other keys" || ok "the GPU is in no other key"
EMULATED_CUDA=capability=80 "$sluice" run many.cfg --out many --explain --set runtime.device=cpu >log 2>err
grep -q ' mine .*runs: gpu: cuda-sm90.*cuda-sm80' log && grep -q ' own .*reused' log && ok "another GPU: made anew" || bad "another GPU: made anew"

# --- what goes wrong ----------------------------------------------------------------------------------------------------
# A launch with a block too large is told of with the stage that made it.
mkdir wrong && cp my-judge/* wrong && rm -f wrong/*.so
sed -i 's/<<<count, 128/<<<count, 4096/' wrong/my-judge.cu
(cd wrong && make -s NVCC="$nvcc") >log 2>&1 || bad "the wrong judge is built"
SLUICE_PLUGIN_PATH=$work/wrong:$work/my-regularizer:$SLUICE_BUILD/tests/cuda/plugins "$sluice" run both.cfg --out wrong-run --quiet >log 2>err &&
    bad "a refused launch ends the run"
grep -q "stage 'copied'.*CUDA error pending" err && ok "a refused launch is told of with its stage" || bad "a refused launch is told of with its stage"

# A class that does not declare it gets no kernels.
mkdir undeclared && cp my-regularizer/* undeclared && rm -f undeclared/*.so
sed -i 's/ SLUICE_USES_CUDA |//' undeclared/my-regularizer.c
(cd undeclared && make -s NVCC="$nvcc") >log 2>&1 || bad "the undeclared regularizer is built"
SLUICE_PLUGIN_PATH=$work/undeclared:$SLUICE_BUILD/tests/cuda/plugins "$sluice" run many.cfg --out undeclared-run --quiet >log 2>err && bad "an undeclared class runs"
grep -q "stage 'mine'.*asks for sluice.cuda/1 and does not declare it; give it the trait SLUICE_USES_CUDA" err && [ "$(wc -l <err)" = 1 ] && ok "an undeclared class is told so" || bad "an undeclared class is told so"
"$sluice" test-plugin undeclared/my-regularizer.so --only works >log 2>err && bad "test-plugin lets it pass"
grep -q 'FAILED.*without the trait SLUICE_USES_CUDA' log && ok "by test-plugin too" || bad "by test-plugin too"

# An illegal address in the middle: the stage is named, and the run goes on where it was.
EMULATED_CUDA=fail_launch=100 SLUICE_CUDA_WAIT=1 "$sluice" run both.cfg --out broken --quiet >log 2>err && bad "a device that fails ends the run"
grep -q "stage '.*illegal memory access" err && ok "a device that fails is told of with a stage" || bad "a device that fails is told of with a stage"
if [ "$(wc -l <err)" = 1 ]; then ok "in one line"; else bad "in one line"; fi
"$sluice" run both.cfg --out broken --quiet >log 2>err && ok "the run is resumed" || bad "the run is resumed"
cmp -s both/metrics.jsonl broken/metrics.jsonl && ok "and ends with the same numbers" || bad "and ends with the same numbers"

# Little memory: the sampler makes do with less, or says the numbers; then nothing is lost.
SLUICE_CUDA_MEMORY=8M "$sluice" run both.cfg --out little --quiet >log 2>err
grep -q 'out of memory.*asked for.*in use by this run.*SLUICE_CUDA_MEMORY allows 8.0 MiB' err && ok "out of memory: the numbers" || bad "out of memory: the numbers"
"$sluice" run both.cfg --out little --quiet >log 2>err && ok "with more memory it goes on" || bad "with more memory it goes on"

# --- nvcc ---------------------------------------------------------------------------------------------------------------
real=$(PATH=$PATH:/usr/local/cuda/bin command -v nvcc 2>/dev/null) || real=
if [ -n "$real" ]; then
    for kind in judge regularizer; do
        (cd my-$kind && make -s clean && make -s NVCC="$real" NVCCFLAGS='-O1 -arch=sm_80 --Werror all-warnings' CFLAGS=-Wall,-Wextra,-Werror) >log 2>&1 &&
            ok "$kind is built by nvcc" || bad "$kind is built by nvcc"
        [ "$(nm -D --defined-only my-$kind/my-$kind.so | awk '{ print $3 }')" = sluice_plugin_entry ] && ok "$kind exports its entry alone" || { nm -D --defined-only my-$kind/my-$kind.so >log; bad "$kind exports more than its entry"; }
    done
fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
