expect "the pipeline runs" "$sluice" run pipeline.cfg --out "$out/run" --quiet
expect "every answer is judged" holds "$(number mine answers) == 8"
expect "the chosen answer scores higher" holds "$(number agree pair_accuracy) == 1"
