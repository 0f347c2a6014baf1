# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
"""How far PyTorch's own bf16 attention is from the exact result: tests/golden/attention_bf16.txt.

The inputs are those of tests/cuda/test_attention.c (function `numbers`), rounded to bf16. Each line: T, heads, kv_heads,
head_dim, then the root mean square error over the root mean square of the exact result (float64 on the same inputs) for
the output, dq, dk and dv. Run: python3 attention_bf16.py > attention_bf16.txt
"""
import numpy as np
import torch
import torch.nn.functional as F


def numbers(n, scale, seed):
    i = np.arange(n, dtype=np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    h = (i * np.uint64(2654435761) + np.uint64(seed * 40503)) & mask
    h = ((h ^ h >> np.uint64(15)) * np.uint64(2246822519)) & mask
    h = ((h ^ h >> np.uint64(13)) * np.uint64(3266489917)) & mask
    h ^= h >> np.uint64(16)
    return np.float32(scale) * ((h >> np.uint64(8)).astype(np.float32) / np.float32(8388608.0) - np.float32(1))


def run(qkv, dout, T, H, K, D, dtype):
    x = qkv.to(dtype).clone().requires_grad_(True)
    q, k, v = x.split([H * D, K * D, K * D], dim=1)
    heads = lambda t, n: t.reshape(T, n, D).transpose(0, 1).unsqueeze(0)
    k, v = (heads(t, K).repeat_interleave(H // K, dim=1) for t in (k, v))
    if dtype == torch.float64:
        s = (heads(q, H) @ k.transpose(-1, -2)) * D**-0.5
        s = s.masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf"))
        out = s.softmax(-1) @ v
    else:
        out = F.scaled_dot_product_attention(heads(q, H), k, v, is_causal=True, scale=D**-0.5)
    out = out[0].transpose(0, 1).reshape(T, H * D)
    out.backward(dout.to(dtype))
    return [t.double() for t in (out.detach(), *x.grad.split([H * D, K * D, K * D], dim=1))]


print("# torch", torch.__version__, "scaled_dot_product_attention on the CPU: T heads kv_heads head_dim out dq dk dv")
for T, H, K, D in [(130, 2, 2, 64), (96, 4, 2, 32), (70, 2, 1, 128)]:
    qkv = torch.from_numpy(numbers(T * (H + 2 * K) * D, 1, 1)).reshape(T, -1).bfloat16()
    dout = torch.from_numpy(numbers(T * H * D, 1, 2)).reshape(T, -1).bfloat16()
    exact, theirs = run(qkv, dout, T, H, K, D, torch.float64), run(qkv, dout, T, H, K, D, torch.bfloat16)
    error = [float((a - b).square().mean().sqrt() / b.square().mean().sqrt()) for a, b in zip(theirs, exact)]
    print(T, H, K, D, *("%.3e" % e for e in error))
