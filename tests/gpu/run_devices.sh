#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# tests/gpu/run_devices.sh SLUICE GPUS: a small model trained on one GPU, on two, and on all GPUS of this machine by
# `sluice run` with runtime.devices: the numbers of one up to rounding, the same bits when it is done again, and how
# long each takes. 77 where there is one GPU. Runs on emulated ones too: EMULATED_CUDA=devices=2.
set -u
sluice=$1 gpus=$2
[ "$gpus" -ge 2 ] || { echo "one GPU: not run"; exit 77; }
source=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
SLUICE_STORE=off
export SLUICE_STORE
cd "$work" || exit 1
cat >train.cfg <<END
sluice = 1; name = "train"; seed = 5;
runtime = { device = "cuda"; };
models = { policy = { path = "$source/models/embedded"; dtype = "float32"; }; };
phases = ( { name = "p"; stages = (
  { name = "pairs"; use = "tasks"; count = ${PAIRS:-512}; form = "preference"; },
  { name = "train"; use = "trainer"; from = "pairs"; model = "policy"; loss = "dpo"; batch = 32; lr = 1e-5; dropout = 0.1; }
); } );
END
# near FILE FILE: every number of the two metrics files agrees to 1e-3, relatively or against 1.
near() {
    tr ',{}:' '\n' <"$1" >a && tr ',{}:' '\n' <"$2" >b && paste a b | awk '
        $1 != $2 && (($1 "" !~ /^-?[0-9.e+-]+$/) || ($2 "" !~ /^-?[0-9.e+-]+$/)) { print "not a number: " $0; exit 1 }
        { d = $1 - $2; s = $1 < 0 ? -$1 : $1; if (s < 1) s = 1; if (d > 1e-3 * s || d < -1e-3 * s) { print; exit 1 } }'
}
failed=0 before=
for n in 1 2 "$gpus"; do
    [ "$n" != "$before" ] || continue
    before=$n
    for again in first again; do
        start=$(date +%s.%N)
        "$sluice" run train.cfg --quiet --out "$n-$again" --set runtime.devices="$n" || exit 1
        echo "$n GPUs: $(echo "$(date +%s.%N) $start" | awk '{ printf "%.1f", $1 - $2 }') s ($again)"
    done
    cmp "$n-first/models/policy@1/model.safetensors" "$n-again/models/policy@1/model.safetensors" || { echo "not ok: $n GPUs: other bits"; failed=1; }
    near 1-first/metrics.jsonl "$n-first/metrics.jsonl" || { echo "not ok: $n GPUs: other numbers than on one"; failed=1; }
done
[ $failed = 0 ] && echo "ok: the numbers of one GPU, and the same bits again"
exit $failed
