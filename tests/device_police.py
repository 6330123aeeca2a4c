"""A pretended GPU: the CPU's tensors, of which some count as lying on ``cuda:0``, and every crossing is seen.

Inside ``Police`` a tensor that is asked for on the device, or computed from one that lies there, is marked. It says
``cuda:0`` of itself, and an operation that takes it together with an unmarked tensor of more than one number is
refused, as CUDA refuses it. Where a GPU would have to be waited for (``.item()``, ``.tolist()``, ``.cpu()``, a
condition), that is counted by the function of ours that asks. No kernel of a GPU runs: placement is tested, and not
arithmetic.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten

GPU = torch.device("cuda", 0)
OURS = ("irl_core", "train")
DEVICE, IS_CUDA = Tensor.device.__get__, Tensor.is_cuda.__get__  # type: ignore[attr-defined]
TO_HOST = {Tensor.tolist, Tensor.item, Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__}
CROSSES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}  # between devices, on purpose


class WrongDevice(RuntimeError):
    """An operation on tensors of two devices."""


class Police:
    """What lies on the pretended GPU. ``waits``: how often each line waited for it."""

    def __init__(self) -> None:
        self.marked: dict[int, StorageWeakRef] = {}  # a weak reference keeps the address from being used again
        self.waits: Counter[str] = Counter()
        self.inside = 0  # of how many functions that were given something on the GPU

    def mark(self, value: Any) -> Any:
        """Let all tensors in it lie on the GPU."""
        for tensor in tensors_in(value):
            reference = StorageWeakRef(plainly(tensor.untyped_storage))
            self.marked.setdefault(reference.cdata, reference)
        return value

    def holds(self, tensor: Tensor) -> bool:
        return StorageWeakRef(plainly(tensor.untyped_storage)).cdata in self.marked

    def move(self, model: torch.nn.Module) -> None:
        """Let a model lie on the GPU."""
        self.mark([*model.parameters(), *model.buffers()])

    @contextmanager
    def watching(self) -> Iterator[Police]:
        with _Dispatch(self), _Function(self):
            yield self

    def waited(self) -> None:
        frame = sys._getframe(2)
        while frame.f_back and Path(frame.f_code.co_filename).parent.name not in OURS:
            frame = frame.f_back
        self.waits[f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"] += 1


def plainly(function: Any, *arguments: Any, **named: Any) -> Any:
    """Call it unseen by the police."""
    with torch._C.DisableTorchFunctionSubclass(), _disable_current_modes():
        return function(*arguments, **named)


def tensors_in(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]


def device_of(argument: Any) -> torch.device | None:
    if isinstance(argument, torch.device):
        return argument
    return torch.device(argument) if isinstance(argument, str) and argument.split(":")[0] in ("cpu", "cuda") else None


class _Function(TorchFunctionMode):
    """What Python asks of tensors: where they are, to be elsewhere, their values."""

    def __init__(self, police: Police) -> None:
        super().__init__()
        self.police = police

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        named, police = dict(named or {}), self.police
        if function in (DEVICE, IS_CUDA):
            held = police.holds(arguments[0])
            return held if function == IS_CUDA else GPU if held else torch.device("cpu")
        on_gpu = any(map(police.holds, tensors_in((arguments, named))))
        if function in (Tensor.numpy, Tensor.__array__) and on_gpu:
            raise WrongDevice("a tensor on the GPU has no numpy array")
        wanted = [device_of(a) for a in (*arguments, *named.values())]
        target = next((device for device in wanted if device is not None), None)
        if function in TO_HOST and on_gpu:
            police.waited()
        if function is Tensor.cpu or (target == torch.device("cpu") and on_gpu):
            police.waited()
            return plainly(arguments[0].clone)
        if target is None or target.type != "cuda":
            police.inside += on_gpu
            try:
                return function(*arguments, **named)
            finally:
                police.inside -= on_gpu
        host = [torch.device("cpu") if device_of(a) is not None else a for a in arguments]
        made = function(*host, **{k: torch.device("cpu") if device_of(v) is not None else v for k, v in named.items()})
        already = function is Tensor.to and police.holds(arguments[0])
        copies = function is Tensor.to and not already and made is arguments[0]  # on the CPU it need not be copied
        return police.mark(plainly(made.clone) if copies else made)


class _Dispatch(TorchDispatchMode):
    """What is computed: of tensors on one device alone, and the result lies there too."""

    def __init__(self, police: Police) -> None:
        super().__init__()
        self.police = police

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        given, holds = tensors_in((arguments, named)), self.police.holds
        marked = [tensor for tensor in given if holds(tensor)]
        others = [tensor for tensor in given if tensor.dim() and not holds(tensor)]
        if marked and others and operation not in CROSSES:
            raise WrongDevice(f"{operation}: {tuple(marked[0].shape)} on the GPU, {tuple(others[0].shape)} on the CPU")
        result = operation(*arguments, **(named or {}))
        if operation is torch.ops.aten.copy_.default:
            return result
        # What a function makes for itself (attention its mask) it makes where its arguments lie.
        return self.police.mark(result) if marked or (self.police.inside and not given) else result
