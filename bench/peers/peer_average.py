"""The mean of checkpoints, the way a script does it: load every state dict, add in float32, save in the checkpoints' own dtype.

    python peer_average.py OUT MODEL MODEL…              prints seconds, reading and writing included
    python peer_average.py --copies DIR MODEL COUNT      makes COUNT checkpoints that differ a little, to average
"""
import os, shutil, sys, time, torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(2)
if sys.argv[1] == "--copies":
    folder, model, count = sys.argv[2], sys.argv[3], int(sys.argv[4])
    weights = load_file(os.path.join(model, "model.safetensors"))
    for i in range(count):
        torch.manual_seed(i)
        to = os.path.join(folder, str(i))
        os.makedirs(to, exist_ok=True)
        for name in os.listdir(model):
            if not name.endswith(".safetensors"):
                shutil.copy(os.path.join(model, name), to)
        moved = {k: (w.float() + 1e-3 * torch.randn(w.shape)).to(w.dtype) for k, w in weights.items()}
        save_file(moved, os.path.join(to, "model.safetensors"), metadata={"format": "pt"})
else:
    out, models = sys.argv[1], sys.argv[2:]
    times = []
    for _ in range(3):
        start = time.time()
        total = None
        for m in models:
            w = load_file(os.path.join(m, "model.safetensors"))
            if total is None:
                kinds = {k: t.dtype for k, t in w.items()}
                total = {k: t.float() for k, t in w.items()}
            else:
                for k, t in w.items():
                    total[k] += t.float()
        os.makedirs(out, exist_ok=True)
        save_file({k: (t / len(models)).to(kinds[k]) for k, t in total.items()}, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
        times.append(time.time() - start)
    print(f"average torch {len(models)} checkpoints: {sorted(times)[1]:.3f} s")
