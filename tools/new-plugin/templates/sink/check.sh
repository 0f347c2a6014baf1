expect "the pipeline runs" "$sluice" run pipeline.cfg --out "$out/run" --quiet --set mine.path="$out/answers.tsv"
expect "a line an answer, and the heading" holds "$(wc -l <"$out/answers.tsv") == 3"
expect "a line end in an answer is none of the table" grep -qxF "$(printf 'two\tSay it\\non two lines.\t0\tit\\nit')" "$out/answers.tsv"
