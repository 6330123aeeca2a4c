#!/bin/sh
# transformers 5.17.0 with torch 2.13.0: with `gradient_checkpointing_enable` the layers run twice, and the second run, in the
# backward pass, does not see what was set around the forward pass. An attention function that is told something by a ContextVar
# (the lengths of packed sequences, say) finds it in the forward pass alone: the block that set it has ended by then. What travels
# as an argument of the layer is kept: an attention mask of four dimensions is passed on as it is, whatever its shape and type,
# and is there in both runs.
# Seen on 2026-12-01, two layers: "forward: variable set 2 of 2, mask of whole numbers 2 of 2; backward: variable set 0 of 2, mask
# of whole numbers 2 of 2".
# Needs Linux, Python 3.11 or newer; installs into a temporary folder and leaves nothing. Exit status 0: still so; 1: it changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.17.0 numpy
cat > "$work/runs.py" <<'END'
"""What an attention function is told in the forward pass and in the recomputation of gradient checkpointing."""
import sys
from contextvars import ContextVar

import torch
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

lengths = ContextVar("lengths", default=None)
seen = []


def attention(module, query, key, value, attention_mask, **options):
    whole = attention_mask is not None and attention_mask.dtype == torch.int64 and attention_mask.flatten().tolist() == [3, 5]
    seen.append((lengths.get() is not None, whole))
    return sdpa_attention_forward(module, query, key, value, None, **options)


AttentionInterface.register("told", attention)
config = LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
model = LlamaForCausalLM(config).train()
model.set_attn_implementation("told")
model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
token = lengths.set([3, 5])
mask = torch.tensor([3, 5]).view(1, 1, 1, 2)
loss = model.get_decoder()(input_ids=torch.arange(8).unsqueeze(0), attention_mask=mask, use_cache=False).last_hidden_state.sum()
lengths.reset(token)
forward = len(seen)
loss.backward()
told = []
for name, calls in (("forward", seen[:forward]), ("backward", seen[forward:])):
    variable, whole = (sum(column) for column in zip(*calls))
    told.append(f"{name}: variable set {variable} of {len(calls)}, mask of whole numbers {whole} of {len(calls)}")
print("; ".join(told))
sys.exit("; ".join(told) != "forward: variable set 2 of 2, mask of whole numbers 2 of 2; "
         "backward: variable set 0 of 2, mask of whole numbers 2 of 2")
END
"$work/venv/bin/python" "$work/runs.py"
