#!/bin/sh
# transformers 5.17.0 with torch 2.13.0 on the CPU, a frozen bfloat16 model (as under adapters): `logits_to_keep=1`, which is
# there to save memory and which `generate` passes itself, makes a batch of prompts take one copy of the output head for each
# row. It slices the hidden states, [rows, length, hidden] -> [rows, 1, hidden], which is not contiguous; the product is then
# batched over the rows, with the head expanded, and bfloat16 needs it written out. The same position as an index,
# `logits_to_keep=torch.tensor([-1])`, takes none, and neither does a head that requires gradients (even under no_grad).
# Seen on 2026-11-30, head of 23 MB, 36 rows: "frozen, logits_to_keep=1: 760 MB; as an index: 0 MB; trainable, 1: 0 MB; logits equal:
# True".
# Needs Linux, Python 3.11 or newer; installs into a temporary folder and leaves nothing. Exit status 0: still so; 1: it changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.17.0 numpy
cat > "$work/forward.py" <<'END'
"""Peak memory of one forward pass over a batch of prompts: how the last logits are asked for, whether the model is frozen."""
import resource
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
torch.set_num_threads(1)
config = LlamaConfig(
    vocab_size=20_000, hidden_size=576, intermediate_size=64, num_hidden_layers=1, num_attention_heads=9
)
model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
model.requires_grad_(sys.argv[2] == "trainable")
ids = torch.randint(0, 20_000, (36, 50))
keep = 1 if sys.argv[1] == "number" else torch.tensor([-1])
with torch.no_grad():
    model.get_decoder()(input_ids=ids)  # what the layers take is not counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    logits = model(input_ids=ids, logits_to_keep=keep).logits
megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
torch.save(logits, sys.argv[3])
print(megabytes)
END
number=$("$work/venv/bin/python" "$work/forward.py" number frozen "$work/number.pt")
index=$("$work/venv/bin/python" "$work/forward.py" index frozen "$work/index.pt")
trainable=$("$work/venv/bin/python" "$work/forward.py" number trainable "$work/trainable.pt")
"$work/venv/bin/python" - "$work" "$number" "$index" "$trainable" <<'END'
import sys

import torch

work, number, index, trainable = sys.argv[1], *map(int, sys.argv[2:])
first, *others = (torch.load(f"{work}/{name}.pt").float() for name in ("number", "index", "trainable"))
equal = all(torch.allclose(first, other, atol=0.02) for other in others)
print(f"frozen, logits_to_keep=1: {number} MB; as an index: {index} MB; trainable, 1: {trainable} MB; logits equal: {equal}")
sys.exit(not (number > 400 and max(index, trainable) < 100 and equal))
END
