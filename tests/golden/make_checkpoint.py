#!/usr/bin/env python3
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
"""Goldens of tests/test_checkpoint.c, made by transformers, torch and numpy.

    make_checkpoint.py                writes tests/golden/checkpoint/
    make_checkpoint.py same A B       loads two folders in transformers and compares every parameter to the bit
    make_checkpoint.py loads A        loads one folder in transformers and runs it

checkpoint/NAME/ is a small random model saved by transformers, checkpoint/NAME.values its parameters as float32 in the
order of model/weights.h. mean, weighted and running.values average `tied`, `second` and `bf16-third` in numpy's float32.
rope.json has inverse frequencies, dtype.values triples (float32 bits, bfloat16 bits, float16 bits).
"""
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedTokenizerFast, Qwen2Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

OUT = Path(__file__).parent / "checkpoint"
SHAPE = dict(vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=1, max_position_embeddings=64, bos_token_id=1, eos_token_id=2)


def tokenizer():
    vocab = {word: i for i, word in enumerate("<unk> <s> </s> a b c d e f g h i j k l m".split())}
    inner = Tokenizer(WordLevel(vocab, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def in_order(model):
    """Every parameter as float32, in the order of model/weights.h."""
    state = {name: value.detach().float().numpy() for name, value in model.state_dict().items()}
    config, names = model.config, ["model.embed_tokens.weight"]
    for i in range(config.num_hidden_layers):
        attention, mlp = f"model.layers.{i}.self_attn.", f"model.layers.{i}.mlp."
        names.append(f"model.layers.{i}.input_layernorm.weight")
        names += [f"{attention}{x}_proj.{kind}" for kind in ("weight", "bias") for x in "qkv"]
        names += [f"{attention}o_proj.weight", f"{attention}o_proj.bias", f"model.layers.{i}.post_attention_layernorm.weight"]
        names += [f"{mlp}{x}_proj.{kind}" for kind in ("weight", "bias") for x in ("gate", "up")]
        names += [f"{mlp}down_proj.weight", f"{mlp}down_proj.bias"]
    names.append("model.norm.weight")
    if not config.tie_word_embeddings:
        names.append("lm_head.weight")
    parts = [state.pop(name).ravel() for name in names if name in state]
    state.pop("lm_head.weight", None)
    assert not state, state.keys()
    return np.concatenate(parts)


def write(name, config, seed, dtype=torch.float32, **save):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too, so that none is mistaken for another
            parameter.copy_(torch.randn_like(parameter, dtype=torch.float32))
    model.save_pretrained(OUT / name, **save)
    tokenizer().save_pretrained(OUT / name)
    values = in_order(model)
    (OUT / f"{name}.values").write_bytes(values.tobytes())
    return values


def averages(a, b, c):
    a, b, c = (x.astype(np.float32) for x in (a, b, c))
    weight = np.array([1.0, 2.5, 0.5])
    share = (weight / weight.sum()).astype(np.float32)
    keep, move = np.float32(1 - 0.3), np.float32(0.3)
    running = a
    for theta in (b, c):
        running = keep * running + move * theta
    for name, value in (("mean", (a + b + c) / np.float32(3)),
                        ("weighted", share[0] * a + share[1] * b + share[2] * c), ("running", running)):
        assert value.dtype == np.float32
        (OUT / f"{name}.values").write_bytes(value.tobytes())


def ropes():
    llama3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=256)
    cases = [dict(), dict(rope_theta=500000.0), dict(rope_theta=20000, rope_scaling=dict(type="linear", factor=4.0)),
             dict(rope_theta=500000.0, rope_scaling=dict(rope_type="llama3", **llama3)),
             dict(rope_parameters=dict(rope_type="default", rope_theta=1e6)),
             dict(rope_parameters=dict(rope_type="linear", rope_theta=5000.0, factor=2.5)),
             dict(rope_parameters=dict(rope_type="llama3", rope_theta=500000.0, **llama3))]
    out = []
    for case in cases:
        fields = dict(SHAPE, head_dim=32, max_position_embeddings=2048, **case)
        rotary = LlamaRotaryEmbedding(LlamaConfig(**json.loads(json.dumps(fields))))
        out.append(dict(config=dict(model_type="llama", **fields), frequency=[float(x) for x in rotary.inv_freq]))
    (OUT / "rope.json").write_text(json.dumps(dict(cases=out), indent=1) + "\n")


def dtypes():
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 2**32, 400, dtype=np.uint32)
    halves = rng.integers(0, 0x7C00, 200, dtype=np.uint16).view(np.float16).astype(np.float32)
    step = halves.view(np.uint32)
    ties = np.concatenate([step + 0x1000, step + 0x1001, step + 0x0FFF, step, bits & 0xFFFF0000 | 0x8000])
    tiny = (np.arange(64, dtype=np.float64) * 2.0**-26).astype(np.float32).view(np.uint32)
    edges = np.array([65504, 65519.996, -65504, 2**-24, 2**-25, 2**-25 * 1.0001, 2**-14, 0, -0.0, 3.3e38],
                     dtype=np.float32).view(np.uint32)
    values = np.concatenate([bits, ties, tiny, edges]).astype(np.uint32).view(np.float32)
    values = values[np.isfinite(values)]
    torch_values = torch.from_numpy(values.copy())
    bf16 = torch_values.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    f16 = torch_values.to(torch.float16).view(torch.int16).numpy().view(np.uint16)
    table = np.stack([values.view(np.uint32), bf16.astype(np.uint32), f16.astype(np.uint32)], 1)
    (OUT / "dtype.values").write_bytes(table.astype(np.uint32).tobytes())


def make():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    a = write("tied", LlamaConfig(**SHAPE, head_dim=6, tie_word_embeddings=True), 1)
    b = write("second", LlamaConfig(**SHAPE, head_dim=6, tie_word_embeddings=True), 2)
    c = write("bf16-third", LlamaConfig(**SHAPE, head_dim=6, tie_word_embeddings=True), 3, torch.bfloat16)
    averages(a, b, c)
    write("untied", LlamaConfig(**SHAPE, tie_word_embeddings=False), 4)
    write("biases", LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True), 5, torch.bfloat16)
    write("f16", LlamaConfig(**SHAPE, head_dim=2, tie_word_embeddings=True), 6, torch.float16)
    write("shards", LlamaConfig(**SHAPE, head_dim=6), 7, torch.bfloat16, max_shard_size="2KB")
    write("qwen2", Qwen2Config(**SHAPE, tie_word_embeddings=True), 8, torch.bfloat16)
    write("mistral", MistralConfig(**SHAPE, sliding_window=None), 9, torch.bfloat16)
    ropes()
    dtypes()


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype="auto")


if __name__ == "__main__":
    if sys.argv[1:2] == ["same"]:
        one, two = (load(path).state_dict() for path in sys.argv[2:4])
        assert one.keys() == two.keys()
        for key in one:
            assert torch.equal(one[key].float(), two[key].float()), key
        print("same")
    elif sys.argv[1:2] == ["loads"]:
        logits = load(sys.argv[2])(torch.tensor([[1, 3, 4]])).logits
        assert torch.isfinite(logits).all()
        print("loads", tuple(logits.shape), logits.dtype)
    else:
        make()
