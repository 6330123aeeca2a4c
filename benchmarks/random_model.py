"""Write a model of a given shape with random weights, for measuring memory and speed without downloading anything.

    python -m benchmarks.random_model meta-llama/Llama-3.2-1B-Instruct OUT --tokenizer FOLDER [--device cuda]

The shapes are those of ``train.planning.architectures``. One decoder layer is made at a time and written as a shard of
its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

SPREAD = 0.02
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


def write_model(config: Any, folder: Path, tokenizer: Path, *, device: str = "cpu", seed: int = 0) -> int:
    """The model as sharded bfloat16 safetensors with its configuration and tokenizer; returns how many weights."""
    folder.mkdir(parents=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    generator = torch.Generator(device).manual_seed(seed)
    shards: dict[str, dict[str, torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        if name not in tied:
            shards.setdefault(_shard_of(name), {})[name] = parameter
    weight_map: dict[str, str] = {}
    count = 0
    for number, (_, parameters) in enumerate(sorted(shards.items()), 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({n: _filled(n, p, generator, device) for n, p in parameters.items()}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(parameters, file)
        count += sum(p.numel() for p in parameters.values())
    index = {"metadata": {"total_size": 2 * count}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    for file in TOKENIZER_FILES:
        if (tokenizer / file).is_file():
            shutil.copyfile(tokenizer / file, folder / file)
    return count


def _shard_of(name: str) -> str:
    parts = name.split(".")
    return f"layer-{int(parts[2]):03d}" if parts[1] == "layers" else "others"


def _filled(name: str, parameter: torch.Tensor, generator: torch.Generator, device: str) -> torch.Tensor:
    """Norms are 1, everything else is normal; on the CPU, in bfloat16."""
    if "norm" in name:
        return torch.ones(parameter.shape, dtype=torch.bfloat16)
    values = torch.empty(parameter.shape, dtype=torch.bfloat16, device=device)
    return values.normal_(0.0, SPREAD, generator=generator).cpu()


def main() -> None:
    """The command line."""
    from train.planning.architectures import transformers_config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the model whose shape is taken, such as Qwen/Qwen2.5-0.5B-Instruct")
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with that family's tokenizer")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    count = write_model(transformers_config(chosen.name), chosen.folder, chosen.tokenizer, device=chosen.device)
    print(f"{chosen.folder}: {count:,} random weights in the shape of {chosen.name}")


if __name__ == "__main__":
    main()
