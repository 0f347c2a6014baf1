expect "the pipeline runs" "$sluice" run pipeline.cfg --out "$out/run" --quiet
expect "every pair is weighed" holds "$(number mine pairs) == 16"
expect "weights lie around a half" holds "$(number mine weight) > 0.3 && $(number mine weight) < 0.7"
expect "the trainer trains on all of them" holds "$(number train weightless) == 0"
