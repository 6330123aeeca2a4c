#!/bin/sh
# trl 1.14.2: where any folder called vllm lies beside the script (an environment made with 'python -m venv vllm', say), GRPOTrainer cannot be
# imported. Seen on 2026-12-01: "without the folder: imported; with it: Invalid version: 'N/A'". importlib.util.find_spec finds the folder
# as a namespace package, trl/import_utils.py, _is_package_available, knows no version of it and returns 'N/A', and is_vllm_available
# hands that to packaging.Version. Nothing of vLLM is needed or asked for.
# Needs Python 3.11 or newer; installs into a temporary folder and leaves nothing. Exit status 0: it is still so; 1: it changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.17.0 trl==1.14.2
echo 'from trl import GRPOTrainer; print("imported")' > "$work/script.py"
without=$("$work/venv/bin/python" "$work/script.py" 2>&1 | tail -1)
mkdir "$work/vllm"
with=$("$work/venv/bin/python" "$work/script.py" 2>&1 | tail -1)
echo "without the folder: $without; with it: $with"
[ "$without" = imported ] && [ "$with" = "Invalid version: 'N/A'" ]
