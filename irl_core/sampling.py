"""Samplers: completions of prompts from a policy, with the log-probability of every token as it was drawn.

``LoopSampler`` and ``GenerateSampler`` give the same tokens for the same seeds; see ``irl_core.drawing``. Another
engine needs only to be called as ``Sampler`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from irl_core.config_values import ConfigError
from irl_core.drawing import Drawing, check_finite, exact, uniforms
from irl_core.encoding import token_budget_batches

if TYPE_CHECKING:
    from irl_core.config import PolicyConfig
    from irl_core.encoding import TraceEncoder

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
    """What samples completions."""

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


def make_sampler(config: PolicyConfig, encoder: TraceEncoder) -> Sampler:
    """The sampler of a configuration, for the tokens of ``encoder``."""
    from irl_core.continuous import ContinuousSampler

    ends, pad, limit, size = encoder.end_ids, encoder.pad_id, config.sampling_tokens, vocab_size(encoder)
    if config.sampler == "generate":
        return GenerateSampler(ends, pad, config.cache, limit, size)
    return (LoopSampler if config.sampler == "loop" else ContinuousSampler)(ends, pad, limit, size)


def vocab_size(encoder: TraceEncoder) -> int:
    """The tokenizer's highest id, plus 1: a model may have logits for more (Qwen2.5: 152,064 for 151,665 tokens)."""
    return max(encoder.tokenizer.get_vocab().values()) + 1


# ------------------------------------------------------------------------------------------------------- what all share


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
        length together. A prompt's samples may be parted; a row longer than the limit stands alone."""
        lengths = [len(prompt) + self.max_new_tokens for prompt in self.prompts for _ in range(self.num_samples)]
        return [
            [divmod(index, self.num_samples) for index in batch] for batch in token_budget_batches(lengths, max_tokens)
        ]

    def decoded(
        self, model: Any, max_tokens: int, on_step: OnStep | None, decode: Callable[[list[Row], OnStep], list[Rollout]]
    ) -> list[list[Rollout]]:
        """All rollouts, ``decode`` giving those of one batch; it is handed what to call after each token position."""
        found: dict[Row, Rollout] = {}
        batches = self.batches(max_tokens)
        with evaluating(model):
            for number, rows in enumerate(batches):

                def tick(done: int, total: int, batch: int = number) -> None:
                    if on_step:
                        on_step(batch * total + done, len(batches) * total)

                found |= zip(rows, decode(rows, tick), strict=True)
        if device_of(model).type == "cuda":
            torch.cuda.empty_cache()  # a cache that grew token by token leaves blocks of sizes that nothing else needs
        return [[found[prompt, sample] for sample in range(self.num_samples)] for prompt in range(len(self.prompts))]


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model in evaluation mode, without gradients; afterwards as it was."""
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
    """Where the model's weights are."""
    return next(model.parameters()).device


# --------------------------------------------------------------------------------------------------------- the samplers


@dataclass(frozen=True, slots=True)
class LoopSampler:
    """Our own decoding loop: a prompt is read once and its cache shared by its samples, and rows that have ended leave
    the batch.

    Args:
        end_ids: ids that end a completion. pad_id: fills what no one reads.
        max_tokens: bounds the cached tokens (prompt and completion) of the samples decoded at once; what is drawn does
            not depend on it. vocab_size: ids from it on are never drawn; default: all that have logits may be.
    """

    end_ids: Sequence[int]
    pad_id: int
    max_tokens: int = MAX_TOKENS
    vocab_size: int | None = None

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
        """See ``Sampler``. ``on_step`` counts token positions, batch after batch."""
        drawing = Drawing(temperature, top_p, self.vocab_size)
        request = Request(prompts, num_samples, max_new_tokens, seeds, drawing)
        return request.decoded(
            model, self.max_tokens, on_step, lambda rows, tick: self._decode(model, request, rows, tick)
        )

    def _decode(self, model: Any, request: Request, rows: list[Row], tick: OnStep) -> list[Rollout]:
        device = device_of(model)
        read = list(dict.fromkeys(prompt for prompt, _ in rows))
        input_ids, attention = left_padded([request.prompts[number] for number in read], self.pad_id, device)
        output = model(
            input_ids=input_ids, attention_mask=attention, position_ids=_positions(attention), use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        cache = output.past_key_values
        shared = torch.tensor([read.index(prompt) for prompt, _ in rows], device=device)
        cache.batch_select_indices(shared)
        attention, logits = attention[shared], output.logits[:, -1][shared]
        numbers = request.numbers(rows, device)
        ends, samples = set(self.end_ids), _Samples(rows)
        for step in range(request.max_new_tokens):
            chosen, logprobs = request.drawing(logits, numbers[:, step])
            ids = chosen.tolist()
            samples.append(ids, logprobs.tolist())
            tick(step + 1, request.max_new_tokens)
            going = [place for place, token in enumerate(ids) if token not in ends]
            if step == request.max_new_tokens - 1 or not going:
                break
            if len(going) < len(ids):
                keep = torch.tensor(going, device=device)
                cache.batch_select_indices(keep)
                attention, chosen, numbers = attention[keep], chosen[keep], numbers[keep]
                samples.keep(going)
            attention = torch.cat([attention, attention.new_ones(attention.shape[0], 1)], dim=1)
            output = model(
                input_ids=chosen.unsqueeze(1), attention_mask=attention, position_ids=_positions(attention)[:, -1:],
                past_key_values=cache, use_cache=True,
            )  # fmt: skip
            logits = output.logits[:, -1]
        return samples.rollouts(ends)


def _positions(attention: Tensor) -> Tensor:
    return (attention.cumsum(-1) - 1).clamp(min=0)


class _Samples:
    """What has been drawn for each row; ``alive`` are the rows that the batch still holds."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.alive = list(range(len(rows)))
        self.ids: list[list[int]] = [[] for _ in rows]
        self.logprobs: list[list[float]] = [[] for _ in rows]

    def append(self, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        for row, token, value in zip(self.alive, ids, logprobs, strict=True):
            check_finite([value], self.rows[row][0], len(self.ids[row]))
            self.ids[row].append(token)
            self.logprobs[row].append(value)

    def keep(self, places: Sequence[int]) -> None:
        self.alive = [self.alive[place] for place in places]

    def rollouts(self, ends: set[int]) -> list[Rollout]:
        pairs = zip(self.ids, self.logprobs, strict=True)
        return [Rollout(tuple(ids), tuple(logprobs), ids[-1] in ends) for ids, logprobs in pairs]


@dataclass(frozen=True, slots=True)
class GenerateSampler:
    """transformers' ``generate``, greedy over scores that we have turned into the token drawn: the same seeds give the
    same tokens as ``LoopSampler``.

    With the dynamic cache a prompt is read once for all of its samples; unsloth's ``generate`` and a static cache take
    no cache that is filled already, so that there every sample reads its prompt for itself. A row that has ended stays
    in the batch until all have. Of a model's own ``generation_config`` nothing is used. With the static cache the model
    is compiled on a GPU, and not on the CPU.

    Args: as of ``LoopSampler``, and ``cache``.
    """

    end_ids: Sequence[int]
    pad_id: int
    cache: Literal["dynamic", "static"] = "dynamic"
    max_tokens: int = MAX_TOKENS
    vocab_size: int | None = None

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
        """See ``Sampler``. ``on_step`` counts token positions, batch after batch."""
        drawing = Drawing(temperature, top_p, self.vocab_size)
        request = Request(prompts, num_samples, max_new_tokens, seeds, drawing)
        with plain_generation_config(model):
            if self.cache == "static" and prompts:
                check_cached_types(model, "policy.cache=static")
            return request.decoded(
                model, self.max_tokens, on_step, lambda rows, tick: self._decode(model, request, rows, tick)
            )

    def _decode(self, model: Any, request: Request, rows: list[Row], tick: OnStep) -> list[Rollout]:
        from transformers import LogitsProcessorList, StoppingCriteriaList

        device = device_of(model)
        input_ids, attention = left_padded([request.prompts[prompt] for prompt, _ in rows], self.pad_id, device)
        width = input_ids.shape[1]
        drawn = _DrawnScores(request.drawing, request.numbers(rows, device), width)

        def report(ids: Tensor, scores: Any, **_: Any) -> Tensor:
            tick(ids.shape[1] - width, request.max_new_tokens)
            return torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)

        sequences = model.generate(
            input_ids=input_ids,
            attention_mask=attention,
            generation_config=self._config(request.max_new_tokens, compiles=device.type != "cpu"),
            logits_processor=LogitsProcessorList([drawn]),
            stopping_criteria=StoppingCriteriaList([report]),
            **self._prompts_read(model, request, rows, width),
        )
        found = zip(rows, sequences[:, width:].tolist(), torch.stack(drawn.logprobs, 1).tolist(), strict=True)
        return [self._rollout(prompt, ids, logprobs) for (prompt, _), ids, logprobs in found]

    def _prompts_read(self, model: Any, request: Request, rows: list[Row], width: int) -> dict[str, Any]:
        """The cache with each prompt but its last token, read once and repeated for its samples; nothing where
        ``generate`` is not transformers' own, the cache is static, or there is nothing to share."""
        from transformers import DynamicCache

        base = base_of(model)
        different = list(dict.fromkeys(prompt for prompt, _ in rows))
        own_generate = "generate" not in vars(base) and "generate" not in vars(model)
        if self.cache != "dynamic" or not own_generate or width < 2 or len(different) == len(rows):
            return {}
        # padded to the width of the batch, in which all of these prompts are
        device = device_of(model)
        ids, attention = left_padded([request.prompts[prompt] for prompt in different], self.pad_id, device)
        ids, attention = ids[:, : width - 1], attention[:, : width - 1]
        cache = DynamicCache(config=base.config)
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        model(
            input_ids=ids, attention_mask=attention, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        place = {prompt: number for number, prompt in enumerate(different)}
        cache.batch_select_indices(torch.tensor([place[prompt] for prompt, _ in rows], device=device))
        return {"past_key_values": cache}

    def _config(self, max_new_tokens: int, compiles: bool) -> Any:
        from transformers import GenerationConfig

        return GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(self.end_ids) or None,
            pad_token_id=self.pad_id,
            use_cache=True,
            cache_implementation="static" if self.cache == "static" else None,
            disable_compile=not compiles,
        )

    def _rollout(self, prompt: int, ids: Sequence[int], logprobs: Sequence[float]) -> Rollout:
        """A row of what ``generate`` gave, without what follows its end token."""
        length = next((place for place, token in enumerate(ids, start=1) if token in self.end_ids), len(ids))
        check_finite(logprobs[:length], prompt)
        return Rollout(tuple(ids[:length]), tuple(logprobs[:length]), ids[length - 1] in self.end_ids)


class _DrawnScores:
    """A logits processor: scores ``(B, V)`` become 0 at the token drawn and -inf elsewhere."""

    def __init__(self, drawing: Drawing, numbers: Tensor, width: int) -> None:
        self.drawing = drawing
        self.numbers = numbers
        self.width = width
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        # Some devices are a step ahead of the check for the end; that step is undone.
        step = min(input_ids.shape[1] - self.width, self.numbers.shape[1] - 1)
        ids, logprobs = self.drawing(scores, self.numbers[:, step])
        self.logprobs.append(logprobs)
        return torch.full_like(scores, -torch.inf).scatter_(1, ids.unsqueeze(1), 0.0)


@contextmanager
def plain_generation_config(model: Any) -> Iterator[None]:
    """The model without a ``generation_config`` of its own, from which ``generate`` takes whatever it is not told:
    repetition penalties, suppressed tokens, a least length."""
    from transformers import GenerationConfig

    parts = [part for part in (model, base_of(model)) if "generation_config" in vars(part)]
    own = [part.generation_config for part in parts]
    try:
        for part in parts:
            part.generation_config = GenerationConfig()
        yield
    finally:
        for part, config in zip(parts, own, strict=True):
            part.generation_config = config


def check_cached_types(model: Any, setting: str, held: torch.dtype | None = None) -> None:
    """Refuse a model whose keys and values are not of one type, or not of that of the cache that is to hold them.

    Raises:
        ConfigError: naming the types, the ``setting`` and the mend.
    """
    from transformers import DynamicCache

    found = set() if held is None else {held}

    class Seen(DynamicCache):
        def update(
            self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
        ) -> tuple[Tensor, Tensor]:
            found.update((key_states.dtype, value_states.dtype))
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    token = torch.zeros(1, 1, dtype=torch.long, device=device_of(model))
    with evaluating(model):
        model(input_ids=token, past_key_values=Seen(config=base_of(model).config), use_cache=True)
    if len(found) > 1:
        raise ConfigError(
            f"{setting} holds keys and values in one type, and here they come in {' and '.join(map(str, found))}, "
            "as they do of float32 weights that compute in another; set policy.sampler to loop"
        )


def base_of(model: Any) -> Any:
    """The causal LM itself, where adapters are around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
