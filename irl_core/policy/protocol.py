"""The interface of samplers: requests, rollouts, and shared checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from irl_core.errors import ConfigError
from irl_core.models.batching import token_budget_batches
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.draws import Drawing, exact, uniforms

MAX_TOKENS = 2**18
OnStep = Callable[[int, int], None]


Row = tuple[int, int]  # the numbers of a prompt and of one of its samples


@dataclass(frozen=True, slots=True)
class Rollout:
    """A sampled completion: its ids (the end token included where ``finished``), and log p of each at temperature 1."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool


class Sampler(Protocol):
    """Sampler of completions."""

    def __call__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        max_new_tokens: int,
        seeds: Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        on_step: OnStep | None = None,
    ) -> list[list[Rollout]]:
        """``num_samples`` rollouts of each prompt, in the prompts' order; no prompts give none.

        ``seeds``: one for each prompt. What is drawn for a prompt depends on its seed, the number of the sample and the
        position alone, not on the other prompts of the call. ``on_step(done, total)`` is called as sampling goes on; an
        exception that it raises cancels the sampling. The model is in evaluation mode meanwhile, and left as it was.

        Raises:
            ValueError: an empty prompt, not one seed a prompt, ``num_samples`` or ``max_new_tokens`` < 1,
                temperature < 0, or top_p outside (0, 1].
            FloatingPointError: the model's logits are not finite.
        """


def last_position(device: torch.device) -> Tensor:
    """``(1,)``, the index -1, as ``logits_to_keep`` of a model's forward pass.

    The number 1 would mean the same, but transformers then slices the hidden states, and on the CPU, in bfloat16, the
    product of a slice that is not contiguous with a frozen head copies the head once a row: 36 prompts of a model with
    152,000 tokens and 896 hidden units took 10 GB and half a minute. An index gives a contiguous tensor."""
    return torch.tensor([-1], device=device)


def vocab_size(encoder: TraceEncoder) -> int:
    """The tokenizer's highest id, plus 1: a model may have logits for more (Qwen2.5: 152,064 for 151,665 tokens)."""
    return max(encoder.tokenizer.get_vocab().values()) + 1


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of one call of a sampler. Raises ValueError as ``Sampler`` says."""

    prompts: Sequence[Sequence[int]]
    num_samples: int
    max_new_tokens: int
    seeds: Sequence[int]
    drawing: Drawing

    def __post_init__(self) -> None:
        drawing, count = self.drawing, len(self.prompts)
        if self.num_samples < 1 or self.max_new_tokens < 1 or drawing.temperature < 0 or not 0 < drawing.top_p <= 1:
            raise ValueError(
                f"cannot sample {self.num_samples} of {count} prompts at temperature {drawing.temperature}, top_p "
                f"{drawing.top_p} and at most {self.max_new_tokens} tokens"
            )
        if len(self.seeds) != count:
            raise ValueError(f"{count} prompts with {len(self.seeds)} seeds; give one for each")
        for number, prompt in enumerate(self.prompts):
            if not len(prompt):
                raise ValueError(f"prompt {number} is empty; a prompt has at least one token")

    def numbers(self, rows: Sequence[Row], device: torch.device) -> Tensor:
        """The uniform numbers that the tokens of some rows are drawn by: ``(len(rows), max_new_tokens)``."""
        drawn = [uniforms(self.seeds[prompt], sample, self.max_new_tokens) for prompt, sample in rows]
        return torch.stack(drawn).to(device, exact(device))

    def batches(self, max_tokens: int) -> list[list[Row]]:
        """The rows to decode together: rows x (longest prompt + new tokens) within ``max_tokens``, prompts of similar
        length together. A prompt's samples may be split over batches; a row longer than the limit is its own batch."""
        lengths = [len(prompt) + self.max_new_tokens for prompt in self.prompts for _ in range(self.num_samples)]
        return [
            [divmod(index, self.num_samples) for index in batch] for batch in token_budget_batches(lengths, max_tokens)
        ]

    def decoded(
        self, model: Any, max_tokens: int, on_step: OnStep | None, decode: Callable[[list[Row], OnStep], list[Rollout]]
    ) -> list[list[Rollout]]:
        """All rollouts; ``decode`` returns those of one batch and calls its second argument after each token."""
        rollouts: dict[Row, Rollout] = {}
        batches = self.batches(max_tokens)
        with evaluating(model):
            for number, rows in enumerate(batches):

                def tick(done: int, total: int, batch: int = number) -> None:
                    if on_step:
                        on_step(batch * total + done, len(batches) * total)

                rollouts |= zip(rows, decode(rows, tick), strict=True)
        if device_of(model).type == "cuda":
            torch.cuda.empty_cache()  # a cache that grew token by token leaves blocks of sizes that nothing else needs
        return [[rollouts[prompt, sample] for sample in range(self.num_samples)] for prompt in range(len(self.prompts))]


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Set evaluation mode and switch off gradients inside the block."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def left_padded(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as ids ``(B, L)`` that end together, and their attention mask ``(B, L)``, 0 at padding."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
    attention = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, attention


def device_of(model: Any) -> torch.device:
    """The device of the model's weights."""
    device: torch.device = next(model.parameters()).device
    return device


def check_cached_types(model: Any, setting: str) -> None:
    """Refuse a model whose keys and values are not of one type.

    Raises:
        ConfigError: naming the types, the ``setting`` and the fix.
    """

    dtypes: set[torch.dtype] = set()

    class Seen(DynamicCache):
        def update(
            self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
        ) -> tuple[Tensor, Tensor]:
            dtypes.update((key_states.dtype, value_states.dtype))
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    token = torch.zeros(1, 1, dtype=torch.long, device=device_of(model))
    with evaluating(model):
        model(input_ids=token, past_key_values=Seen(config=base_of(model).config), use_cache=True)
    if len(dtypes) > 1:
        raise ConfigError(
            f"{setting} holds keys and values in one type, and here they come in {' and '.join(map(str, dtypes))}, "
            "as they do of float32 weights that compute in another; set policy.sampler to loop"
        )


def base_of(model: Any) -> Any:
    """The causal LM itself, where adapters are around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
