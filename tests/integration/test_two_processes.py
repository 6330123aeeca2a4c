"""Two real processes (gloo, on the CPU) take the step that one would, and weights never differ between them."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from irl_core.distributed import World
from tests.launching import finished, launch
from tests.tiny import perturbed_of
from tests.worlds import CASES, experts, outcome, trainer_of

pytestmark = pytest.mark.timeout(600)

TOLERANCE = 1e-5  # of a tensor's largest number: float32, summed in another order


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found, case by case."""
    folder = tmp_path_factory.mktemp("ranks")
    finished(launch("tests.worlds", str(folder)))
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(2)]


def assert_close(found: torch.Tensor, expected: torch.Tensor, name: str, tolerance: float) -> None:
    difference = float((found - expected).abs().max())
    assert difference <= tolerance * float(expected.abs().max()), (name, difference)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_take_the_step_of_one(name: str, ranks: list[dict[str, Any]]) -> None:
    alone, together = outcome(CASES[name], World()), ranks[0][name]
    assert together["samples"] == alone["samples"]
    for learner, steps in alone["gradients"].items():
        assert len(together["gradients"][learner]) == len(steps)
        for number, (found, expected) in enumerate(zip(together["gradients"][learner], steps, strict=True)):
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                # later steps start from weights that already differ by rounding
                assert_close(found[key], value, f"{learner} {number} {key}", TOLERANCE * (1 if number == 0 else 20))
    for found, expected in zip(together["metrics"], alone["metrics"], strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    losses = [{k: v for k, v in found["metrics"][0].items() if "loss" in k} for found in (together, alone)]
    if all(len(steps) == 1 for steps in alone["gradients"].values()):
        assert losses[0] == pytest.approx(losses[1], rel=TOLERANCE, abs=TOLERANCE)  # advantages of about 1 cancel


@pytest.mark.parametrize("name", CASES)
def test_weights_are_equal_in_every_bit_on_both_processes(name: str, ranks: list[dict[str, Any]]) -> None:
    for learner, weights in ranks[0][name]["weights"].items():
        for key, value in weights.items():
            assert torch.equal(value, ranks[1][name]["weights"][learner][key]), (learner, key)
    assert ranks[0][name]["metrics"] == ranks[1][name]["metrics"]


# --------------------------------------------------------------------------------------------------- the exchanges


def test_what_two_processes_exchange(ranks: list[dict[str, Any]]) -> None:
    first, second = (rank["exchanges"] for rank in ranks)
    # 1 + 2; only the first has 10; nobody has a third gradient; 1000 + 2000. In buckets of four numbers.
    assert first["sums"] == second["sums"] == [[3.0] * 3, [10.0] * 2, None, [3000.0] * 5]
    assert first["copied"] == second["copied"] == [[1.0] * 3, [10.0] * 2, [100.0] * 4, [1000.0] * 5]
    assert first["gathered"] == second["gathered"] == ["a", "a", "b"]
    assert (first["offset"], second["offset"]) == (0, 1)
    assert first["any"] == second["any"] == (True, False)
    assert (first["share"], second["share"]) == ([0, 1], [2, 3, 4])
    assert first["even"] == [([0], True), ([0], False)]
    assert second["even"] == [([0], True), ([1], True)]
    assert (first["must pass"], second["must pass"]) == ((True, True, False), (False, True, False))


# --------------------------------------------------------------------------------------------------------- sharding


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.sharded])
def test_frozen_weights_are_divided_and_adapters_are_saved_whole(name: str, ranks: list[dict[str, Any]]) -> None:
    alone = outcome(CASES[name], World())
    parts = [rank[name]["held"] for rank in ranks]
    assert sum(parts) == alone["held"]
    assert max(parts) < 0.6 * alone["held"]
    assert ranks[0][name]["files"].keys() == alone["files"].keys()
    for key, value in alone["files"].items():
        assert_close(ranks[0][name]["files"][key], value, key, TOLERANCE)


def test_a_class_may_be_on_one_process_alone(ranks: list[dict[str, Any]]) -> None:
    """The case of that name is what it says: without the world's counts its weights would be others."""
    trainer = trainer_of(CASES["a class on one process alone"], World())
    groups = trainer.sample_groups(experts(trainer.encoder))
    perturbed = [len(list(perturbed_of(trainer, group, random.Random(0)))) for group in groups]
    assert sum(perturbed[:2]) > 0 and sum(perturbed[2:]) == 0
