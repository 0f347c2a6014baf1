expect "the pipeline runs" "$sluice" run pipeline.cfg --out "$out/run" --quiet --set kept.path="$out/prompts.jsonl"
expect "one prompt came twice" holds "$(number mine dropped) == 1"
expect "the others stay" holds "$(wc -l <"$out/prompts.jsonl") == 3"
