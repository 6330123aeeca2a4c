"""Models: where they come from, how they are loaded, what they compute."""

import logging

from irl_core.models.allocation import keep_few_kernels

# peft imports bitsandbytes, which warns on some CPUs that a kernel of the hub for 4-bit weights could not be fetched;
# without it, it computes as on every other CPU.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
keep_few_kernels()
