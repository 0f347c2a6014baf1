#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# The tests of the kernels and of the model runtime, on a device whose memory the host cannot touch. Another device:
# SLUICE_TEST_DEVICE=plugins/cuda.so (tests/test_device.h).
set -u
SLUICE_TEST_DEVICE=${SLUICE_TEST_DEVICE:-far}
export SLUICE_TEST_DEVICE
failed=0
for program in test_kernels_ops test_kernels_bf16 test_kernels_merge test_kernels_choose test_kernels_bits \
    test_model test_bf16 test_generate test_gradient test_reward test_training; do
    "$SLUICE_BUILD/tests/$program" >"far-$program.out" 2>&1
    code=$?
    case $code in
    0) echo "ok: $program" ;;
    77) cat "far-$program.out"; exit 77 ;;
    *) echo "not ok: $program, exit code $code"; cat "far-$program.out"; failed=1 ;;
    esac
    rm -f "far-$program.out"
done
exit $failed
