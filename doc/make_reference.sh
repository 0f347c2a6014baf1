#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# doc/make_reference.sh SOURCE, in the build folder: doc/reference (a page a class) and doc/man (a page a command, one a class),
# made of what the program just built says of itself: so they are never out of date, and a user's own plugins are not in them. A
# program that cannot run here (cross-compiling) leaves those of the release that is being built.
set -eu
source=$1
mkdir -p doc
rm -rf doc/new
if ./sluice --version >/dev/null 2>&1; then
    mkdir -p doc/new/man
    unset SLUICE_PLUGIN_PATH SLUICE_LIBEXEC
    XDG_DATA_HOME=$PWD/doc/new XDG_CACHE_HOME=$PWD/doc/new/cache
    export XDG_DATA_HOME XDG_CACHE_HOME
    ./sluice describe --all --format markdown --out doc/new/reference
    ./sluice describe --all --format man --out doc/new/man
    version=$(./sluice --version | cut -d' ' -f2)
    ./sluice --help | awk -f "$source/doc/help_to_man.awk" -v name=sluice -v version="$version" >doc/new/man/sluice.1
    ./sluice --help | sed -n 's/^  \([a-z][a-z-]*\)  *\([^ ].*\)$/\1 \2/p' | while read -r command summary; do
        [ "$command" = sluice ] && continue
        ./sluice help "$command" | awk -f "$source/doc/help_to_man.awk" -v name="sluice-$command" -v summary="$summary" \
            -v version="$version" >"doc/new/man/sluice-$command.1"
    done
elif [ -d "$source/doc/reference" ]; then
    mkdir -p doc/new
    cp -R "$source/doc/reference" "$source/doc/man" doc/new
    chmod -R u+w doc/new
else
    echo "the program cannot run here: no reference and no manual pages are made (a release's tarball has them)"
    exit 0
fi
rm -rf doc/reference doc/man
mv doc/new/reference doc/new/man doc
rm -rf doc/new
