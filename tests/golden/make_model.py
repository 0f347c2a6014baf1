"""Golden files of the model runtime: small random checkpoints with what PyTorch and transformers compute from them.

    python make_model.py            needs torch, transformers, safetensors; writes model/ beside this script
    python make_model.py STORIES    also stories.json: greedy decoding of the stories260K folder in float32

For each model: config.json and model.safetensors (float32), score.json (tokens, logits and log-probabilities in
float64), gradient/ (autograd's gradient of Σ c_t log p_t in float64) and sft/, dpo/, ipo/: what three AdamW steps change,
in float64, each a checkpoint folder of the same layout.
"""
import json, os, shutil, sys
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

HERE = os.path.dirname(os.path.abspath(__file__))
COMMON = dict(initializer_range=0.25, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None,
              attn_implementation="sdpa")
MODELS = {
    # grouped heads, tied
    "grouped": (LlamaForCausalLM, LlamaConfig(
        vocab_size=80, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, **COMMON)),
    # untied, head size other than hidden / heads, biases, the rotary embedding of Llama 3. theta is small so that every
    # pair of elements turns within these short sequences: otherwise softmax hides the biases of keys, and their gradient
    # is a remainder of cancelled terms
    "wide-heads": (LlamaForCausalLM, LlamaConfig(
        vocab_size=70, hidden_size=24, intermediate_size=36, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=1, head_dim=16, tie_word_embeddings=False, attention_bias=True, mlp_bias=True,
        rope_parameters=dict(rope_type="llama3", rope_theta=10.0, factor=2.0, low_freq_factor=1.0,
                             high_freq_factor=4.0, original_max_position_embeddings=16), **COMMON)),
    # Qwen2: biases on q, k and v alone
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=10.0),
        **COMMON)),
}


def norm(self, x):
    """transformers computes this in float32 whatever the model's dtype is; the oracle does not."""
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


ORIGINAL = LlamaRMSNorm.forward
LlamaRMSNorm.forward = norm
Qwen2RMSNorm.forward = norm

LR, BETA, STEPS, DECAY, CLIP = 1e-3, 0.5, 3, 0.01, 1.0


def tokens(n, vocab, generator):
    return torch.randint(3, vocab, (n,), generator=generator).tolist()


def make_groups(vocab, generator):
    """Prompts of several lengths (one empty), each with completions of several lengths."""
    shape = [(5, [4, 7]), (17, [1, 12, 3]), (0, [6, 1]), (1, [9]), (16, [17, 2])]
    return [dict(prompt=tokens(p, vocab, generator), completions=[tokens(c, vocab, generator) for c in cs]) for p, cs in shape]


def make_pairs(vocab, generator):
    trust = [(0.9, 1.0), (0.7, 0.5), (1.0, 2.0), (0.35, 1.5)]
    return [dict(prompt=tokens(4 + i, vocab, generator), chosen=tokens(6 + i, vocab, generator),
                 rejected=tokens(9 - i, vocab, generator), p=p, weight=w) for i, (p, w) in enumerate(trust)]


def logits(model, sequence):
    return model(torch.tensor([sequence])).logits[0]


def logps(model, prompt, completion):
    """Log-probability of each token of the completion; 0 for a first token that nothing stands before."""
    sequence = prompt + completion
    lp = F.log_softmax(logits(model, sequence), -1)
    at = range(len(prompt), len(sequence))
    return torch.stack([lp[i - 1, sequence[i]] if i > 0 else lp.new_zeros(()) for i in at])


def loss_of(kind, model, pairs, reference):
    total = 0.0
    for pair, ref in zip(pairs, reference):
        chosen, rejected = logps(model, pair["prompt"], pair["chosen"]), logps(model, pair["prompt"], pair["rejected"])
        p, w = pair["p"], pair["weight"]
        if kind == "sft":
            total = total - w * chosen.sum() / len(pair["chosen"])
            continue
        delta = (chosen.sum() - ref[0]) - (rejected.sum() - ref[1])
        if kind == "dpo":
            one, other = -F.logsigmoid(BETA * delta), -F.logsigmoid(-BETA * delta)
        else:  # IPO (Azar et al. 2023, eq. 17), log-ratios summed over tokens
            one, other = (delta - 1 / (2 * BETA)) ** 2, (-delta - 1 / (2 * BETA)) ** 2
        total = total + w * (p * one + (1 - p) * other)
    return total / len(pairs)


def three_steps(kind, model, pairs):
    with torch.no_grad():
        reference = [(logps(model, x["prompt"], x["chosen"]).sum(), logps(model, x["prompt"], x["rejected"]).sum()) for x in pairs]
    start = {k: v.detach().clone() for k, v in model.state_dict().items()}
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW([
        dict(params=[p for _, p in named if p.dim() > 1], weight_decay=DECAY),
        dict(params=[p for _, p in named if p.dim() == 1], weight_decay=0.0)], lr=LR, betas=(0.9, 0.999), eps=1e-8)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(kind, model, pairs, reference).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
    change = {k: v.detach() - start[k] for k, v in model.state_dict().items()}
    model.load_state_dict(start)
    return change


def write_folder(folder, config, tensors, tied):
    os.makedirs(folder, exist_ok=True)
    if os.path.dirname(config) != folder:
        shutil.copy(config, folder)
    save_file({k: v.float().contiguous() for k, v in tensors.items() if not (tied and k == "lm_head.weight")},
              os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


def make(name, cls, config, seed):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    folder = os.path.join(HERE, "model", name)
    os.makedirs(folder, exist_ok=True)
    model = cls(config).float()
    with torch.no_grad():  # norms that are not 1, biases that are not 0
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    config.dtype = "float32"
    config.architectures = [cls.__name__]
    config.save_pretrained(folder)
    path, tied = os.path.join(folder, "config.json"), config.tie_word_embeddings
    write_folder(folder, path, model.state_dict(), tied)

    model = model.double().eval()
    groups = make_groups(config.vocab_size, generator)
    first = groups[0]["prompt"] + groups[0]["completions"][0]
    total = 0.0
    for group in groups:
        group["logps"], group["weights"] = [], []
        for completion in group["completions"]:
            lp = logps(model, group["prompt"], completion)
            weight = torch.randn(len(completion), generator=generator, dtype=torch.float64)
            if not group["prompt"]:
                weight[0] = 0
            total = total + (lp * weight).sum()
            group["logps"].append([round(x, 12) for x in lp.tolist()])
            group["weights"].append(weight.float().tolist())
    total.backward()
    write_folder(os.path.join(folder, "gradient"), path, {k: p.grad for k, p in model.named_parameters()}, tied)
    model.zero_grad()
    pairs = make_pairs(config.vocab_size, generator)
    with torch.no_grad():
        table = [[float(f"{x:.9g}") for x in row] for row in logits(model, first).tolist()]
    with open(os.path.join(folder, "score.json"), "w") as out:
        json.dump(dict(sequence=first, logits=table, groups=groups, pairs=pairs, lr=LR, beta=BETA, steps=STEPS, decay=DECAY,
                       clip=CLIP), out)
    for kind in ("sft", "dpo", "ipo"):
        write_folder(os.path.join(folder, kind), path, three_steps(kind, model, pairs), tied)


def stories(folder):
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = [1, 403, 407, 261, 378]  # <s> Once upon a time
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(200):
            ids.append(int(logits(model, ids)[-1].argmax()))
    with open(os.path.join(HERE, "stories.json"), "w") as out:
        json.dump(dict(text="Once upon a time", prompt=prompt, greedy=ids[len(prompt):]), out)


if len(sys.argv) > 1:  # with transformers' own norm
    LlamaRMSNorm.forward = ORIGINAL
    stories(sys.argv[1])
    LlamaRMSNorm.forward = norm
for index, (name, (cls, config)) in enumerate(MODELS.items()):
    make(name, cls, config, 100 + index)
