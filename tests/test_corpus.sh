#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# Malformed pipeline files for `sluice check`: those of corpus/pipelines/, made by hand, each with its line (0 = of no line) and a
# word of the hint in expected.tsv; and pipelines/*.cfg with one mistake made by corpus/mutate.awk. Each must end with exit code 2, a
# message that names the file and the line, and no crash; of the hand-made ones nine in ten must be told how to mend it.
# CORPUS=n sets how many are tried in all (200; the hand-made ones always).
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
hand=0 mutants=0 hints=0 failed=0
tab=$(printf '\t')
bad() {
    failed=$((failed + 1))
    echo "not ok: $*"
    head -n 3 "$work/err"
}

# check FILE [OPTION]: no crash, exit code 2, nothing but mistakes of this file, each in one line.
check() {
    timeout 20 "$SLUICE_BUILD/sluice" check "$@" >"$work/out" 2>"$work/err"
    code=$?
    if [ $code != 2 ] || [ -s "$work/out" ]; then
        bad "$1: exit code $code instead of 2"
    elif sed '$d' "$work/err" | grep -qv "^$1[: ]" || ! tail -n 1 "$work/err" | grep -q '^[0-9]* mistakes*$'; then
        bad "$1: another form of message"
    else
        return 0
    fi
    return 1
}

corpus=$SLUICE_TEST_DATA/corpus/pipelines
while IFS=$tab read -r file line hint; do
    hand=$((hand + 1))
    check "$corpus/$file" || continue
    where=:$line:
    [ "$line" != 0 ] || where=:
    grep -aF "$corpus/$file$where" "$work/err" >"$work/here" || { bad "$file: line $line is wanted"; continue; }
    if grep -qF -- "$hint" "$work/here"; then
        hints=$((hints + 1))
    else
        echo "no hint '$hint': $(sed "s|^$corpus/||" "$work/here")"
    fi
done <"$corpus/expected.tsv"
echo "$hand made by hand, $hints told how to mend it"
[ $((hints * 10)) -ge $((hand * 9)) ] || bad "fewer than nine hints in ten"

number=0
while [ $((hand + mutants)) -lt "${CORPUS:-200}" ]; do
    for original in "$SLUICE_SOURCE"/pipelines/*.cfg; do
        [ $((hand + mutants)) -lt "${CORPUS:-200}" ] || break
        number=$((number + 1))
        awk -v seed=$number -v kind=$((number * 7 % 16)) -f "$SLUICE_TEST_DATA/corpus/mutate.awk" "$original" \
            >"$work/mutant.cfg" 2>"$work/what"
        read -r line how what <"$work/what"
        [ -n "$line" ] || continue # this file has no place for this mistake
        mutants=$((mutants + 1))
        check "$work/mutant.cfg" --no-files || { echo "    ($(basename "$original"), number $number: $what in line $line)"; continue; }
        # A comma that is missing shows in the next line that holds something, a bracket anywhere behind or where its pair stands.
        if ! awk -v line="$line" -v how="$how" -v name="$work/mutant.cfg:" '
            NR == FNR { if ($0 !~ /^ *(#.*)?$/ && FNR > line && !next_line) next_line = FNR; next }
            index($0, name) == 1 {
                split(substr($0, length(name) + 1), at, ":")
                found += how == "exact" ? at[1] == line : how == "next" ? at[1] == line || at[1] == next_line : at[1] >= line || /never closed/
            }
            END { exit !found }' "$work/mutant.cfg" "$work/err"; then
            bad "$(basename "$original"), number $number: $what in line $line"
        fi
    done
done
echo "$((hand + mutants)) malformed files, $failed failed"
[ $failed = 0 ]
