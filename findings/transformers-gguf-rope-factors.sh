#!/bin/sh
# transformers 5.17.0, model of a GGUF of Llama 3.1 or 3.2: the scaling of the rotary embedding, which the file holds as the tensor
# rope_freqs.weight, is dropped without a word. Seen on 2026-11-29: "rope_type default; lowest frequency 3.01e-06, the file says
# 9.42e-08". Long texts are then read with other positions than in training; short ones too, if less.
# Needs Python 3.11 or newer; installs into a temporary folder and leaves nothing. Exit status 0: it is still so; 1: it changed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.17.0 gguf==0.19.0 numpy accelerate==1.15.0
"$work/venv/bin/python" "$here/tiny_gguf.py" "$work/tiny.gguf"
"$work/venv/bin/python" - "$work" <<'END'
import sys

from gguf import GGUFReader
from transformers import AutoModelForCausalLM

tensors = {tensor.name: tensor.data for tensor in GGUFReader(f"{sys.argv[1]}/tiny.gguf").tensors}
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], gguf_file="tiny.gguf")
kind, lowest = model.config.rope_parameters["rope_type"], float(model.model.rotary_emb.inv_freq[-1])
plain = 500000.0 ** (-31 / 32)
wanted = plain / float(tensors["rope_freqs.weight"][-1])
print(f"rope_type {kind}; lowest frequency {lowest:.3g}, the file says {wanted:.3g}")
sys.exit(not (kind == "default" and abs(lowest - plain) < 1e-3 * plain and abs(wanted * 32 - plain) < 1e-3 * plain))
END
