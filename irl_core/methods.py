"""Training methods, and what each of them needs: the one place that says how they differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Method:
    """A training method, as ``run.method`` names it.

    Attributes:
        samples_policy: the policy is sampled for each problem of a round; else the expert traces alone are read.
        needs_discriminator: the reward is learned; else it is the answer's correctness, or there is none.
        batch_setting: the setting in the section ``policy`` that gives the number of data traces of a step.
        reads_labels: the data are traces whose first wrong step is known; else they are expert traces.
    """

    name: str
    samples_policy: bool
    needs_discriminator: bool
    batch_setting: str
    reads_labels: bool = False


METHODS = {
    method.name: method
    for method in (
        Method("sft", samples_policy=False, needs_discriminator=False, batch_setting="batch_size"),
        Method("irl", samples_policy=True, needs_discriminator=True, batch_setting="prompts_per_round"),
        Method("grpo", samples_policy=True, needs_discriminator=False, batch_setting="prompts_per_round"),
        Method(
            "process", samples_policy=False, needs_discriminator=True, batch_setting="batch_size", reads_labels=True
        ),
    )
}
