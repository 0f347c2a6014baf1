#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# The reference and manual pages: one for each class and command, as the program says now, well-formed; installed and uninstalled; where
# the program cannot run, those that came with the release.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { failed=$((failed + 1)); echo "not ok: $*"; }
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }
unset MAKEFLAGS MFLAGS MAKELEVEL SLUICE_PLUGIN_PATH
sluice=$SLUICE_BUILD/sluice
XDG_DATA_HOME=$work/data
export XDG_DATA_HOME
cd "$work" || exit 1

"$sluice" plugins | awk 'NR > 1 && NF > 3 { print $1 }' >classes
"$sluice" --help | sed -n 's/^  \([a-z][a-z-]*\)  *[^ ].*$/\1/p' | grep -vx sluice >commands
for class in $(cat classes); do
    "$sluice" describe "$class" --format markdown | cmp -s - "$SLUICE_BUILD/doc/reference/$class.md" || bad "doc/reference/$class.md is not what describe says"
    "$sluice" describe "$class" --format man | cmp -s - "$SLUICE_BUILD/doc/man/sluice-$class.7" || bad "sluice-$class(7) is not what describe says"
    grep -qF "[$class]($class.md)" "$SLUICE_BUILD/doc/reference/README.md" || bad "doc/reference/README.md does not list $class"
done
[ "$(wc -l <classes)" -gt 20 ] && ok "a page for each of $(wc -l <classes) classes" || bad "classes are listed"
for command in $(cat commands); do
    page=$SLUICE_BUILD/doc/man/sluice-$command.1
    for part in NAME SYNOPSIS DESCRIPTION 'EXIT STATUS' EXAMPLES; do
        grep -qx ".SH $part" "$page" || bad "sluice-$command(1) has no $part"
    done
    # Every option of the help is an item of the page.
    for option in $("$sluice" help "$command" | sed -n 's/^  \(--[a-z-]*\).*/\1/p'); do
        grep '^\.B ' "$page" | sed 's/\\//g' | grep -qF -e "$option" || bad "sluice-$command(1) lacks $option"
    done
    sed 's/\\//g' "$SLUICE_BUILD/doc/man/sluice.1" | grep -qx ".BR sluice-$command (1)" || bad "sluice(1) does not list $command"
done
[ "$(wc -l <commands)" -gt 10 ] && ok "a page for each of $(wc -l <commands) commands" || bad "commands are listed"
if command -v groff >/dev/null; then
    for page in "$SLUICE_BUILD"/doc/man/*; do
        groff -man -Tutf8 -Kutf8 -ww -z "$page" >>warnings 2>&1
    done
    grep -v "can't break line\|cannot break line\|cannot adjust line" warnings >serious && { head serious; bad "groff has words about the pages"; } || ok "groff takes every page"
else
    skip "the pages through groff (it is not installed)"
fi

make -s -C "$SLUICE_BUILD" install-data DESTDIR="$work/root" >log 2>&1 || { tail log; bad "make install-data"; }
for file in sluice.1 sluice-run.1 sluice-cream.7 cream.md; do
    [ -n "$(find root -name $file)" ] && ok "$file is installed" || bad "$file is not installed"
done
make -s -C "$SLUICE_BUILD" uninstall-local DESTDIR="$work/root" >log 2>&1
[ -z "$(find root -name 'sluice*.[17]' -o -name cream.md)" ] && ok "and uninstalled" || bad "a page stays after make uninstall"

# A program for another machine: the release's pages are taken; without them nothing is, and the build goes on.
mkdir -p cross release/doc bare
cp -R "$SLUICE_BUILD/doc/reference" "$SLUICE_BUILD/doc/man" release/doc
(cd cross && sh "$SLUICE_SOURCE/doc/make_reference.sh" "$work/release") >log 2>&1 && diff -r cross/doc release/doc >log && ok "a cross build takes the release's pages" ||
    { cat log; bad "a cross build takes the release's pages"; }
(cd bare && sh "$SLUICE_SOURCE/doc/make_reference.sh" "$work/bare") >log 2>&1 && grep -q 'cannot run here' log && ok "without them it goes on" || bad "without them it goes on"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
