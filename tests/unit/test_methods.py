"""The table of training methods: what each needs, and that a configuration knows no other."""

from __future__ import annotations

from typing import get_args, get_type_hints

from irl_core.config import PolicyConfig, RunConfig, TrainConfig
from irl_core.methods import METHODS


def test_what_each_method_needs() -> None:
    needs = {name: (method.samples_policy, method.needs_discriminator) for name, method in METHODS.items()}
    assert needs == {"sft": (False, False), "irl": (True, True), "grpo": (True, False), "process": (False, True)}
    assert [name for name, method in METHODS.items() if method.reads_labels] == ["process"]
    assert all(name == method.name for name, method in METHODS.items())


def test_the_methods_of_a_configuration_are_those_of_the_table() -> None:
    assert set(get_args(get_type_hints(RunConfig)["method"])) == set(METHODS)
    for name, method in METHODS.items():
        assert TrainConfig(run=RunConfig(method=name)).method is method  # type: ignore[arg-type]
        assert getattr(PolicyConfig(), method.batch_setting) >= 1
