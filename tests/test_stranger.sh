#!/bin/sh
# A plugin author's day: install sluice, write the plugins of doc/plugin-guide.md, build them with its Makefile against what is
# installed alone, test and install them, run them in pipelines.
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
# Installed below DESTDIR: where that is, is said here as no user of a real installation has to.
PKG_CONFIG_PATH=$(dirname "$(find "$work/root" -name sluice.pc)")
PKG_CONFIG_SYSROOT_DIR=$work/root
SLUICE_LIBEXEC=$(dirname "$(find "$work/root" -name sluice-describe)")
SLUICE_PLUGIN_PATH=$(find "$work/root" -type d -path '*sluice/plugins')
PATH=$installed/bin:$PATH
# A user of one's own, who has seen nothing of sluice yet.
XDG_DATA_HOME=$work/data XDG_CACHE_HOME=$work/cache
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR SLUICE_LIBEXEC SLUICE_PLUGIN_PATH PATH XDG_DATA_HOME XDG_CACHE_HOME
mkdir -p "$work/away"
cd "$work/away"
[ "$(command -v sluice)" = "$installed/bin/sluice" ] || bad "the program is installed"

# What stands in the guide is what a reader copies.
for f in ipo.c halve.c brief.c table.c Makefile halve.cfg table.cfg table.tsv; do
    awk -v name="$f" '$1 ~ /^```/ { inside = ($2 == name); next } inside' "$SLUICE_SOURCE/doc/plugin-guide.md" >$f
    [ -s $f ] || bad "doc/plugin-guide.md has no $f"
done
make -s CC="${CC:-cc} -Werror" >make.log 2>&1 || { cat make.log; bad "make"; }
for f in ipo halve brief table; do
    [ "$(nm -D --defined-only $f.so | awk '{ print $3 }')" = sluice_plugin_entry ] || bad "$f.so exports more than its entry"
    ok "built $f.so from the guide, one symbol exported"
done
make -s check >check.log 2>&1 || { tail -n 30 check.log; bad "make check"; }
[ "$(grep -c ', 0 failed$' check.log)" = 4 ] || { tail -n 30 check.log; bad "make check tests all four"; }
ok "make check"
make -s install >make.log 2>&1 || { cat make.log; bad "make install of the plugins"; }
[ "$(sluice plugins | grep -c '^stranger/')" = 4 ] || { sluice plugins; bad "sluice finds the four that are installed"; }
ok "sluice finds the four that are installed"
sluice describe stranger/ipo | grep -q 'Strength of the pull' || bad "describe stranger/ipo"
ok "describe shows the parameter's sentence"

sed -i "s|MODEL|$SLUICE_SOURCE/models/embedded|" halve.cfg table.cfg
sluice run halve.cfg --out "$work/run" >run.log 2>&1 || { cat run.log; bad "sluice run halve.cfg"; }
grep -q '"halved"' "$work/run/metrics.jsonl" || bad "no metric of the regularizer"
[ -f "$work/run/models/policy@2/model.safetensors" ] || bad "no model published"
cmp -s "$work/run/models/policy@2/model.safetensors" "$SLUICE_SOURCE/models/embedded/model.safetensors" && bad "training changed nothing"
ok "loss, regularizer and judge run in a pipeline, two iterations"
sluice run table.cfg --out "$work/table" >run.log 2>&1 || { cat run.log; bad "sluice run table.cfg"; }
grep -q '"lines":4' "$work/table/metrics.jsonl" || bad "the source read four lines"
[ -f "$work/table/models/policy@1/model.safetensors" ] || bad "no model published from the table"
ok "the source feeds a trainer"
printf 'What is it?\tnothing\n' >>table.tsv
if sluice run table.cfg --out "$work/table" >run.log 2>&1; then bad "a line of two columns is taken"; fi
grep -q 'table.tsv:5: no two tabs' run.log || { cat run.log; bad "a line of two columns is named"; }
ok "a line of two columns is named"
sed 's|by = "own"; }|by = "owm"; }|' halve.cfg >wrong.cfg
if sluice check wrong.cfg >check.log 2>&1; then bad "check accepts a mistyped judge"; fi
grep -q "did you mean.*own" check.log || { cat check.log; bad "check does not name the near judge"; }
ok "check names the near judge"

# The first one in a minute, from what is installed.
sluice new-plugin judge ann/brevity >new.log 2>&1 || { cat new.log; bad "new-plugin"; }
(cd brevity && make -s CC="${CC:-cc}" && make -s check && make -s install) >new.log 2>&1 || { cat new.log; bad "a new plugin from what is installed"; }
sluice describe ann/brevity >new.log 2>&1 || { cat new.log; bad "describe ann/brevity"; }
ok "new-plugin from what is installed"
echo "$passed passed, 0 failed"
