#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# What goes wrong in the middle of a run on the emulated device, in each kind of stage: memory refused, once and for good, a
# device that fails, kill -9, Ctrl-C. One line with the stage; what was finished stays; the same command ends with the
# bytes of an undisturbed run.
. "$SLUICE_SOURCE/tests/shell.sh"
emulated
small_model small
PKG_CONFIG_PATH=$SLUICE_BUILD
export PKG_CONFIG_PATH
for kind in judge regularizer; do
    "$sluice" new-plugin --cuda $kind ann/my-$kind >out 2>&1 && make -s -C my-$kind NVCC="$SLUICE_SOURCE/tests/cuda/nvcc" >out 2>&1 || bad "the $kind is built"
done
SLUICE_PLUGIN_PATH=$work/my-judge:$work/my-regularizer:$SLUICE_PLUGIN_PATH
# The plugins' kernels come first: launch 1 is overlap's, launch 2 trust's.
cat >all.cfg <<END
sluice = 1; name = "all"; seed = 5;
runtime = { device = "cuda"; };
models = { policy = { path = "small"; init = "random"; }; };
phases = ( { name = "p"; stages = (
  { name = "preferences"; use = "tasks"; count = 6; form = "preference"; },
  { name = "overlap"; use = "ann/my-judge"; from = "preferences"; n = 1; },
  { name = "trust"; use = "ann/my-regularizer"; from = "overlap"; by = "overlap"; },
  { name = "questions"; use = "tasks"; count = 3; },
  { name = "answers"; use = "sampler"; from = "questions"; after = "trust"; model = "policy"; n = 2; max_tokens = 5; },
  { name = "own"; use = "judge-implicit"; from = "trust"; after = "answers"; model = "policy"; reference = "policy@0"; },
  { name = "train"; use = "trainer"; from = "own"; model = "policy"; loss = "dpo"; lr = 1e-3; batch = 2; dropout = 0.1; checkpoint_every = 0.0; },
  { name = "again"; use = "judge-implicit"; from = "preferences"; after = "train"; model = "policy"; reference = "policy@0"; } ); } );
END
EMULATED_CUDA_COUNTS=$work/counts "$sluice" run all.cfg --out whole --quiet >out 2>&1 && ok "undisturbed" || bad "undisturbed"
launches=$(count ran) taken=$(count taken)
[ "$launches" -gt 80 ] && [ "$taken" -gt 40 ] && ok "$launches launches, $taken pieces of memory" || bad "launches, memory: $(cat counts)"

finished() { find broken -name '*.done' -exec stat -c '%n %i %y' {} + 2>/dev/null | sort; }
# disturb SETTINGS CODE WORDS: a run in which that happens, which ends with the code and a line of these words (a regular
# expression; none: without a word).
disturb() {
    rm -rf broken
    (EMULATED_CUDA=$1 exec "$sluice" run all.cfg --out broken --quiet >out 2>&1) 2>/dev/null
    code=$?
    finished >before
    stage=$(sed -n "s/^sluice: stage '\([a-z]*\)'.*/\1/p" out)
    lines=$([ -z "$3" ] && echo 0 || echo 1)
    [ $code = "$2" ] && [ "$(grep -c '^sluice: ' out)" = "$lines" ] && [ "$(grep -c -e "$3" out)" = "$lines" ] && ok "$1: $stage, exit code $code" ||
        bad "$1: exit code $code"
    met="$met $stage"
}
# again WHAT: the same command, to the same end; the streams that were finished are not touched.
again() {
    "$sluice" run all.cfg --out broken --quiet >out 2>&1 && same whole broken && ok "$1: goes on to the same bytes" || bad "$1: another end: $(cat difference)"
    finished >after
    [ -z "$(comm -23 before after)" ] && ok "$1: $(wc -l <before) finished stages stay" || bad "$1: finished stages were made again"
    [ -z "$(find broken -name '*.tmp*' -o -name '*.part*' -o -name '*.new')" ] && ok "$1: nothing half-written" || bad "$1: left: $(ls broken/*)"
}
# everywhere STAGE…: the faults so far met each of them.
everywhere() {
    for one; do
        case " $met " in *" $one "*) ;; *) bad "no fault in stage $one, but in:$met" ;; esac
    done
    met=
}
met=

# --- memory refused from the n-th request on: for good, so that nothing helps ---------------------------------------------
numbers='out of memory.* asked for, .* in use by this run, .* of 4.0 GiB free on GPU 0'
EMULATED_CUDA=fail_allocation=1,refusals=0 "$sluice" run all.cfg --out none --quiet >out 2>&1 && bad "no memory at the start"
grep -q 'no memory for transfers: .* asked for, .* of 4.0 GiB free on GPU 0; nvidia-smi shows who uses it' out && [ "$(wc -l <out)" = 1 ] && ok "no memory at the start: the numbers" || bad "no memory at the start"
for percent in 8 22 36 50 62 70 78 92; do
    disturb "fail_allocation=$((taken * percent / 100)),refusals=0" 1 "$numbers"
    again "memory at $percent %"
done
everywhere overlap answers own train again
# Once, after which there is some again: the sampler takes fewer candidates, and ends with the same. (Before its own memory
# comes the model's, without which nothing can be done.)
narrowed=0
for percent in 26 30 34; do
    EMULATED_CUDA=fail_allocation=$((taken * percent / 100)),refusals=6 "$sluice" run all.cfg --out once-$percent --quiet >out 2>&1 && same whole once-$percent &&
        grep -q "stage 'answers': memory ran out: at most [0-9]* candidates were decoded at once.* asked for" once-$percent/log.txt && narrowed=$((narrowed + 1))
    [ ! -s out ] || grep -q "$numbers" out || bad "memory refused once at $percent %"
done
[ $narrowed -ge 1 ] && ok "a sampler makes do with less ($narrowed times)" || bad 'a sampler makes do with less'

# --- a device that fails: an illegal address, an uncorrectable error of its memory ----------------------------------------
SLUICE_CUDA_WAIT=1
export SLUICE_CUDA_WAIT
disturb fail_launch=1 1 "GPU 0 (emulated device) failed in stage 'overlap': an illegal memory access.*; run again to resume"
again 'an illegal address in a plugin'
disturb fail_launch=2,launch_error=214 1 "failed in stage 'trust': uncorrectable ECC error encountered; reset it (nvidia-smi -r -i 0000:01:00.0) or replace it.*; run again to resume"
again 'an uncorrectable error in a plugin'
for percent in 20 70 99; do
    disturb fail_launch=$((launches * percent / 100)) 1 'an illegal memory access was encountered.*; run again to resume'
    again "an illegal address at $percent %"
done
unset SLUICE_CUDA_WAIT
disturb fail_launch=$((launches / 3)),launch_error=719 1 'unspecified launch failure.*; run again to resume'
again 'a failed launch'
everywhere overlap trust answers own train again

# --- kill -9 in the middle of a kernel, and what is asked by Ctrl-C and by kill ------------------------------------------
for at in 1 2 $((launches / 5)) $((launches * 2 / 5)) $((launches * 3 / 5)) $((launches * 4 / 5)) $launches; do
    disturb signal_launch=$at 137 ''
    again "kill -9 at launch $at"
done
for number in 2 15; do
    disturb signal=$number,signal_launch=$((launches * 7 / 10)) 130 'stopped; what is finished lies in broken: the same command again goes on from there'
    again "signal $number"
done
summary
