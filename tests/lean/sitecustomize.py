"""Read by every Python process that a test starts: it has no scikit-learn and no bitsandbytes.

transformers and peft import them wherever they are installed, which takes 2 of the 7 seconds of a process that loads a
model; users have neither unless they ask for it. The tests that need them run in the process of the tests.
"""

import sys

for name in ("sklearn", "bitsandbytes"):
    sys.modules[name] = None  # type: ignore[assignment]
