#!/bin/sh
# torch 2.13.0 on the CPU (x86 with AVX-512): a bfloat16 `linear` keeps memory for every number of rows that it met, until a
# thousand of them: two caches, oneDNN's of primitives and the one above it in torch, hold 1,024 entries each, whatever their size.
# Texts in batches rarely have the same number of tokens twice, so that a server or a training grows by one to two megabytes a
# batch and layer shape, for hours, and no tensor is to be found that holds it; `gc` and `malloc_trim` give back little of it.
# Both caches read an environment variable at the first product, so that it may be set after the import of torch; one alone does
# not help. Smaller ones cost nothing to speak of: a kernel is made in half a millisecond.
# Seen on 2026-12-01 (AMD EPYC, avx512_bf16), four layer shapes of a model of 135 million parameters, 200 numbers of rows: MB kept
# "defaults: 535; oneDNN's at 16: 327; torch's at 16: 434; both at 16: 28".
# Needs Linux, Python 3.11 or newer; installs into a temporary folder and leaves nothing. Exit status 0: still so; 1: it changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat > "$work/products.py" <<'END'
"""MB that a process keeps after products of 200 different numbers of rows."""
import torch

torch.set_num_threads(1)
states = torch.zeros(1400, 1536, dtype=torch.bfloat16)
layers = [torch.zeros(*shape, dtype=torch.bfloat16) for shape in ((1536, 576), (576, 1536), (960, 576), (576, 576))]


def multiply(rows):
    for layer in layers:
        torch.nn.functional.linear(states[:rows, : layer.shape[1]].contiguous(), layer)


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 // 2**20


for rows in (1400, 1399):
    multiply(rows)
before = resident()
for rows in range(600, 800):
    multiply(rows)
print(resident() - before)
END
unset ONEDNN_PRIMITIVE_CACHE_CAPACITY LRU_CACHE_CAPACITY DNNL_PRIMITIVE_CACHE_CAPACITY || true
python=$work/venv/bin/python
defaults=$("$python" "$work/products.py")
primitives=$(ONEDNN_PRIMITIVE_CACHE_CAPACITY=16 "$python" "$work/products.py")
above=$(LRU_CACHE_CAPACITY=16 "$python" "$work/products.py")
both=$(ONEDNN_PRIMITIVE_CACHE_CAPACITY=16 LRU_CACHE_CAPACITY=16 "$python" "$work/products.py")
echo "MB kept: defaults $defaults; oneDNN's cache at 16: $primitives; torch's at 16: $above; both at 16: $both"
test "$defaults" -gt 300 && test "$primitives" -gt 150 && test "$above" -gt 150 && test "$both" -lt 80
