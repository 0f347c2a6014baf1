expect "the pipeline runs" "$sluice" run pipeline.cfg --out "$out/run" --quiet
expect "it makes pairs" holds "$(number mine pairs) > 0"
expect "marks of 0 and 1 give one pair a question at most" holds "$(number mine pairs) <= 32"
