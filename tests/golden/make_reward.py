# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
"""Golden files of reward models: what transformers and PyTorch compute from a …ForSequenceClassification in float64.

    python make_reward.py           needs torch, transformers, safetensors; reads model/ beside this script and writes there

For a body of model/: reward/ (the folder as transformers saves it, float32, and reward.json: tokens, values, pairs) and
reward-steps/: what three AdamW steps of the Bradley-Terry loss change (TRL's formula, with soft labels, weights, margin and
centring), as a folder of the same layout. With the body frozen only the head changes: that stands in reward.json.
"""
import json, os, shutil
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import LlamaForSequenceClassification, Qwen2ForSequenceClassification
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

HERE = os.path.dirname(os.path.abspath(__file__))
LR, STEPS, DECAY, CLIP, CENTER = 1e-3, 3, 0.01, 1.0, 0.05


def norm(self, x):
    """transformers computes this in float32 whatever the model's dtype is; the oracle does not."""
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


LlamaRMSNorm.forward = norm
Qwen2RMSNorm.forward = norm


def tokens(n, vocab, generator):
    return torch.randint(3, vocab, (n,), generator=generator).tolist()


def values(model, prompt, completion):
    return model(torch.tensor([prompt + completion])).logits[0]


def loss_of(model, pairs):
    total = 0.0
    for x in pairs:
        w, l = values(model, x["prompt"], x["chosen"]), values(model, x["prompt"], x["rejected"])
        right, wrong = -F.logsigmoid(w - l - x["margin"]), -F.logsigmoid(l - w - x["margin"])
        each = x["p"] * right + (1 - x["p"]) * wrong + CENTER * (w + l) ** 2
        total = total + x["weight"] * each.mean()
    return total / len(pairs)


def three_steps(model, pairs, frozen):
    start = {k: v.detach().clone() for k, v in model.state_dict().items()}
    named = [(k, p) for k, p in model.named_parameters() if not frozen or k == "score.weight"]
    optimizer = torch.optim.AdamW([
        dict(params=[p for _, p in named if p.dim() > 1], weight_decay=DECAY),
        dict(params=[p for _, p in named if p.dim() == 1], weight_decay=0.0)], lr=LR, betas=(0.9, 0.999), eps=1e-8)
    for _ in range(STEPS):
        model.zero_grad()
        loss_of(model, pairs).backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], CLIP)
        optimizer.step()
    change = {k: v.detach() - start[k] for k, v in model.state_dict().items()}
    model.load_state_dict(start)
    return change


def make(name, cls, outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    folder = os.path.join(HERE, "model", name)
    model = cls.from_pretrained(folder, num_labels=outputs, dtype=torch.float32, attn_implementation="sdpa")
    with torch.no_grad():
        model.score.weight.copy_(0.3 * torch.randn(model.score.weight.shape, generator=generator))
    reward = os.path.join(folder, "reward")
    shutil.rmtree(reward, ignore_errors=True)
    model.save_pretrained(reward)

    model = model.double().eval()
    vocab = model.config.vocab_size
    shape = [(5, [4, 7]), (17, [1, 12, 3]), (0, [6, 1]), (1, [9]), (16, [17, 0])]
    groups = [dict(prompt=tokens(p, vocab, generator), completions=[tokens(c, vocab, generator) for c in cs]) for p, cs in shape]
    trust = [(0.9, 1.0, 0.0), (0.7, 0.5, 0.4), (1.0, 2.0, 0.0), (0.35, 1.5, 1.2)]
    pairs = [dict(prompt=tokens(4 + i, vocab, generator), chosen=tokens(6 + i, vocab, generator),
                  rejected=tokens(9 - i, vocab, generator), p=p, weight=w, margin=m) for i, (p, w, m) in enumerate(trust)]
    with torch.no_grad():
        for group in groups:
            group["values"] = [values(model, group["prompt"], c).tolist() for c in group["completions"]]
    frozen = three_steps(model, pairs, True)["score.weight"].flatten().tolist()
    with open(os.path.join(reward, "reward.json"), "w") as out:
        json.dump(dict(groups=groups, pairs=pairs, outputs=outputs, frozen=frozen, lr=LR, steps=STEPS, decay=DECAY, clip=CLIP,
                       center=CENTER), out)
    steps = os.path.join(folder, "reward-steps")
    os.makedirs(steps, exist_ok=True)
    shutil.copy(os.path.join(reward, "config.json"), steps)
    save_file({k: v.float().contiguous() for k, v in three_steps(model, pairs, False).items()},
              os.path.join(steps, "model.safetensors"), metadata={"format": "pt"})


make("grouped", LlamaForSequenceClassification, 1, 200)
make("qwen2", Qwen2ForSequenceClassification, 3, 201)
