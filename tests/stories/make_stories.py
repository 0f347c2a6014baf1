"""Story openings (prompts.jsonl) and openings with continuations (seeds.jsonl) in the manner of children's stories, from
a few lists of words: `python tests/stories/make_stories.py`."""
import itertools
import json
import pathlib
import random

here = pathlib.Path(__file__).parent
rng = random.Random(5)
who = ["boy named Tom", "girl named Lily", "little dog named Max", "cat named Mia", "bird named Pip", "bear named Ben"]
where = ["in the park", "in a big house", "near a tree", "by the sea", "in the garden"]
what = ["a red ball", "a small box", "a shiny stone", "a big cake", "a sad frog", "a lost toy"]
starts = ["Once upon a time, there was a {who}.", "One day, a {who} was playing {where}.",
          "There was a {who} who lived {where}. One day,"]
ends = [" {n} found {what}. {n} was very happy and ran home to show it to mom.",
        " {n} wanted to play. {n} saw {what} {where} and smiled.",
        " {n} saw {what}. \"Can I help?\" said {n}. They became good friends."]
all_ = list(itertools.product(starts, who, where))
rng.shuffle(all_)
prompts, seeds = [], []
for i, (s, w, p) in enumerate(all_):
    text = s.format(who=w, where=p)
    if i < 48 and text not in prompts:
        prompts.append(text)
    elif i >= 48 and len(seeds) < 24 and text not in prompts:
        seeds.append((text, rng.choice(ends).format(n=w.split()[-1], what=rng.choice(what), where=rng.choice(where))))
with open(here / "prompts.jsonl", "w") as f:
    for i, p in enumerate(prompts):
        f.write(json.dumps({"id": f"opening-{i}", "prompt": p}) + "\n")
with open(here / "seeds.jsonl", "w") as f:
    for i, (p, c) in enumerate(seeds):
        f.write(json.dumps({"id": f"seed-{i}", "prompt": p, "completion": c}) + "\n")
print(len(prompts), len(seeds))
