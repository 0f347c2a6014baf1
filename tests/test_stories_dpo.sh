#!/bin/sh
# Preferences in a file, through source, regularizer, reference and trainer, on a real pretrained model: losses, gradients
# and rewards of four steps are those of transformers and PyTorch (golden/make_stories_dpo.py).
set -u
if [ -z "${SLUICE_STORIES:-}" ]; then
    echo "skipped: SLUICE_STORIES names no folder of stories260K"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$SLUICE_TEST_DATA/golden/stories_dpo.jsonl" "$work"
cat >"$work/dpo.cfg" <<END
sluice = 1;
name = "stories-dpo";
models = { policy = { path = "$SLUICE_STORIES"; dtype = "float32"; }; };
phases = ( { name = "dpo"; stages = (
  { name = "pairs"; use = "jsonl-source"; path = "stories_dpo.jsonl"; },
  { name = "trust"; use = "label-smoothing"; from = "pairs"; epsilon = 0.1; },
  { name = "train"; use = "trainer"; from = "trust"; model = "policy"; lr = 1e-3; epochs = 4; schedule = "constant";
    warmup = 0; } ); } );
END
"$SLUICE_BUILD/sluice" run "$work/dpo.cfg" --out "$work/run" >"$work/log" 2>&1 || {
    cat "$work/log"
    exit 1
}
# step loss grad_norm margin of each line of metrics that has a step
sed -n 's/.*"step":\([0-9]*\),"loss":\([^,]*\),"grad_norm":\([^,]*\),.*"rewards\/margins":\([^,]*\),.*/\1 \2 \3 \4/p' \
    "$work/run/metrics.jsonl" >"$work/got"
paste -d ' ' "$work/got" "$SLUICE_TEST_DATA/golden/stories_dpo.txt" | awk '
    function far(x, y) { d = x - y; return (d < 0 ? -d : d) > 1e-4 * (1 + (y < 0 ? -y : y)) }
    { if (NF != 8 || $1 != $5 || far($2, $6) || far($3, $7) || far($4, $8)) { print "not ok:", $0; bad = 1 } else print "ok: step", $1 }
    END { exit bad || NR != 4 }'
