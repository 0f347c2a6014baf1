#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# Whole models on the emulated device: logits, log-probabilities, gradients and training steps in bfloat16 as near to
# float64 as PyTorch's, and against transformers'. Another backend's plugin: SLUICE_TEST_DEVICE=PATH/cuda.so.
set -u
SLUICE_TEST_DEVICE=${SLUICE_TEST_DEVICE:-$SLUICE_BUILD/tests/cuda/plugins/cuda.so}
export SLUICE_TEST_DEVICE
for test in tests/test_bf16 tests/test_gradient tests/test_model; do
    "$SLUICE_BUILD/$test" || exit
done
