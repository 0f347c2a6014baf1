expect "the pipeline runs" "$sluice" run pipeline.cfg --out "$out/run" --quiet
expect "every prompt is answered" holds "$(number mine prompts) == 32"
expect "three times" holds "$(number checked answers) == 96"
expect "the same again, to the byte" "$sluice" run pipeline.cfg --out "$out/again" --quiet
expect "the same again, to the byte" cmp "$out/run/metrics.jsonl" "$out/again/metrics.jsonl"
