#!/bin/sh
# transformers 5.17.0, tokenizer of a GGUF of the architecture llama: the end token is the one that the header names as the
# BEGIN token. Seen on 2026-11-29: "header: eos 2 <|eot_id|>; tokenizer: eos 1 <|begin_of_text|>". In
# transformers/integrations/ggml.py, GGUFLlamaConverter.tokenizer, both tokens are read from bos_token_id. A model that is
# sampled until the tokenizer's end token never ends; one trained on it learns a wrong end.
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

from gguf import GGUFReader
from transformers import AutoTokenizer

reader = GGUFReader(f"{sys.argv[1]}/tiny.gguf")
header = reader.fields["tokenizer.ggml.eos_token_id"].contents()
tokens = reader.fields["tokenizer.ggml.tokens"].contents()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], gguf_file="tiny.gguf")
print(f"header: eos {header} {tokens[header]}; tokenizer: eos {tokenizer.eos_token_id} {tokenizer.eos_token}")
sys.exit((header, tokenizer.eos_token) != (2, "<|begin_of_text|>"))
END
