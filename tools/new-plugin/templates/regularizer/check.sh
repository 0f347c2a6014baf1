expect "the pipeline runs" "$sluice" run pipeline.cfg --out "$out/run" --quiet
expect "half of the pairs are trusted" holds "$(number mine kept) == 32"
expect "the trainer leaves the others out" holds "$(number train weightless) == 32"
