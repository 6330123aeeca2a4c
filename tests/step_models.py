"""Process-reward models of others for the tests: tiny and random, saved as their own library saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config

from irl_core.text.segmentation import make_trace
from train.backends.tiny import train_tokenizer

PROBLEM = "Ada has 3 boxes with 4 pens each. She gives away 2 pens. How many pens are left?"
STEPS = ["There are 3 * 4 = 12 pens.", "She keeps 12 - 2 = 11 pens.", "The answer is 11."]
TRACE = make_trace(PROBLEM, "\n".join(STEPS))
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> Any:
    made = train_tokenizer([PROBLEM, *STEPS, "+ -"] * 8, 300)
    made.add_tokens(["ки"])
    made.add_tokens(["<extra_0>", "<|im_start|>", "<|im_end|>"], special_tokens=True)
    made.chat_template = TEMPLATE
    return made


def config(**values: Any) -> Qwen2Config:
    torch.manual_seed(5)
    return Qwen2Config(
        vocab_size=340, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=2000, initializer_range=0.6, **values,
    )  # fmt: skip


def saved(folder: Path, model: Any, architecture: str = "", heads: dict[str, torch.Tensor] | None = None) -> Path:
    """A model with its tokenizer as its library saves it, with further weights and another architecture."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    if heads:
        weights = load_file(folder / "model.safetensors")
        save_file(weights | heads, folder / "model.safetensors", metadata={"format": "pt"})
    if architecture:
        path = folder / "config.json"
        named = {"architectures": [architecture], "auto_map": {"AutoModel": "modeling_own.Own"}}
        path.write_text(json.dumps(json.loads(path.read_text()) | named))
        (folder / "modeling_own.py").write_text("raise SystemExit('remote code ran')\n")
    return folder
