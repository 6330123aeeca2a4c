"""llama.cpp's server on a GGUF file, for `benchmarks.engines` and for trying ``--engine`` by hand.

    python -m venv llama && llama/bin/pip install xllamacpp
    llama/bin/python benchmarks/llama_server.py MODEL.gguf --slots 8

It runs in an environment of its own, and so imports nothing of this project. It says its address, and serves until it
is stopped.
"""

from __future__ import annotations

import argparse
import signal

import xllamacpp


def main() -> None:
    """Serve the file that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", help="the model's file")
    parser.add_argument("--slots", type=int, default=8, help="requests at once")
    parser.add_argument("--context", type=int, default=1024, help="tokens of a slot")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--port", type=int, default=8090)
    asked = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = asked.gguf
    params.hostnames, params.port = ["127.0.0.1"], asked.port
    params.n_parallel, params.n_ctx = asked.slots, asked.slots * asked.context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = asked.threads
    server = xllamacpp.Server(params)
    print(f"llama.cpp serves at {server.listening_address}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
