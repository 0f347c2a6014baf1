expect "the pipeline runs" "$sluice" run pipeline.cfg --out "$out/run" --quiet
expect "every pair is weighed" holds "$(number mine pairs) == 64"
expect "weights lie around a half" holds "$(number mine weight) > 0.4 && $(number mine weight) < 0.6"
expect "the trainer trains on them" holds "$(number train pairs) == 64"
