#!/bin/sh
# transformers 5.17.0 and peft 0.21.2 with torch 2.13.0: what their import costs depends on what else is installed, whether
# it is used or not. Where scikit-learn 1.9.1 is there, `from transformers import AutoModelForCausalLM` imports sklearn.metrics
# and with it scipy.stats (for one curve of assisted generation); where bitsandbytes 0.50.2 is there, `import peft` imports
# torch's inductor, the compiler, without anything being compiled. A process that only loads a model has 4,691 modules then,
# 3,367 without the two (2 of 7 seconds of one core), though pip shows neither as a dependency of the other two.
# Seen on 2026-12-01: "neither hidden: sklearn.metrics, torch._inductor.compile_fx; sklearn hidden: torch._inductor.compile_fx;
# bitsandbytes hidden: sklearn.metrics; both hidden: none".
# Needs Python 3.11 or newer; installs into a temporary folder and leaves nothing. Exit status 0: still so; 1: it changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    transformers==5.17.0 peft==0.21.2 bitsandbytes==0.50.2 scikit-learn==1.9.1 accelerate
cat > "$work/imports.py" <<'END'
"""Which of two modules are there once a model class and peft were imported; names in the arguments are not found."""
import sys

for name in sys.argv[1:]:
    sys.modules[name] = None  # what the import system takes for 'not installed'
import peft  # noqa: F401
from transformers import AutoModelForCausalLM  # noqa: F401

found = [name for name in ("sklearn.metrics", "torch._inductor.compile_fx") if sys.modules.get(name)]
print(", ".join(found) or "none")
END
run() { HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/imports.py" "$@" 2>/dev/null | tail -n 1; }
told="neither hidden: $(run); sklearn hidden: $(run sklearn); bitsandbytes hidden: $(run bitsandbytes); both hidden: $(run sklearn bitsandbytes)"
echo "$told"
expected="neither hidden: sklearn.metrics, torch._inductor.compile_fx; sklearn hidden: torch._inductor.compile_fx"
[ "$told" = "$expected; bitsandbytes hidden: sklearn.metrics; both hidden: none" ]
