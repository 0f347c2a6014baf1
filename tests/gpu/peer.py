# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
"""PyTorch on the same machine, to be held beside roofline.txt: its large product and copy, its attention (SDPA, pinned to
FlashAttention; cuDNN's beside it) in the shapes of our roofline, and a DPO step of Qwen2.5's shapes with random weights
at 2,048 tokens, bfloat16, SDPA attention and fused AdamW, the reference's log-probabilities known (the loop of
bench/peers/peer_train.py). All of it eager: torch.compile would take longer than all the rest.

Products, copies and attention are timed by the device, with the host ahead of it; steps by the clock, as ours are.

    python3 peer.py [cuda|cpu] [tiny]
"""
import contextlib
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
tiny = "tiny" in sys.argv
SHAPES = {  # hidden, layers, heads, key/value heads, head size, inner, vocabulary
    "tiny": (64, 2, 8, 4, 8, 172, 512),
    "0.5B": (896, 24, 14, 2, 64, 4864, 151936),
    "1.5B": (1536, 28, 12, 2, 128, 8960, 151936),
}


def wait():
    if device == "cuda":
        torch.cuda.synchronize()


def by_clock(f, calls):
    start = time.perf_counter()
    for _ in range(calls):
        f()
    wait()
    return time.perf_counter() - start


def by_device(f, calls):
    """The device first sleeps for some 20 ms, in which the host asks for all calls: its own time does not count."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(40_000_000)
    start.record()
    for _ in range(calls):
        f()
    end.record()
    end.synchronize()
    return 1e-3 * start.elapsed_time(end)


def seconds(f, calls=10, groups=5, timer=by_device if device == "cuda" else by_clock):
    for _ in range(3):
        f()
    took = []
    for _ in range(groups):
        wait()
        took.append(timer(f, calls) / calls)
    return statistics.median(took)


def pinned(backend):
    return sdpa_kernel(backend) if device == "cuda" else contextlib.nullcontext()


def limits():
    n = 512 if tiny else 8192
    a, b = (torch.randn(n, n, device=device).bfloat16() for _ in range(2))
    t = seconds(lambda: a @ b, calls=5)
    print(f"product {n} cubed, bf16        {2 * n**3 / t / 1e12:9.3f} TFLOP/s")
    x = torch.randn((1 << 20) if tiny else (1 << 29), device=device)
    y = torch.empty_like(x)
    t = seconds(lambda: y.copy_(x), calls=3)
    print(f"copy, read and written        {2 * x.numel() * 4 / t / 1e9:9.1f} GB/s")


def attention(name, label, backend):
    _, _, heads, kv, size, _, _ = SHAPES[name]
    for batch, length in ((8, 256), (1, 2048)):
        q = torch.randn(batch, heads, length, size, device=device).bfloat16().requires_grad_()
        k, v = (torch.randn(batch, kv, length, size, device=device).bfloat16().requires_grad_() for _ in range(2))
        call = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        try:
            with pinned(backend):
                with torch.no_grad():
                    forward = seconds(call)
                out = call()
                dout = torch.randn_like(out)
                backward = seconds(lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True))
        except RuntimeError as error:
            print(f"{name} {label} {batch} x {length}: not to be had: {str(error).splitlines()[0]}")
            continue
        flops = 2 * batch * length * length * heads * size
        print(f"{name} {label} {batch} x {length:<5} forward {1e6 * forward:9.1f} us {flops / forward / 1e12:8.3f} TFLOP/s, "
              f"backward {1e6 * backward:9.1f} us {2.5 * flops / backward / 1e12:8.3f} TFLOP/s", flush=True)


def step(name):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    hidden, layers, heads, kv, _, inner, vocab = SHAPES[name]
    config = Qwen2Config(vocab_size=vocab, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
                         num_attention_heads=heads, num_key_value_heads=kv, tie_word_embeddings=True,
                         attn_implementation="sdpa")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = Qwen2ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    pairs, length, prompt = 4, 256, 64
    x = torch.randint(0, vocab, (2 * pairs, length), device=device)
    mask = torch.ones(2 * pairs, length - 1, device=device)
    mask[:, : prompt - 1] = 0

    def logprobs():
        logits = model(x, use_cache=False).logits[:, :-1]
        chosen = torch.gather(logits, 2, x[:, 1:, None])[..., 0].float()
        return (chosen - torch.logsumexp(logits.float(), -1)).mul(mask).sum(1)

    attends = SDPBackend.FLASH_ATTENTION
    try:
        with torch.no_grad(), pinned(attends):
            reference = logprobs()
    except RuntimeError:  # the model gives a mask, which that kernel does not take
        attends = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH]
        with torch.no_grad(), pinned(attends):
            reference = logprobs()

    def once():
        s = logprobs() - reference
        (-F.logsigmoid(0.1 * (s[:pairs] - s[pairs:])).mean()).backward()
        adamw.step()
        adamw.zero_grad()

    with pinned(attends):
        took = seconds(once, calls=1, groups=6, timer=by_clock)
        with torch.no_grad():
            scoring = seconds(logprobs, calls=1, groups=5, timer=by_clock)
    tokens, parameters = x.numel(), sum(p.numel() for p in model.parameters())
    print(f"{name} DPO step {1e3 * took:8.2f} ms, {tokens / took:9.0f} tokens/s, "
          f"{6 * parameters * tokens / took / 1e12:8.3f} TFLOP/s (6ND); "
          f"scoring {1e3 * scoring:8.2f} ms, {2 * parameters * tokens / scoring / 1e12:8.3f} TFLOP/s (2ND); "
          f"{attends} in eager mode", flush=True)


print(f"torch {torch.__version__}, {torch.cuda.get_device_name(0) if device == 'cuda' else 'cpu'}")
limits()
for shape in ["tiny"] if tiny else ["0.5B", "1.5B"]:
    attention(shape, "SDPA", SDPBackend.FLASH_ATTENTION)
    if device == "cuda":
        attention(shape, "cuDNN", SDPBackend.CUDNN_ATTENTION)
    step(shape)
