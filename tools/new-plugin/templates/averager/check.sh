expect "the pipeline runs" "$sluice" run pipeline.cfg --out "$out/run" --quiet
expect "a version is published" test -s "$out/run/models/policy@2/model.safetensors"
differ() { ! cmp -s "$out/run/models/policy@1/model.safetensors" "$out/run/models/policy@2/model.safetensors"; }
expect "it is not the trained one" differ
