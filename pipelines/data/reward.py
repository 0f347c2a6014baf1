# The reward of pipelines/judge-command.cfg: 1 for the right answer, less the further an answer's length is from it.
import json, sys

def reward(prompt, answer, meta):
    right = meta.get("answer")
    if right is None:
        return None                          # no score
    return 1.0 if answer.strip() == right else -0.1 * abs(len(answer) - len(right))

for line in sys.stdin:
    record = json.loads(line)
    scores = [reward(record.get("prompt"), c.get("text", ""), record.get("meta", {})) for c in record["candidates"]]
    print(json.dumps({"id": record["id"], "scores": scores}), flush=True)
