# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
"""Losses and derivatives by TRL's formulas (trl 1.16, dpo_trainer.py), in float64 with autograd; and rank correlations by scipy.

    python tests/golden/make_losses.py tests/golden

losses.txt: loss beta average p | policy and reference of chosen, their length, policy and reference of rejected, their length |
            loss, d loss / d chosen's policy, d loss / d rejected's policy
rewards.txt: outputs p margin center | outputs of chosen | of rejected | loss | its derivatives by those of chosen | of rejected
ranks.txt:  n | x | y | kendall tau-a, tau-b, spearman (nan where scipy has none)
"""
import sys
import numpy as np
import scipy.stats
import torch
import torch.nn.functional as F


def losses(out):
    rng = np.random.default_rng(1)
    cases = [(name, beta, avg, p) for name, avg in (("dpo", "-"), ("ipo", "sum"), ("ipo", "mean"))
             for beta in (0.01, 0.1, 1.0, 5.0) for p in (1.0, 0.9, 0.5, 0.27, 0.0)]
    for name, beta, avg, p in cases:
        for scale in (1, 10, 100):
            pw, rw, pl, rl = (-rng.random(4) * scale * 3).tolist()
            nw, nl = rng.integers(1, 40, 2).tolist()
            w = torch.tensor(pw, dtype=torch.float64, requires_grad=True)
            l = torch.tensor(pl, dtype=torch.float64, requires_grad=True)
            chosen, rejected = w - rw, l - rl
            if name == "dpo":  # label_smoothing = 1 - p, as in TRL's cDPO
                delta = chosen - rejected
                loss = -F.logsigmoid(beta * delta) * p - F.logsigmoid(-beta * delta) * (1 - p)
            else:
                delta = chosen / nw - rejected / nl if avg == "mean" else chosen - rejected
                loss = p * (delta - 1 / (2 * beta)) ** 2 + (1 - p) * (-delta - 1 / (2 * beta)) ** 2
            loss.backward()
            values = [pw, rw, nw, pl, rl, nl, loss.item(), w.grad.item(), l.grad.item()]
            out.write(" ".join([name, repr(beta), avg, repr(p)] + [repr(v) for v in values]) + "\n")


def rewards(out):
    """TRL's RewardTrainer (reward_trainer.py, compute_loss) for each output of a head, with soft labels."""
    rng = np.random.default_rng(3)
    for heads in (1, 3):
        for margin in (0.0, 0.7):
            for center in (0.0, 0.01, 1.0):
                for p in (1.0, 0.75, 0.5, 0.1):
                    for scale in (0.1, 3, 50):
                        w = torch.tensor(rng.normal(size=heads) * scale, requires_grad=True)
                        l = torch.tensor(rng.normal(size=heads) * scale, requires_grad=True)
                        each = p * -F.logsigmoid(w - l - margin) + (1 - p) * -F.logsigmoid(l - w - margin)
                        loss = each.mean() + center * torch.mean((w + l) ** 2)
                        loss.backward()
                        values = [*w.tolist(), *l.tolist(), loss.item(), *w.grad.tolist(), *l.grad.tolist()]
                        out.write(" ".join([str(heads)] + [repr(v) for v in [p, margin, center, *values]]) + "\n")


def tau_a(x, y):
    n = len(x)
    return sum(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i in range(n) for j in range(i)) / (n * (n - 1) / 2)


def ranks(out):
    rng = np.random.default_rng(2)
    for n in (2, 3, 4, 5, 8, 16):
        for levels in (0, 2, 3, 6):  # 0: no ties
            for _ in range(6):
                x, y = ((rng.normal(size=n) if levels == 0 else rng.integers(0, levels, n).astype(float)) for _ in range(2))
                if len(set(x)) < 2 or len(set(y)) < 2:
                    a = b = s = float("nan")
                else:
                    a, b, s = tau_a(x, y), scipy.stats.kendalltau(x, y).statistic, scipy.stats.spearmanr(x, y).statistic
                    if levels == 0:
                        assert abs(a - b) < 1e-12
                out.write(" ".join([str(n)] + [repr(float(v)) for v in [*x, *y, a, b, s]]) + "\n")


if __name__ == "__main__":
    with open(sys.argv[1] + "/losses.txt", "w") as f:
        losses(f)
    with open(sys.argv[1] + "/rewards.txt", "w") as f:
        rewards(f)
    with open(sys.argv[1] + "/ranks.txt", "w") as f:
        ranks(f)
