#!/bin/sh
# gguf 0.19.0 with numpy: GGUFReader reads a header through slices and views of a numpy.memmap, each of which
# is a memmap made anew, eight for a token of the vocabulary: opening a 98 MB file of 49,152 tokens, none of whose
# tensors is read, takes seconds (4.4 s of one core, of which 2.8 s go with a plain view in place of the mapping: a subclass whose
# `data` is `numpy.asarray(data)` reads the same keys and tensors).
# Seen on 2026-12-01 with 2,000 tokens: "made of a token: 8 memory maps, 0 with a plain view; keys and tensors alike: True".
# Needs Linux, Python 3.11 or newer; installs into a temporary folder and leaves nothing. Exit status 0: still so; 1: it changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check gguf==0.19.0 numpy==2.4.6
cat > "$work/count.py" <<'END'
"""How many memory maps are made for each token of a vocabulary."""
import sys
from pathlib import Path

import gguf
import numpy

TOKENS = 2000
path = Path(sys.argv[1]) / "model.gguf"
writer = gguf.GGUFWriter(path, "llama")
writer.add_token_list([f"token-{number}" for number in range(TOKENS)])
writer.add_tensor("token_embd.weight", numpy.arange(8, dtype=numpy.float32).reshape(2, 4))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()


class PlainReader(gguf.GGUFReader):
    @property
    def data(self):
        return self.view

    @data.setter
    def data(self, mapped):
        self.view = numpy.asarray(mapped)


def opened(reader):
    """What a reader finds, and how many memory maps were made meanwhile."""
    made = 0
    plain = numpy.memmap.__array_finalize__

    def counted(self, other):
        nonlocal made
        made += 1
        plain(self, other)

    numpy.memmap.__array_finalize__ = counted
    try:
        found = reader(path)
    finally:
        numpy.memmap.__array_finalize__ = plain
    keys = {name: field.contents() for name, field in found.fields.items()}
    return (keys, {one.name: one.data.tolist() for one in found.tensors}), made


(one, many), (other, few) = opened(gguf.GGUFReader), opened(PlainReader)
told = f"made of a token: {many // TOKENS} memory maps, {few // TOKENS} with a plain view; keys and tensors alike: {one == other}"
print(told)
sys.exit(told != "made of a token: 8 memory maps, 0 with a plain view; keys and tensors alike: True")
END
"$work/venv/bin/python" "$work/count.py" "$work"
