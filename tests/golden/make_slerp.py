#!/usr/bin/env python3
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
"""Goldens of tests/test_average_slerp.c: WARP's merge (Ramé et al. 2024, arXiv:2406.16768, section 3) in numpy's float64.

Written from the paper, tensor names and all from the .safetensors of tests/golden/checkpoint/: task vectors from `tied`, one
angle for all tensors of a transformer layer, more than two models by recursion with 1/k, then eta of the way.

    slerp-2.values   second, bf16-third                    eta 1
    slerp-3.values   second, bf16-third, tied/2 - second/4    eta 0.3

float32, in the order of model/weights.h, as the other .values there.
"""
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent / "checkpoint"


def weights(name):
    return {key: value.to(torch.float64).numpy() for key, value in load_file(HERE / name / "model.safetensors").items()}


def layer(name):
    inside = re.match(r"model\.layers\.(\d+)\.", name)
    return inside[1] if inside else name


def slerp(a, b, share):
    """Of two dictionaries of arrays that are one vector."""
    dot = lambda x, y: sum(float((x[k] * y[k]).sum()) for k in x)
    angle = np.arccos(np.clip(dot(a, b) / np.sqrt(dot(a, a) * dot(b, b)), -1, 1))
    return {k: (np.sin((1 - share) * angle) * a[k] + np.sin(share * angle) * b[k]) / np.sin(angle) for k in a}


def warp(base, models, eta):
    out = {}
    for group in sorted({layer(name) for name in base}):
        names = [name for name in base if layer(name) == group]
        vectors = [{name: model[name] - base[name] for name in names} for model in models]
        merged = vectors[0]
        for k in range(2, len(vectors) + 1):
            merged = slerp(merged, vectors[k - 1], 1 / k)
        out.update({name: (1 - eta) * base[name] + eta * (base[name] + merged[name]) for name in names})
    return out


def write(name, values):
    names = ["model.embed_tokens.weight"]
    for i in range(2):
        at = f"model.layers.{i}."
        names += [at + "input_layernorm.weight"] + [f"{at}self_attn.{x}_proj.weight" for x in "qkvo"]
        names += [at + "post_attention_layernorm.weight"] + [f"{at}mlp.{x}_proj.weight" for x in ("gate", "up", "down")]
    names.append("model.norm.weight")
    assert sorted(names) == sorted(values)
    (HERE / f"{name}.values").write_bytes(np.concatenate([values[n].ravel() for n in names]).astype(np.float32).tobytes())


base, second, third = weights("tied"), weights("second"), weights("bf16-third")
fourth = {k: (base[k] / 2 - second[k] / 4).astype(np.float32).astype(np.float64) for k in base}
write("slerp-2", warp(base, [second, third], 1.0))
write("slerp-3", warp(base, [second, third, fourth], 0.3))
