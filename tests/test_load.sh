#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# Many records, many stages, many plugins, a slow consumer: memory and time stay bounded. LOAD=n sets the records (20000).
# Records a second are printed and not judged: PYTHON=PROGRAM, with pyarrow, adds a Parquet writer's. doc/results/load.md has
# the figures of a million: LOAD=1000000 SLACK=0.
set -u
if [ ! -e "$SLUICE_BUILD/tests/plugins/load.so" ]; then
    echo "skipped: plugins/load.so is not built"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
count=${LOAD:-20000}
passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { failed=$((failed + 1)); echo "not ok: $*"; }
mkdir own
cp "$SLUICE_BUILD/tests/plugins/load.so" own
SLUICE_PLUGIN_PATH=$work/own
export SLUICE_PLUGIN_PATH

file() { printf 'sluice = 1; name = "load"; seed = 1;\nphases = ( { name = "load"; stages = (\n%s ); } );\n' "$1"; }
source="{ name = \"load\"; use = \"load/records\"; count = $count; }"

# processor: sets `used`, the milliseconds of processor time that all commands so far have taken.
processor() {
    times >times.txt
    used=$(awk 'NR == 2 { for (i = 1; i <= 2; i++) { split($i, t, /[ms]/); ms += (t[1] * 60 + t[2]) * 1000 } print int(ms) }' times.txt)
}

# measure FILE: runs it; sets `seconds` by the clock, `busy` of processors, and `peak`, the most memory resident, in MB.
measure() {
    rm -rf run
    processor
    before=$used from=$(date +%s%N)
    "$SLUICE_BUILD/sluice" run "$1" --quiet --out run >out 2>&1 &
    child=$!
    peak=0
    while now=$(awk '/^VmHWM/ { print int($2 / 1024) }' /proc/$child/status 2>/dev/null) && [ -n "$now" ]; do
        peak=$now
        sleep 0.05
    done
    wait $child || { bad "$1: $(cat out)"; return 1; }
    ms=$((($(date +%s%N) - from) / 1000000))
    seconds=$(awk -v ms=$ms 'BEGIN { printf "%.2f", ms / 1000 }')
    processor
    busy=$(awk -v ms=$((used - before)) 'BEGIN { printf "%.2f", ms / 1000 }')
}

# rates RECORDS WHAT: what `measure` found, a second.
rates() {
    awk -v n="$1" -v what="$2" -v s="$seconds" -v b="$busy" -v mb="$peak" 'BEGIN {
        printf "%s: %d records in %s s, %d a second; %s s of processors, %d a second of one; %d MB resident\n",
            what, n, s, n / s, b, n / b, mb }'
}

file "$source,
  { name = \"pass\";  use = \"load/null\"; from = \"load\"; },
  { name = \"trust\"; use = \"cream\"; from = \"pass\"; current = \"load/now\"; previous = \"load/before\"; measure = \"kendall-b\"; },
  { name = \"end\";   use = \"load/end\"; from = \"trust\"; }" >cheap.cfg
if measure cheap.cfg; then
    rates $count "source, transform, cream, sink"
    [ "$peak" -le 256 ] && ok "at most 256 MB" || bad "$peak MB for $count records"
fi

# From hand to hand, with nothing between and with a null stage; through a stream on disk.
memory='in_memory = true;'
file "{ name = \"load\"; use = \"load/records\"; count = $count; $memory },
  { name = \"end\";   use = \"load/end\"; from = \"load\"; }" >hand.cfg
file "{ name = \"load\"; use = \"load/records\"; count = $count; $memory },
  { name = \"pass\";  use = \"load/null\"; from = \"load\"; $memory },
  { name = \"end\";   use = \"load/end\"; from = \"pass\"; }" >memory.cfg
file "$source,
  { name = \"end\";   use = \"load/end\"; from = \"load\"; }" >disk.cfg
measure hand.cfg && rates $count "in memory, source and sink"
if measure memory.cfg; then
    rates $count "in memory, a null stage between"
    [ "$peak" -le 64 ] && ok "in memory: at most 64 MB" || bad "in memory: $peak MB"
fi
measure disk.cfg && rates $count "through a stream on disk"

# The same bytes otherwise: at most 100,000 records.
part=$((count < 100000 ? count : 100000))
stream=run/streams/load-1/load.zst
# beside WHAT COMMAND…: its time by the clock and of processors, for `part` records.
beside() {
    what=$1
    shift
    processor
    before=$used from=$(date +%s%N)
    "$@" || { echo "$what: failed"; return; }
    ms=$((($(date +%s%N) - from) / 1000000))
    processor
    awk -v what="$what" -v n=$part -v ms=$ms -v b=$((used - before)) 'BEGIN {
        printf "%s: %d records in %.2f s, %d a second; %.2f s of processors\n", what, n, ms / 1000, n * 1000 / (ms + !ms), b / 1000 }'
}
if command -v zstd >/dev/null && [ -e $stream ]; then
    file "{ name = \"load\"; use = \"load/records\"; count = $part; },
      { name = \"end\"; use = \"load/end\"; from = \"load\"; }" >part.cfg
    measure part.cfg
    zstd -dcq $stream >records.cbor
    beside "zstd -3, one thread" zstd -qf -3 --single-thread records.cbor -o records.zst
    beside "zstd -d" zstd -dqf records.zst -o records.again
    echo "bytes: CBOR $(wc -c <records.cbor), the stream $(wc -c <$stream), zstd -3 $(wc -c <records.zst)"
fi
if [ -n "${PYTHON:-}" ] && [ -e $stream ]; then
    "$SLUICE_BUILD/sluice" cat $stream >records.jsonl
    "$PYTHON" - <<'END'
import os, time
import pyarrow, pyarrow.json, pyarrow.parquet as parquet

pyarrow.set_cpu_count(1)
pyarrow.set_io_thread_count(1)
table = pyarrow.json.read_json("records.jsonl")


def beside(what, work):
    clock, busy = time.perf_counter(), time.process_time()
    work()
    clock, busy = time.perf_counter() - clock, time.process_time() - busy
    print(f"Parquet, zstd 3, one thread, {what}: {len(table)} records in {clock:.2f} s, "
          f"{len(table) / clock:.0f} a second; {busy:.2f} s of processors")


beside("from a table in memory", lambda: parquet.write_table(table, "records.parquet", compression="zstd", compression_level=3))
beside("into a table", lambda: parquet.read_table("records.parquet", use_threads=False))
print(f"bytes: Parquet {os.path.getsize('records.parquet')} (pyarrow {pyarrow.__version__})")
END
fi
rm -f records.*

count=$((count / 4))
file "{ name = \"load\"; use = \"load/records\"; count = $count; },
  { name = \"end\";   use = \"load/end\"; from = \"load\"; pause = 20; }" >slow.cfg
if measure slow.cfg; then
    rates $count "a slow consumer"
    [ "$peak" -le 256 ] && ok "a slow consumer costs no memory" || bad "a slow consumer: $peak MB for $count records"
fi

stages="{ name = \"load\"; use = \"load/records\"; count = 500; }" from=load
for i in $(seq 1 38); do
    stages="$stages,
  { name = \"s$i\"; use = \"load/null\"; from = \"$from\"; }"
    from=s$i
done
file "$stages,
  { name = \"end\"; use = \"load/end\"; from = \"$from\"; }" >forty.cfg
measure forty.cfg && ok "forty stages: $seconds s, $peak MB" &&
    { [ "$("$SLUICE_BUILD/sluice" cat run/streams/load-1/s38.zst | wc -l)" = 500 ] || bad "records were lost among forty stages"; }

# Two hundred plugins, known from an earlier start; what starting costs without them stands beside it.
mkdir many
for i in $(seq 101 300); do
    LC_ALL=C sed "s/one-000/one-$i/g; s/many-000/many-$i/g" "$SLUICE_BUILD/tests/plugins/one_of_many.so" >"many/$i.so"
done
start() {
    best=
    for i in 1 2 3 4 5; do
        from=$(date +%s%N)
        SLUICE_PLUGIN_PATH=$1 "$SLUICE_BUILD/sluice" plugins >plugins.txt
        ms=$((($(date +%s%N) - from) / 1000000))
        [ -n "$best" ] && [ "$best" -le $ms ] || best=$ms
    done
}
start "$work/own"
alone=$best
start "$work/many"
if [ "$(grep -c many/one plugins.txt)" -ge 200 ]; then
    echo "200 plugins more: sluice plugins takes $best ms, without them $alone ms"
    [ "$best" -le $((200 + ${SLACK:-400})) ] && ok "200 plugins in the path" || bad "200 plugins in the path: $best ms"
else
    bad "200 plugins in the path: $(tail -n 3 plugins.txt)"
fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
