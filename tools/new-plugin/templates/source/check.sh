expect "the pipeline runs" "$sluice" run pipeline.cfg --out "$out/run" --quiet --set kept.path="$out/prompts.jsonl"
expect "three lines are not empty" holds "$(number mine records) == 3"
expect "the last is the fourth of the file" grep -q '"id":"line-4"' "$out/prompts.jsonl"
