"""One process alone, what several may not do, and how a process notices that another one is gone.

What two real processes exchange is tested in ``tests/integration/test_two_processes.py``.
"""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from irl_core.checkpoints.manifest import MANIFEST
from irl_core.config import LoraConfig, TrainConfig
from irl_core.distributed import World, buckets
from irl_core.errors import ConfigError, ProcessLost
from tests.conftest import REPOSITORY
from tests.tiny import changed
from train import distributed
from train.distributed import check_same, check_sharding, check_visible, frozen_sum, start_world, training_device
from train.monitoring import watch
from train.monitoring.watch import Watch, launched, watched
from train.workers import is_first, launched_workers

# ------------------------------------------------------------------------------------------------- dividing


def test_one_process_is_a_world_of_its_own() -> None:
    world, weight = World(), torch.nn.Parameter(torch.ones(2))
    assert world.is_main
    assert world.gather(["a", "b"]) == ["a", "b"]
    assert world.share(range(3)) == [0, 1, 2]
    assert world.offset(7) == 0
    assert world.any(True) and not world.any(False)
    assert world.even([[0], [1]]) == [([0], True), ([1], True)]
    assert world.must_pass(True) and not world.must_pass(False)
    world.sum_gradients([weight])
    assert weight.grad is None
    world.copy_from_main([weight])
    assert weight.tolist() == [1.0, 1.0]
    world.barrier()


@given(st.integers(0, 40), st.integers(1, 9))
def test_shares_are_consecutive_whole_and_differ_by_one_item_at_most(count: int, size: int) -> None:
    shares = [World(rank, size).share(range(count)) for rank in range(size)]
    assert list(itertools.chain(*shares)) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_every_process_has_an_item_where_there_are_enough() -> None:
    assert [World(rank, 3).share("abcd") for rank in range(3)] == [["a"], ["b"], ["c", "d"]]


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 12))
def test_buckets_keep_the_order_and_the_limit(sizes: list[int], limit: int) -> None:
    tensors = [torch.zeros(size) for size in sizes]
    found = list(buckets(tensors, limit))
    assert [id(tensor) for bucket in found for tensor in bucket] == [id(tensor) for tensor in tensors]
    for bucket in found:
        assert len(bucket) == 1 or sum(tensor.numel() for tensor in bucket) <= limit
    for bucket, following in itertools.pairwise(found):  # and no bucket is smaller than need be
        assert sum(tensor.numel() for tensor in bucket) + following[0].numel() > limit


# ----------------------------------------------------------------------------------------------- what is refused

CONFIG = TrainConfig()  # 8 prompts a round
ADAPTERS = changed(CONFIG, "model", backend="transformers", policy="x/y", dtype="bfloat16", lora=LoraConfig(rank=8))


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "ACCELERATE_USE_FSDP", *distributed.REFUSED):
        monkeypatch.delenv(name, raising=False)


def test_without_a_launcher_there_is_one_process_and_no_exchange() -> None:
    world, device = start_world(CONFIG)
    assert world == World(0, 1, False)
    assert device == training_device()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("section", "values", "told"),
    [
        ("run", {"method": "irl"}, "policy.prompts_per_round is 8, fewer than the 9 processes; raise it to 9 or more"),
        ("run", {"method": "grpo"}, "policy.prompts_per_round is 8, fewer than the 9 processes"),
        ("policy", {"prompts_per_round": 8}, "--num_processes 8"),
        ("run", {"eval_every": 5, "eval_problems": 4}, "run.eval_problems is 4, fewer than the 9 processes"),
    ],
)
def test_too_few_prompts_are_refused(
    section: str, values: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "9")
    config = changed(CONFIG, section, **values)
    if "eval" in told:
        config = changed(config, "policy", prompts_per_round=9)
    with pytest.raises(ConfigError, match=told):
        start_world(config)


def test_likelihood_training_needs_a_trace_for_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "17")
    config = changed(changed(CONFIG, "run", method="sft"), "policy", batch_size=16)
    with pytest.raises(ConfigError, match=r"policy\.batch_size is 16, fewer than the 17 processes"):
        start_world(config)


@pytest.mark.parametrize(
    ("section", "values", "told"),
    [
        ("model", {"quantisation": "nf4"}, "model.quantisation is 'nf4', and FSDP divides no quantised weights"),
        ("model", {"lora": LoraConfig(rank=0)}, "model.lora.rank is 0, and FSDP divides only weights that are not"),
        ("model", {"backend": "unsloth"}, "model.backend is 'unsloth', which FSDP does not divide"),
        ("discriminator", {"gradient_penalty": 0.5}, "discriminator.gradient_penalty is 0.5, a second derivative"),
        ("policy", {"sampler": "generate", "cache": "static"}, "policy.sampler is 'generate' with the cache 'static'"),
    ],
)
def test_what_fsdp_does_not_divide_is_refused(
    section: str, values: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_sharding(ADAPTERS)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match=told) as found:
        start_world(changed(ADAPTERS, section, **values))
    assert "train/accelerate/ddp.yaml" in str(found.value)


@pytest.mark.parametrize("variable", distributed.REFUSED)
def test_other_kinds_of_launch_are_refused(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ConfigError, match=f"the launcher is set to {distributed.REFUSED[variable]}"):
        start_world(CONFIG)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match=r"has 2 GPUs, and this is its process number 3; .* --num_processes 2"):
        training_device()


class Reports(World):
    """A world whose other process says what is given to it."""

    __slots__ = ()
    other: Any = None

    def gather(self, objects: Any) -> Any:
        return [*objects, *(type(self).other or objects)]


def test_processes_that_hold_different_things_are_refused() -> None:
    class Other(Reports):
        other = (("b", "host2"),)

    check_same(Reports(0, 2), "a", "settings", "mend")
    with pytest.raises(ConfigError, match=r"process 1 on host2 has other settings than process 0 on .*; mend it"):
        check_same(Other(0, 2), "a", "settings", "mend it")


def test_a_state_that_another_machine_does_not_have_is_not_resumed(tmp_path: Path) -> None:
    class Blind(Reports):
        other = (("nothing", "host2"),)

    (tmp_path / MANIFEST).write_text("{}")
    check_visible(Blind(0, 2), None)
    check_visible(Reports(0, 2), tmp_path)
    with pytest.raises(ConfigError, match=r"host2 has other files in .* storage that all machines share, or copy it"):
        check_visible(Blind(0, 2), tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_bases_are_told_apart_by_one_weight(dtype: torch.dtype) -> None:
    model = torch.nn.Module()
    model.frozen = torch.nn.Parameter(torch.arange(6).view(2, 3).to(dtype), requires_grad=False)
    model.scalar = torch.nn.Parameter(torch.tensor(1.0), requires_grad=False)
    model.trained = torch.nn.Parameter(torch.ones(2))
    before = frozen_sum(model)
    model.trained.data += 1
    assert frozen_sum(model) == before
    model.frozen.data[1, 2] = 7
    assert frozen_sum(model) != before


# -------------------------------------------------------------------------------------- the launcher's files


def test_the_launcher_s_files_hold_keys_that_it_knows() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    folder = REPOSITORY / "train" / "accelerate"
    found = {path.name: load_config_from_file(str(path)) for path in folder.glob("*.yaml")}
    assert found.keys() == {"ddp.yaml", "ddp-two-machines.yaml", "fsdp.yaml"}
    assert {name: (c.distributed_type, c.num_machines) for name, c in found.items()} == {
        "ddp.yaml": ("MULTI_GPU", 1), "ddp-two-machines.yaml": ("MULTI_GPU", 2), "fsdp.yaml": ("FSDP", 1),
    }  # fmt: skip
    assert '"accelerate/*.yaml"' in (REPOSITORY / "pyproject.toml").read_text()  # package data


# ------------------------------------------------------------------------------------------------- the watch


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Watch, Watch]]:
    """The watches of two processes, in this one; neither looks by itself."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setattr(watch, "_numbers", itertools.repeat(0))
    monkeypatch.setattr(watch, "SECONDS_BETWEEN_LOOKS", 1e6)
    monkeypatch.setattr(watch, "SECONDS_TO_LEAVE", 0.5)
    watches = Watch(World(0, 2)), Watch(World(1, 2))
    for one in watches:
        one.enter()
    yield watches
    for one in watches:
        one.leave()


def says(one: Watch, **values: Any) -> None:
    """Let a process say of itself what it would say elsewhere, or as another."""
    one._own |= values
    one.write_heartbeat()


def test_processes_that_live_are_not_lost(pair: tuple[Watch, Watch]) -> None:
    assert [one.look() for one in pair] == [None, None]
    error = RuntimeError("of this process's own")
    assert pair[0].cause(error) is error


def test_an_error_is_told_to_the_others_and_the_first_is_kept(pair: tuple[Watch, Watch]) -> None:
    first, second = pair
    second.tell(ValueError("out of luck"))
    assert str(first.look()) == "process 1 failed: ValueError: out of luck"
    found = first.cause(RuntimeError("connection closed by peer"))
    assert isinstance(found, ProcessLost)
    assert str(found) == "process 1 failed: ValueError: out of luck"
    first.tell(found)
    assert json.loads(first._store.get("failed")) == {"rank": 1, "reason": "ValueError: out of luck"}


def test_an_error_that_says_enough_stays_what_it_is(pair: tuple[Watch, Watch]) -> None:
    pair[1].tell(ValueError("out of luck"))
    for error in (ConfigError("a wrong key"), FloatingPointError("nan"), ProcessLost("known")):
        assert pair[0].cause(error) is error


def test_a_killed_process_of_this_machine_is_lost_at_once(pair: tuple[Watch, Watch]) -> None:
    says(pair[1], pid=2**22 + 1)
    assert str(pair[0].look()) == (
        f"process 1 (pid 4194305 on {socket.gethostname()}) is gone without a word; its machine's log may say why"
    )


def test_a_process_that_has_ended_well_is_not_lost(pair: tuple[Watch, Watch]) -> None:
    pair[1].leave()
    pair[1]._own |= {"pid": 2**22 + 1}
    assert pair[0].look() is None


def test_a_process_of_another_machine_is_lost_when_it_has_been_silent(
    pair: tuple[Watch, Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    says(pair[1], pid=2**22 + 1, machine="elsewhere", host="host2")
    now = [1000.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    assert pair[0].look() is None
    now[0] += 299
    assert pair[0].look() is None
    says(pair[1])
    now[0] += 10
    assert pair[0].look() is None
    now[0] += 301
    assert str(pair[0].look()) == "process 1 (pid 4194305 on host2) has said nothing for 301 s"


def test_a_lost_store_is_a_lost_world(pair: tuple[Watch, Watch], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise torch.distributed.DistNetworkError("Broken pipe\nwith a trace")

    pair[0]._store = type("Broken", (), {"set": broken, "check": broken, "get": broken})()
    assert str(pair[0].look()) == "the launcher's store, on the machine of process 0, is gone (Broken pipe)"


def test_the_thread_tells_why_and_ends_the_process(
    pair: tuple[Watch, Watch], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    lost: list[ProcessLost] = []
    first, second = pair
    monkeypatch.setattr(watch, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(watch.os, "_exit", ended.append)
    first.on_lost = lost.append
    says(second, pid=2**22 + 1)
    first.watch_others()
    assert ended == [1]
    assert "is gone without a word" in str(lost[0])
    assert capsys.readouterr().err == f"irl-lens: {lost[0]}\n"


def test_a_block_tells_of_its_error_but_not_of_a_clean_end(
    pair: tuple[Watch, Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyError), watched(World(1, 2), clean=(KeyError,)):
        raise KeyError("all raise it together")
    assert pair[0].look() is None
    with pytest.raises(ValueError), watched(World(1, 2), clean=(KeyError,)):
        raise ValueError("alone")
    assert str(pair[0].look()) == "process 1 failed: ValueError: alone"


def test_alone_there_is_nothing_to_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with watched(World()) as alone:
        error = RuntimeError("own")
        assert alone.cause(error) is error
    with pytest.raises(RuntimeError), watched(replace(World())):
        raise error


def test_a_cluster_that_sets_the_size_of_a_world_itself_has_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    assert not launched() and is_first()
    with launched_workers("score") as alone:
        assert (alone.size, alone.is_main, alone.claim(7)) == (1, True, True)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    assert launched() and not is_first()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="score divides its file, not the model's weights"), launched_workers("score"):
        pytest.fail("it went on")
