expect "the pipeline runs" "$sluice" run pipeline.cfg --out "$out/run" --quiet
expect "the model was trained" holds "$(number train weights_changed) > 0"
expect "and is published" test -s "$out/run/models/policy@1/model.safetensors"
first=$(sed -n '/"step":1,/s|.*"loss":\([-+.e0-9]*\).*|\1|p' "$out/run/metrics.jsonl")
expect "at the start every margin is 0, so the loss is delta" holds "$first > 0.999 && $first < 1.001"
