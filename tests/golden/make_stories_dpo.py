# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
"""Four DPO steps with soft labels (p = 0.9, beta 0.1, AdamW 1e-3) on stories260K, by transformers and PyTorch in float64.

    python tests/golden/make_stories_dpo.py FOLDER_OF_STORIES260K tests/golden

Writes stories_dpo.jsonl (the preferences) and stories_dpo.txt (step, loss, norm of the gradient, mean reward margin).
"""
import json
import sys
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

PAIRS = [
    ("Once upon a time", " there was a big dog named Tom.", " Lily saw a red ball and cried."),
    ("Lily went to the park", " and played with her friend.", " but no one ate rain."),
    ("The cat", " was happy.", " ran up up up the tree and was sad."),
    ("One day, Tim", " found a toy.", " fell."),
]
BETA, P = 0.1, 0.9


def main(folder, out):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder).double() for _ in range(2))

    def log_ratio(prompt, answer):
        before = tokenizer(prompt).input_ids
        after = tokenizer(answer, add_special_tokens=False).input_ids + [tokenizer.eos_token_id]

        def logp(model):
            rows = model(torch.tensor([before + after])).logits.log_softmax(-1)[0, len(before) - 1:-1]
            return rows.gather(1, torch.tensor(after)[:, None]).sum()

        return logp(policy) - logp(reference).detach()

    matrices = [p for p in policy.parameters() if p.dim() > 1]
    norms = [p for p in policy.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.01}, {"params": norms, "weight_decay": 0}], lr=1e-3)
    with open(out + "/stories_dpo.jsonl", "w") as f:
        for prompt, chosen, rejected in PAIRS:
            f.write(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}) + "\n")
    with open(out + "/stories_dpo.txt", "w") as f:
        for step in range(4):
            x = BETA * torch.stack([log_ratio(p, c) - log_ratio(p, r) for p, c, r in PAIRS])
            loss = (-P * F.logsigmoid(x) - (1 - P) * F.logsigmoid(-x)).mean()
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
            f.write(f"{step + 1} {loss.item():.9f} {norm.item():.9f} {x.mean().item():.9f}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
