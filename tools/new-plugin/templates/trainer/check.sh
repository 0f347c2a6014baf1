expect "the pipeline runs" "$sluice" run pipeline.cfg --out "$out/run" --quiet
expect "three steps were taken" holds "$(number mine steps) == 3"
expect "the weights changed" holds "$(number mine weights_changed) > 0"
expect "a version is published" test -s "$out/run/models/policy@1/model.safetensors"
