#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# What `sluice new-plugin` writes, for every kind: it compiles without a warning, runs its pipeline, passes its test. What is
# asked for wrongly leaves nothing behind. The headers by themselves, in C and in C++.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { failed=$((failed + 1)); echo "not ok: $*"; tail -n 15 log err 2>/dev/null; }
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }
unset MAKEFLAGS MFLAGS MAKELEVEL
PKG_CONFIG_PATH=$SLUICE_BUILD
export PKG_CONFIG_PATH
sluice=$SLUICE_BUILD/sluice
cc=${CC:-cc}
cd "$work" || exit 1

for kind in source sink sampler judge ranker regularizer loss trainer averager evaluator transform; do
    "$sluice" new-plugin $kind ann/my-$kind >out 2>err || { bad "new-plugin $kind"; continue; }
    [ -d my-$kind ] && grep -q 'make check' out || bad "new-plugin $kind says what to do next"
    grep -rn '@[A-Z]*@' my-$kind >log && bad "$kind: a mark is left in what was written"
    if (cd my-$kind && make -s CC="$cc" CFLAGS='-O1 -Wall -Wextra -Wshadow -Wstrict-prototypes -Werror') >log 2>&1; then
        ok "$kind compiles as C11 without a warning"
    else
        bad "$kind compiles"
        continue
    fi
    [ "$(nm -D --defined-only my-$kind/my-$kind.so | awk '{ print $3 }')" = sluice_plugin_entry ] && ok "$kind exports its entry alone" ||
        bad "$kind exports more than its entry"
    SLUICE_PLUGIN_PATH=$work/my-$kind "$sluice" describe ann/my-$kind >log 2>&1 && ok "describe ann/my-$kind" || bad "describe ann/my-$kind"
    (cd my-$kind && make -s check SLUICE="$sluice") >log 2>&1 && ok "$kind: make check" || bad "$kind: make check"
done

# As a user installs it: sluice finds it without being told.
if (cd my-judge && XDG_DATA_HOME=$work/data make -s install) >log 2>&1 && XDG_DATA_HOME=$work/data "$sluice" plugins | grep -q '^ann/my-judge '; then
    ok "make install"
else
    bad "make install"
fi

# refused CODE WORDS ARGUMENTS...: the exit code and the words, and nothing new in the folder.
refused() {
    code=$1 words=$2
    shift 2
    ls -A >before
    "$sluice" new-plugin "$@" >log 2>err
    got=$?
    ls -A >after
    if [ $got = "$code" ] && grep -q -e "$words" err && [ "$(wc -l <err)" = 1 ] && cmp -s before after; then
        ok "new-plugin $*: refused"
    else
        bad "new-plugin $*: exit code $got, not $code, or no '$words', or something was left"
    fi
}
touch before after
refused 2 "did you mean 'judge'" juge x
refused 2 'a kind and a name' judge
refused 2 'is no name' judge Brevity
refused 2 'is no name' judge 9lives
refused 2 'is no name' judge a/b/c
refused 2 'is no name' judge ../x
refused 2 'is no name' judge ann/
refused 2 'is no name' judge ''
refused 2 'is too long' judge "$(printf 'a%.0s' $(seq 64))"
refused 2 'dir is empty' judge x --dir ''
refused 1 'exists already' judge ann/my-judge
mkdir empty
refused 1 'exists already' judge x --dir empty/
refused 1 'No such file' judge x --dir nowhere/x
# No room for a file of more than 512 bytes: the folder is not there at all.
trap '' XFSZ
(ulimit -f 1 && refused 1 'cannot write' judge x) >limited 2>&1
grep -q '^ok' limited && ok "a full disk leaves nothing" || { cat limited; bad "a full disk leaves nothing"; }
trap - XFSZ

if c++ --version >/dev/null 2>&1; then languages='c c++'; else languages=c && skip "headers in C++ (there is no c++)"; fi
for language in $languages; do
    case $language in c) compile="$cc -std=c11" ;; *) compile="c++ -std=c++17" ;; esac
    for header in "$SLUICE_SOURCE"/core/include/sluice/*.h; do
        printf '#include <sluice/%s>\n' "${header##*/}" >alone.c
        # shellcheck disable=SC2046
        $compile -x $language -Wall -Wextra -Wshadow -Werror -fsyntax-only $(pkg-config --cflags sluice) alone.c 2>err || bad "${header##*/} by itself as $language"
    done
    ok "every header by itself as $language"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
