#!/bin/sh
# torch 2.13.0 on the CPU (Linux, wheels with GNU's OpenMP): `logsigmoid` opens a parallel region for a tensor of two elements, where
# softplus, sigmoid and softmax compute small tensors in the thread that calls them. Each thread of a server or of a page that takes
# a probability of its reward by it keeps helper threads of its own from then on. When the helpers of a process outnumber the
# processors, OpenMP lets all of them sleep at every barrier instead of spinning, those of the thread that runs the model too: a
# server's passes over small batches took 1.2 to 1.5 times as long, with both processors idle a fifth of the time, after a thread
# that only wrote answers had called it once. `-softplus(-x)` is the same number and starts nothing.
# Seen on 2026-12-01, two processors: "threads that one call on 64 elements in a second thread leaves: softplus 0, logsigmoid 1;
# sleeps of the first thread in 500 small products and activations: 0 before, 0 after softplus, 730 after logsigmoid".
# Needs Linux with at least two processors, Python 3.11 or newer; installs into a temporary folder and leaves nothing. Exit status
# 0: still so; 1: it changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat > "$work/threads.py" <<'END'
"""Threads that a call in a second thread leaves, and how often the first one sleeps in a loop before and after it."""
import os
import resource
import threading

import torch
import torch.nn.functional as F

states, weights = torch.randn(256, 576), torch.randn(576, 576)


def sleeps():
    """How often this thread gives up its processor by itself in 500 rounds."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    for _ in range(500):
        F.silu(states @ weights)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before


def left_by(call, ended):
    """Threads beside itself that a second thread has after a call; it stays until ``ended``."""
    found, done = [], threading.Event()

    def run():
        before = len(os.listdir("/proc/self/task"))
        call()
        found.append(len(os.listdir("/proc/self/task")) - before)
        done.set()
        ended.wait()

    threading.Thread(target=run, daemon=True).start()
    done.wait()
    return found[0]


ended = threading.Event()
sleeps()
before = sleeps()
few = left_by(lambda: -F.softplus(-torch.zeros(64)), ended)
still = sleeps()
more = left_by(lambda: F.logsigmoid(torch.zeros(64)), ended)
after = sleeps()
ended.set()
print(f"threads that one call on 64 elements in a second thread leaves: softplus {few}, logsigmoid {more};")
print(f"sleeps of the first thread in 500 small products and activations: {before} before, {still} after softplus, "
      f"{after} after logsigmoid")
raise SystemExit(not (few == 0 and more > 0 and after > 20 * max(before, still, 5)))
END
unset OMP_WAIT_POLICY GOMP_SPINCOUNT || true
OMP_NUM_THREADS=$(nproc) "$work/venv/bin/python" "$work/threads.py"
