expect "the pipeline runs" "$sluice" run pipeline.cfg --out "$out/run" --quiet
expect "every question counts" holds "$(number mine questions) == 64"
expect "the model knows some of the answers" holds "$(number mine exact_match) > 0.2 && $(number mine exact_match) < 1"
