#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# Many records, many stages, many plugins, a slow consumer: memory and time stay bounded. LOAD=n sets the records (20000).
# doc/results/load.md has the figures of a million.
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

# measure FILE: runs it; sets `seconds` and `peak`, the most memory resident, in MB.
measure() {
    rm -rf run
    "$SLUICE_BUILD/sluice" run "$1" --quiet --out run >out 2>&1 &
    child=$!
    peak=0
    while now=$(awk '/^VmHWM/ { print int($2 / 1024) }' /proc/$child/status 2>/dev/null) && [ -n "$now" ]; do
        peak=$now
        sleep 0.05
    done
    wait $child || { bad "$1: $(cat out)"; return 1; }
    seconds=$(awk -F'"seconds":' 'NF > 1 { s = $2 + 0; if (s > most) most = s } END { print most }' run/timing.jsonl)
}

file "$source,
  { name = \"pass\";  use = \"load/null\"; from = \"load\"; },
  { name = \"trust\"; use = \"cream\"; from = \"pass\"; current = \"load/now\"; previous = \"load/before\"; measure = \"kendall-b\"; },
  { name = \"end\";   use = \"load/end\"; from = \"trust\"; }" >cheap.cfg
if measure cheap.cfg; then
    echo "source, transform, cream, sink: $count records in $seconds s, $peak MB resident at most"
    [ "$peak" -le 256 ] && ok "at most 256 MB" || bad "$peak MB for $count records"
fi

count=$((count / 4))
file "{ name = \"load\"; use = \"load/records\"; count = $count; },
  { name = \"end\";   use = \"load/end\"; from = \"load\"; pause = 20; }" >slow.cfg
if measure slow.cfg; then
    echo "a slow consumer: $count records in $seconds s, $peak MB resident at most"
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
