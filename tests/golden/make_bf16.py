"""Golden files of bfloat16 arithmetic: what float64 computes from small models whose weights are bfloat16 numbers, and how
far PyTorch's own bfloat16 is from that.

    python make_bf16.py             needs torch and transformers; writes bf16/ beside this script

Weights and tokens are made from integers by `stream`, which tests/test_bf16.c makes again, so only results are stored.
For each model: NAME/config.json; NAME.json with PyTorch's error (root of the mean square) per tensor; NAME.bin with
float32 values: log-probabilities, sampled logits, sampled gradients of Σ c_t log p_t tensor by tensor, and what three
AdamW steps change. The float64 results have weights as float64 masters; PyTorch's are those of the usual mixed precision:
a bfloat16 model, gradients in bfloat16, float32 masters that are rounded into the model after each step.
"""
import json, os, struct
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

HERE = os.path.dirname(os.path.abspath(__file__))
COMMON = dict(max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None, attn_implementation="sdpa",
              rope_parameters=dict(rope_type="default", rope_theta=10.0))
MODELS = {
    "grouped": (LlamaForCausalLM, LlamaConfig(  # grouped heads, tied
        vocab_size=160, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, **COMMON)),
    "untied": (LlamaForCausalLM, LlamaConfig(  # one key head, a head size of its own, every bias
        vocab_size=144, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, head_dim=32, tie_word_embeddings=False, attention_bias=True, mlp_bias=True, **COMMON)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(  # biases on q, k and v alone
        vocab_size=128, hidden_size=64, intermediate_size=112, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=True, **COMMON)),
}
GROUPS = [(9, [30, 25]), (33, [21, 40, 18]), (1, [37]), (16, [24, 24])]  # prompt, answers
SAMPLES, LR, DECAY, STEPS = 160, 1e-3, 0.01, 3
EPSILON = 2.0  # of a gradient's size: with 1e-8 an element whose gradient is rounding noise moves by lr either way
MASK = (1 << 64) - 1


def stream(seed):
    """SplitMix64 (Steele, Lea and Flood 2014)."""
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def fill(model, order):
    """Bytes become numbers that bfloat16 holds: ±0.25 in steps of 2⁻⁹ for matrices and biases, 1 ± 0.25 for norms."""
    state = dict(model.named_parameters())
    with torch.no_grad():
        for index, name in enumerate(order):
            s, p = stream(1000 + index), state[name]
            raw = torch.tensor([next(s) >> 56 for _ in range(p.numel())], dtype=torch.float64).view_as(p)
            norm = p.dim() == 1 and name.endswith("norm.weight")
            p.copy_(1 + torch.floor((raw - 128) / 4) / 128 if norm else (2 * raw - 255) / 1024)


def layout_order(config, biases):
    """The order of model/weights.h."""
    names = ["model.embed_tokens.weight"]
    for i in range(config.num_hidden_layers):
        p = f"model.layers.{i}."
        qkv = [p + f"self_attn.{x}_proj." for x in "qkv"]
        names += [p + "input_layernorm.weight"] + [x + "weight" for x in qkv]
        names += [x + "bias" for x in qkv if x + "bias" in biases]
        names += [p + "self_attn.o_proj.weight"] + [x for x in [p + "self_attn.o_proj.bias"] if x in biases]
        names += [p + "post_attention_layernorm.weight", p + "mlp.gate_proj.weight", p + "mlp.up_proj.weight"]
        names += [x for x in [p + "mlp.gate_proj.bias", p + "mlp.up_proj.bias"] if x in biases]
        names += [p + "mlp.down_proj.weight"] + [x for x in [p + "mlp.down_proj.bias"] if x in biases]
    return names + ["model.norm.weight"] + ([] if config.tie_word_embeddings else ["lm_head.weight"])


def make_groups(vocab):
    s = stream(7)
    draw = lambda n: [next(s) % vocab for _ in range(n)]
    groups = []
    for prompt, answers in GROUPS:
        group = dict(prompt=draw(prompt), completions=[draw(n) for n in answers])
        group["weights"] = [[(next(s) % 255 - 127) / 64 for _ in range(n)] for n in answers]
        groups.append(group)
    return groups


def all_logits(model, groups):
    """Rows that predict completions' tokens, and those tokens."""
    rows, targets = [], []
    for group in groups:
        for completion in group["completions"]:
            sequence = group["prompt"] + completion
            logits = model(torch.tensor([sequence])).logits[0]
            rows.append(logits[len(group["prompt"]) - 1:-1])
            targets += completion
    return torch.cat(rows), torch.tensor(targets)


def score(model, groups, precise):
    logits, targets = all_logits(model, groups)
    wide = logits.double() if precise else logits.float()
    return logits, torch.gather(F.log_softmax(wide, -1), 1, targets[:, None])[:, 0]


def coefficients(groups):
    return torch.tensor([w for g in groups for ws in g["weights"] for w in ws])


def gradients(model, groups, order, precise):
    model.zero_grad()
    _, logps = score(model, groups, precise)
    (coefficients(groups).to(logps.dtype) * logps).sum().backward()
    named = dict(model.named_parameters())
    return {n: named[n].grad.detach().double().clone() for n in order}


def three_steps(model, groups, order, precise):
    named = dict(model.named_parameters())
    kind = torch.float64 if precise else torch.float32
    masters = {n: named[n].detach().to(kind).clone().requires_grad_() for n in order}
    start = {n: named[n].detach().clone() for n in order}
    optimizer = torch.optim.AdamW([
        dict(params=[m for m in masters.values() if m.dim() > 1], weight_decay=DECAY),
        dict(params=[m for m in masters.values() if m.dim() == 1], weight_decay=0.0)], lr=LR, betas=(0.9, 0.999), eps=EPSILON)
    for _ in range(STEPS):
        for n, g in gradients(model, groups, order, precise).items():
            masters[n].grad = g.to(kind)
        optimizer.step()
        with torch.no_grad():
            for n in order:
                named[n].copy_(masters[n])
    change = {n: masters[n].detach().double() - start[n].double() for n in order}
    with torch.no_grad():
        for n in order:
            named[n].copy_(start[n])
    return change


def norm(self, x):
    """transformers computes this in float32 whatever the model's dtype is; the oracle does not."""
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


def sample(values):
    flat = values.flatten()
    stride = max(1, flat.numel() // SAMPLES)
    return flat[::stride][:SAMPLES]


def rms(x):
    return x.double().pow(2).mean().sqrt().item()


ORIGINALS = [(c, c.forward) for c in (LlamaRMSNorm, Qwen2RMSNorm)]
torch.set_num_threads(2)
for name, (kind, config) in MODELS.items():
    folder = os.path.join(HERE, "bf16", name)
    os.makedirs(folder, exist_ok=True)
    model = kind(config).double()
    order = layout_order(config, {n for n, _ in model.named_parameters() if n.endswith("bias")})
    assert sorted(order) == sorted(n for n, _ in model.named_parameters())
    fill(model, order)
    groups = make_groups(config.vocab_size)
    for c, _ in ORIGINALS:
        c.forward = norm
    logits, logps = (x.detach() for x in score(model, groups, True))
    gradient, change = gradients(model, groups, order, True), three_steps(model, groups, order, True)
    for c, original in ORIGINALS:
        c.forward = original
    half = model.to(torch.bfloat16)
    half_logits, half_logps = (x.detach() for x in score(half, groups, False))
    half_gradient, half_change = gradients(half, groups, order, False), three_steps(half, groups, order, False)
    config.dtype = "bfloat16"
    config.architectures = [kind.__name__]
    config.to_json_file(os.path.join(folder, "config.json"), use_diff=False)
    errors = dict(logits=rms(half_logits.double() - logits), logps=rms(half_logps.double() - logps),
                  gradient={n: rms(half_gradient[n] - gradient[n]) for n in order},
                  change={n: rms(half_change[n] - change[n]) for n in order})
    json.dump(dict(groups=groups, samples=SAMPLES, lr=LR, decay=DECAY, epsilon=EPSILON, steps=STEPS, errors=errors),
              open(os.path.join(HERE, "bf16", name + ".json"), "w"), separators=(",", ":"))
    values = [logps, sample(logits)] + [sample(gradient[n]) for n in order] + [sample(change[n]) for n in order]
    flat = torch.cat([v.double() for v in values]).tolist()
    open(os.path.join(HERE, "bf16", name + ".bin"), "wb").write(struct.pack(f"<{len(flat)}f", *flat))
    print(name, sum(p.numel() for p in half.parameters()), "logits", errors["logits"], "of", rms(logits),
          "typical gradient", sorted(rms(gradient[n]) for n in order)[len(order) // 2], "worst", max(errors["gradient"][n] / rms(gradient[n]) for n in order))
