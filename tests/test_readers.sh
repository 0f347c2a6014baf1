#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# The readers in doc/stream-format.md, taken from its text, read what sluice wrote. Each needs libraries that sluice itself
# does not: without them it is skipped.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { failed=$((failed + 1)); echo "not ok: $*"; }
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }
sluice=$SLUICE_BUILD/sluice
cd "$work" || exit 1

for f in read_stream.py read_stream.c; do
    awk -v name="$f" '$1 ~ /^```/ { inside = ($2 == name); next } inside' "$SLUICE_SOURCE/doc/stream-format.md" >$f
    [ -s $f ] || bad "doc/stream-format.md has no $f"
done
cat >some.cfg <<END
sluice = 1;
name = "some";
phases = ( { name = "make"; stages = (
  { name = "questions"; use = "tasks"; split = "train"; form = "preference"; count = 4000; } ); } );
END
"$sluice" run some.cfg --out run --quiet 2>err || { cat err; bad "sluice run"; }
stream=run/streams/make-1/questions.zst
"$sluice" cat $stream | sed 's/^{"id": *"\([^"]*\)".*/\1/' >ids
[ "$(wc -l <ids)" = 4000 ] && ok "4000 records written" || bad "4000 records written"

if python3 -c 'import cbor2, xxhash, zstandard' 2>/dev/null; then
    python3 read_stream.py $stream >out 2>err && cut -d' ' -f1 out | cmp -s - ids && ok "the reader in Python" || bad "the reader in Python: $(tail -1 err)"
    head -c $(($(wc -c <$stream) / 2)) $stream >cut.zst
    python3 read_stream.py cut.zst >out 2>err && bad "the reader in Python takes a stream that was cut off" || ok "it notices a cut"
else
    skip "the reader in Python (it needs cbor2, xxhash, zstandard)"
fi
if ${CC:-cc} -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -o read_stream read_stream.c -lzstd -lcbor 2>err; then
    ./read_stream $stream >out 2>err && cut -d' ' -f1 out | cmp -s - ids && ok "the reader in C" || bad "the reader in C: $(tail -1 err)"
    [ "$(cut -d' ' -f2 out | sort -u)" = 2 ] && ok "it counts two candidates a preference" || bad "it counts candidates: $(cut -d' ' -f2 out | sort -u)"
elif grep -q 'cbor' err; then
    skip "the reader in C (it needs libcbor)"
else
    bad "the reader in C does not compile: $(cat err)"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
