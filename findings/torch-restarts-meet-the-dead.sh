#!/bin/sh
# torch 2.13.0, torchrun --max-restarts (and so accelerate launch --max_restarts) with its default rendezvous, static, and gloo: processes
# that are started again are given the addresses of those that died. Seen on 2026-12-01: "start 0: 2 met; start 1: 0 met, Connection
# refused". The launcher's store outlives its processes; torch/distributed/rendezvous.py, _env_rendezvous_handler, gives every start the
# same keys of it ("We create a new TCPStore for every retry so no need to add prefix for each attempt", which holds for other
# rendezvous). A process that is quicker than its peer reads the peer's old address and fails; whether one is, is chance: here
# the second waits two seconds. A store with a prefix of its own for each start meets: train/distributed.py, meet.
# Needs Python 3.11 or newer; installs into a temporary folder and leaves nothing. Exit status 0: it is still so; 1: it changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat > "$work/worker.py" <<'END'
import os
import time

import torch.distributed as dist

start, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
if (start, rank) == ("1", "1"):
    time.sleep(2)
dist.init_process_group("gloo")
print(f"start {start} met", flush=True)
dist.barrier()
if start == "0":
    os._exit(int(rank))  # the second one dies
END
said=$(OMP_NUM_THREADS=1 "$work/venv/bin/torchrun" --nproc-per-node 2 --max-restarts 1 "$work/worker.py" 2>&1 || true)
first=$(echo "$said" | grep -c "^start 0 met" || true)
second=$(echo "$said" | grep -c "^start 1 met" || true)
refused=$(echo "$said" | grep -c "RuntimeError.*Connection refused" || true)
echo "start 0: $first met; start 1: $second met$([ "$refused" -gt 0 ] && echo ', Connection refused')"
[ "$first" = 2 ] && [ "$second" = 0 ] && [ "$refused" -gt 0 ]
