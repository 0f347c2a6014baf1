#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# The core's lines by folder, as doc/maintainer-guide.md shows them: sh tests/test_core_lines.sh looks that every folder of the
# core is told of there, --print prints the table, --write puts it into the page. Code is what is left of a line without comments and
# blanks.
set -eu
: "${SLUICE_SOURCE:=$(cd "$(dirname "$0")/.." && pwd)}"
page=$SLUICE_SOURCE/doc/maintainer-guide.md
cd "$SLUICE_SOURCE"

count() { # FILES: code lines, all lines
    cat "$@" | awk '
        { all++; line = $0; left = ""
          while (line != "") {
              if (inside) { at = index(line, "*/"); if (!at) break; line = substr(line, at + 2); inside = 0; continue }
              at = index(line, "/*")
              if (!at) { left = left line; break }
              left = left substr(line, 1, at - 1); line = substr(line, at + 2); inside = 1
          }
          if (left ~ /[^ \t]/) code++ }
        END { print code + 0, all + 0 }'
}

table() {
    echo '| folder | files | lines of code | with comments and blanks | of these headers |'
    echo '| --- | --- | --- | --- | --- |'
    for folder in core/*/; do
        name=$(basename "$folder")
        # shellcheck disable=SC2046 # names of ours, without spaces
        set -- $(find "$folder" -name '*.[ch]' | sort)
        files=$#
        read -r code all <<EOF
$(count "$@")
EOF
        headers=$(find "$folder" -name '*.h' -exec cat {} + | wc -l)
        echo "$name $files $code $all $headers"
    done | awk '
        { printf "| `%s/` | %d | %d | %d | %d |\n", $1, $2, $3, $4, $5; f += $2; c += $3; a += $4; h += $5 }
        END { printf "| all | %d | %d | %d | %d |\n", f, c, a, h }'
}

case ${1:-} in
--print) table ;;
--write)
    table >"$page.table"
    awk -v table="$page.table" '
        /^<!-- core lines -->$/ { print; print ""; while ((getline line <table) > 0) print line; print ""; skip = 1; next }
        /^<!-- end -->$/ { skip = 0 }
        !skip' "$page" >"$page.new"
    rm "$page.table"
    mv "$page.new" "$page"
    ;;
'')
    failed=0
    for folder in core/*/; do
        grep -q "^| \`$(basename "$folder")/\` |" "$page" && grep -q "^- \`$(basename "$folder")/\`" "$page" ||
            { echo "not ok: doc/maintainer-guide.md does not tell of $folder"; failed=$((failed + 1)); }
    done
    [ "$(table | wc -l)" -gt 5 ] || failed=$((failed + 1))
    echo "1 passed, $failed failed"
    [ $failed = 0 ]
    ;;
*) echo "usage: test_core_lines.sh [--print | --write]" >&2; exit 2 ;;
esac
