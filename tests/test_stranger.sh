#!/bin/sh
# A plugin author's day: install sluice, build a loss, a regularizer and a judge with pkg-config alone, run them in a pipeline.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { echo "not ok: $*"; echo "$passed passed, 1 failed"; exit 1; }

unset MAKEFLAGS MFLAGS MAKELEVEL
make -s -C "$SLUICE_BUILD" install DESTDIR="$work/root" >"$work/install.log" 2>&1 || { cat "$work/install.log"; bad "make install"; }
prefix=$(sed -n 's/^prefix = //p' "$SLUICE_BUILD/Makefile")
installed=$work/root$prefix
PKG_CONFIG_PATH=$(dirname "$(find "$work/root" -name sluice.pc)")
PKG_CONFIG_SYSROOT_DIR=$work/root
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
mkdir -p "$work/plugins" "$work/away"
cd "$work/away"
# The plugins stand in the guide; what is built is what a reader copies.
for f in ipo.c halve.c brief.c halve.cfg; do
    awk -v name="$f" '$1 ~ /^```/ { inside = ($2 == name); next } inside' "$SLUICE_SOURCE/doc/plugin-guide.md" >$f
    [ -s $f ] || bad "doc/plugin-guide.md has no $f"
done
cc=${CC:-cc}
for f in ipo halve brief; do
    # shellcheck disable=SC2046
    $cc -std=c11 -Wall -Wextra -Werror -shared -fPIC -o "$work/plugins/$f.so" $f.c $(pkg-config --cflags sluice) || bad "building $f.c"
    ok "built $f.c outside the tree"
done
[ "$(nm -D --defined-only "$work/plugins/ipo.so" | awk '{ print $3 }')" = sluice_plugin_entry ] || bad "ipo.so exports more than its entry"
ok "one symbol exported"

# Installed below DESTDIR, the program's own plugins lie there too.
SLUICE_PLUGIN_PATH=$work/plugins:$(find "$work/root" -type d -path '*sluice/plugins')
export SLUICE_PLUGIN_PATH
sluice=$installed/bin/sluice
"$sluice" describe stranger/ipo | grep -q 'Strength of the pull' || bad "describe stranger/ipo"
ok "describe shows the parameter's sentence"
sed -i "s|MODEL|$SLUICE_SOURCE/models/embedded|" halve.cfg
"$sluice" run halve.cfg --out "$work/run" >run.log 2>&1 || { cat run.log; bad "sluice run halve.cfg"; }
grep -q '"halved"' "$work/run/metrics.jsonl" || bad "no metric of the regularizer"
[ -f "$work/run/models/policy@2/model.safetensors" ] || bad "no model published"
cmp -s "$work/run/models/policy@2/model.safetensors" "$SLUICE_SOURCE/models/embedded/model.safetensors" && bad "training changed nothing"
ok "all run in a pipeline, two iterations"
sed 's|by = "own"; }|by = "owm"; }|' halve.cfg >wrong.cfg
if "$sluice" check wrong.cfg >check.log 2>&1; then bad "check accepts a mistyped judge"; fi
grep -q "did you mean.*own" check.log || { cat check.log; bad "check does not name the near judge"; }
ok "check names the near judge"
echo "$passed passed, 0 failed"
