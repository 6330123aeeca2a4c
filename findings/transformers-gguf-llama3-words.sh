#!/bin/sh
# transformers 5.17.0, tokenizer of a GGUF whose pre-tokenizer is "llama-bpe" (Llama 3): text is cut by GPT-2's rule, which keeps
# digits together, not by Llama 3's, which cuts numbers into groups of at most three. Seen on 2026-11-29: "as Llama 3 cuts: 12 3 4;
# transformers: 1234". In transformers/integrations/ggml.py, GGUFLlamaConverter.converted sets ByteLevel(use_regex=True) for every
# tokenizer of the kind gpt2. Numbers of four digits and more, so most of arithmetic, reach the model as tokens it was not trained on.
# Needs Python 3.11 or newer; installs into a temporary folder and leaves nothing. Exit status 0: it is still so; 1: it changed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.17.0 gguf==0.19.0 numpy
"$work/venv/bin/python" "$here/tiny_gguf.py" "$work/tiny.gguf"
"$work/venv/bin/python" - "$work" <<'END'
import sys

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

found = AutoTokenizer.from_pretrained(sys.argv[1], gguf_file="tiny.gguf")
merges = [("1", "2"), ("3", "4"), ("12", "34")]  # those of the file
right = Tokenizer(models.BPE(found.get_vocab(), merges))
right.pre_tokenizer = pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated")  # the part of Llama 3's rule for numbers
expected = right.encode("1234").tokens
tokens = found.tokenize("1234")
print(f"as Llama 3 cuts: {' '.join(expected)}; transformers: {' '.join(tokens)}")
sys.exit((expected, tokens) != (["12", "3", "4"], ["1234"]))
END
