#!/bin/sh
# Runs pipeline.cfg with the plugin of this folder, its results in a temporary one, and looks at what came out. The
# expectations at the end are those of the example: change them together with the plugin.
set -eu
sluice=${SLUICE:-sluice}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
SLUICE_PLUGIN_PATH=$PWD${SLUICE_PLUGIN_PATH:+:$SLUICE_PLUGIN_PATH}
export SLUICE_PLUGIN_PATH

# expect WHAT COMMAND...: the command succeeds.
expect() {
    what=$1
    shift
    if "$@"; then echo "ok: $what"; else echo "not ok: $what (check.sh)" >&2 && exit 1; fi
}
# number STAGE METRIC: what the stage reported.
number() { sed -n "/\"stage\":\"$1\"/s|.*\"$2\":\([-+.e0-9]*\).*|\1|p" "$out/run/metrics.jsonl" | tail -n 1; }
# holds EXPRESSION: of awk; false where a number in it was not reported.
holds() { awk "BEGIN { exit !($1) }" 2>/dev/null; }

@INCLUDE check.sh@
