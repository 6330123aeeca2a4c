"""Data-parallel training: this process's rank and GPU, and frozen weights sharded by FSDP.

``accelerate launch`` (or ``torchrun``) starts the processes; ``docs/several-machines.md`` says how. Everything else,
from dividing a round to summing gradients, is in ``irl_core.distributed.World``.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

import torch

from irl_core.checkpoints.manifest import MANIFEST
from irl_core.config import TrainConfig
from irl_core.distributed import World
from irl_core.errors import ConfigError, UserError
from train.monitoring.watch import launched, launcher_store

if TYPE_CHECKING:
    from irl_core.models.tokenization import TraceEncoder
    from irl_core.policy.protocol import Rollout, Sampler
    from train.backends.models import Models

T = TypeVar("T")
# An exchange may wait this long for the slowest process: samples of very different lengths, a first download, a save.
PATIENCE = timedelta(hours=2)
DDP = "train/accelerate/ddp.yaml"
_whole: WeakSet[Any] = WeakSet()  # parts of sharded models that are gathered now
REFUSED = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}


# ------------------------------------------------------------------------------------------------------ the world


def start_world(config: TrainConfig) -> tuple[World, torch.device]:
    """The processes that the launcher started (without one: this process alone), and this process's device.

    On GPUs the processes communicate by NCCL, else by gloo. It may be called again for another configuration.

    Raises:
        ConfigError: too few prompts or GPUs for that many processes, something that FSDP does not shard, or processes
            that were started with different settings. Every process raises it.
    """

    def is_set(variable: str) -> bool:
        return os.environ.get(variable, "").lower() in ("1", "true", "yes")

    for variable, name in REFUSED.items():
        if is_set(variable):
            raise ConfigError(f"the launcher is set to {name}, which is not offered; launch with {DDP}")
    size, sharded = int(os.environ.get("WORLD_SIZE", "1")), is_set("ACCELERATE_USE_FSDP")
    check_division(config, size)
    device = training_device()
    if size == 1:
        return World(), device
    if sharded:
        check_sharding(config)
        # The launcher's default makes transformers read the weights on the first process alone, and invent the others'.
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    from accelerate import PartialState

    backend = "gloo" if device.type == "cpu" else "nccl"
    if launched() and not torch.distributed.is_initialized():
        meet(backend)
    state = PartialState(cpu=device.type == "cpu", backend=backend, timeout=PATIENCE)
    world = World(state.process_index, state.num_processes, sharded)
    check_same(world, config.fingerprint(), "settings", "give every machine the same command and the same files")
    return world, device


def meet(backend: str) -> None:
    """Make the group of the processes that a launcher has started, in a part of its store that this start of them has
    alone: torch's own would meet the addresses of those before a restart, which are gone."""
    torch.distributed.init_process_group(
        backend, store=launcher_store("group", PATIENCE), rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]), timeout=PATIENCE,
    )  # fmt: skip


def begun_here(run_dir: Path, *, from_now_on: bool = False) -> bool:
    """Whether these processes have begun a run in the folder before the launcher started them again
    (``--max_restarts``), and so go on with it. ``from_now_on``: they have."""
    if not launched():
        return False
    store, key = launcher_store("begun", of_every_start=True), str(run_dir.resolve())
    if from_now_on:
        store.set(key, "")
    return bool(store.check([key]))


def end_world() -> None:
    """Leave the group of processes, where there is one; for processes that all came to their end."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def training_device() -> torch.device:
    """This process's GPU (``LOCAL_RANK`` of the launcher), made the current one; else the CPU.

    Raises:
        ConfigError: more processes than GPUs on this machine.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if rank >= count:
        raise ConfigError(
            f"{socket.gethostname()} has {count} GPUs, and this is its process number {rank + 1}; launch with "
            f"--num_processes {count} (times the number of machines)"
        )
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    return device


# ----------------------------------------------------------------------------------------------------- what is refused


def check_division(config: TrainConfig, size: int) -> None:
    """Refuse more processes than a step has problems. Raises ConfigError."""
    batch_setting = config.method.batch_setting
    wanted = {f"policy.{batch_setting}": getattr(config.policy, batch_setting)}
    if config.run.eval_every:
        wanted["run.eval_problems"] = config.run.eval_problems
    for key, value in wanted.items():
        if value < size:
            raise ConfigError(
                f"{key} is {value}, fewer than the {size} processes; raise it to {size} or more, or launch with "
                f"--num_processes {value}"
            )


def check_sharding(config: TrainConfig) -> None:
    """Refuse what FSDP does not shard: only a frozen base under adapters, in full precision, is. Raises ConfigError."""
    model = config.model
    if model.quantisation != "none":
        raise ConfigError(
            f"model.quantisation is {model.quantisation!r}, and FSDP divides no quantised weights; set it to none, or "
            f"launch with {DDP} (weights of 4 bit are small enough to be whole on every GPU)"
        )
    if not model.lora.rank:
        raise ConfigError(
            "model.lora.rank is 0, and FSDP divides only weights that are not trained; set it (to 16, say), or launch "
            f"with {DDP}"
        )
    if model.backend == "unsloth":
        raise ConfigError(f"model.backend is 'unsloth', which FSDP does not divide; take transformers, or {DDP}")
    if config.discriminator.gradient_penalty:
        raise ConfigError(
            f"discriminator.gradient_penalty is {config.discriminator.gradient_penalty}, a second derivative, which "
            f"FSDP does not take; set it to 0 (and weight_clip in its place), or launch with {DDP}"
        )
    if config.policy.cache == "static":
        raise ConfigError(
            f"policy.sampler is {config.policy.sampler!r} with the cache {config.policy.cache!r}; what is compiled or "
            "captured does not stand divided weights: take loop, or generate with the cache dynamic, or launch with "
            f"{DDP}"
        )


def check_same(world: World, value: str, what: str, fix: str) -> None:
    """Refuse different values on different processes. Raises ConfigError, on every process."""
    rows = world.gather([(value, socket.gethostname())])
    for rank, (other, host) in enumerate(rows):
        if other != rows[0][0]:
            raise ConfigError(f"process {rank} on {host} has other {what} than process 0 on {rows[0][1]}; {fix}")


def check_visible(world: World, folder: Path | None) -> None:
    """Refuse a training state that is not there, or not the same, on every machine. Raises ConfigError everywhere."""
    path = None if folder is None else folder / MANIFEST
    if path is not None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "nothing"
        check_same(
            world, digest, f"files in {folder}",
            "to resume, keep the run's folder on storage that all machines share, or copy it to each of them",
        )  # fmt: skip


def from_main(world: World, function: Callable[[], T]) -> T:
    """Run ``function`` on the first process alone; its result is returned, its user error raised, on every process."""
    result: T | None = None
    failed: Exception | None = None
    if world.is_main:
        try:
            result = function()
        except UserError as error:
            failed = error
    result, failed = world.gather([(result, failed)])[0]
    if failed is not None:
        raise failed
    return result  # type: ignore[return-value]


# ----------------------------------------------------------------------------------------------------- the models


def spread(pair: Models, world: World, device: torch.device) -> None:
    """Make models that every process has built equal everywhere, and shard their frozen weights where FSDP is on.

    Tokenizers and frozen weights must be equal already; trained weights are copied from the main process.

    Raises:
        ConfigError: the processes have built different things.
    """
    models = [pair.policy, *([] if pair.discriminator is None else [pair.discriminator.backbone])]
    if world.size > 1:
        tokens = pair.encoder.fingerprint(), pair.discriminator_encoder.fingerprint()
        fix = "bring the same files (of the same revision) to every machine"
        check_same(world, repr(tokens), "tokenizers", fix)
        check_same(world, repr([frozen_sum(model) for model in models]), "base models", fix)
    trained = [pair.policy, *([] if pair.discriminator is None else [pair.discriminator])]
    world.copy_from_main(p for model in trained for p in model.parameters() if p.requires_grad)
    for model in models:
        shard(model, world, device)


@torch.no_grad()
def frozen_sum(model: Any) -> int:
    """Sum of the bytes of all frozen weights: equal for equal models, on whatever device."""
    frozen = (parameter for parameter in model.parameters() if not parameter.requires_grad)
    return sum(int(weights.reshape(-1).view(torch.uint8).sum(dtype=torch.int64)) for weights in frozen)


def shard(model: Any, world: World, device: torch.device) -> None:
    """Shard the frozen weights of a causal LM's decoder among the processes (FSDP 2), in place, where FSDP is on.

    A layer's weights are whole only while it computes. The adapters, which are trained, stay whole on every process,
    and so do the embeddings and the LM head, which are used outside the decoder: optimiser, clipping and saving are
    those of one process, and gradients are summed by the ``World``.
    """
    if not world.sharded:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    decoder = model.get_decoder()
    whole = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for part in (model.get_input_embeddings(), model.get_output_embeddings()):
        whole |= set(part.parameters())
    mesh = init_device_mesh(device.type, (world.size,))
    for part in (*decoder.layers, decoder):
        # Sharded again after every pass, the outermost part too, so that saving on one process changes nothing there.
        fully_shard(part, mesh=mesh, reshard_after_forward=True, ignored_params=whole)


@contextmanager
def gathered(*models: Any) -> Iterator[None]:
    """Make the weights of sharded models whole on every process inside the block, which may run them however often.

    Every process must come to the outermost block. Models that are not sharded are left alone.
    """
    from torch.distributed.fsdp import FSDPModule

    parts = [part for model in models for part in model.modules() if isinstance(part, FSDPModule)]
    parts = [part for part in parts if part not in _whole]
    _whole.update(parts)
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()
        _whole.difference_update(parts)


def sampler_for(config: TrainConfig, encoder: TraceEncoder, world: World) -> Sampler:
    """The configured sampler, for one of these processes."""
    from irl_core.policy.sampling import make_sampler

    sampler = make_sampler(config.policy, encoder)
    return sampler if world.size == 1 else GatheredSampler(sampler)


@dataclass(frozen=True, slots=True)
class GatheredSampler:
    """A sampler for one of several processes.

    Sharded weights are gathered once a call, not once a token, and the processes may stop at different lengths; one
    without prompts only takes part in the gathering.
    """

    sampler: Sampler

    def __call__(self, model: Any, prompts: Sequence[Sequence[int]], **options: Any) -> list[list[Rollout]]:
        """See ``irl_core.policy.protocol.Sampler``, whose options these are; every process must call it."""
        with gathered(model):
            return self.sampler(model, prompts, **options) if prompts else []
