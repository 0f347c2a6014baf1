#!/bin/sh
# Stands for the unit tests where they could not be built, so that nobody takes a short list of passes for all of them.
echo "skipped: every unit test (cmocka was not found: apt install libcmocka-dev, then configure again)"
exit 77
