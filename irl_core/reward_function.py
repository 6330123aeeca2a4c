"""The trained reward as a plain function of prompts and completions, for the trainers of other projects.

    reward = reward_function(Path("runs/gsm8k-irl/final"))
    GRPOTrainer(reward_funcs=reward, ...)                     # trl
    verifiers.Rubric(funcs=[reward])                          # verifiers before 0.2, which calls it with a whole group
    class Sums(rewarded(MyTask, reward)): ...                 # verifiers 0.4, where rewards are methods of a task

It gives one number a completion, the checkpoint's trace score: these trainers take no reward a token. A completion
that cannot be read (blank, or longer than the checkpoint reads) gets ``unreadable``, or else the lowest reward of its
call: trl counts a missing one as 0, which is above most of ours, and a policy would learn to write such completions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irl_core.errors import InputError
from irl_core.reward.token_scores import DEFAULT_GAMMA, trace_score
from irl_core.scorer import DEFAULT_BATCH_TOKENS, Lens
from irl_core.text.segmentation import make_trace

if TYPE_CHECKING:
    from irl_core.types import EncodedTrace

NAME = "irl_lens"
Message = Any  # a mapping with role and content (trl), or an object that has them (verifiers)
Text = str | Sequence[Message]  # plain text, or a conversation


def reward_function(
    checkpoint: Path | Lens,
    *,
    score: str | None = None,
    gamma: float = DEFAULT_GAMMA,
    problem_column: str | None = None,
    end_ids: Collection[int] = (),
    unreadable: float | None = None,
    device: str = "auto",
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> RewardFunction:
    """The reward of a checkpoint as a function that trl's and verifiers' trainers call.

    Args:
        checkpoint: its folder, or a checkpoint that is loaded already.
        score: the trace score, one of ``irl_core.reward.rewards.TRACE_SCORES``; default: the checkpoint's.
        gamma: discount, of the scores that discount.
        problem_column: the column of the data set with the problem's text; default: the prompt's last user message.
        end_ids: the ids that end a turn of the policy that is trained. A completion whose ids do not end with one
            counts as cut off; without ``end_ids`` all count as finished.
        unreadable: the reward of a completion that cannot be read; default: the lowest reward of the same call.
        device: where to load it; ``auto`` takes this process's GPU where there is one.
        batch_tokens: most tokens, padding included, in one batch.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        InputError: an unknown score, or gamma outside [0, 1].
    """
    lens = checkpoint if isinstance(checkpoint, Lens) else Lens.load(checkpoint, device)
    kind = lens.default_trace_score if score is None else score
    check_score(kind, gamma)
    return RewardFunction(lens, kind, gamma, problem_column, frozenset(end_ids), unreadable, batch_tokens)


def check_score(kind: str, gamma: float) -> None:
    """Raise InputError for an unknown trace score, or gamma outside [0, 1]."""
    from irl_core.reward.rewards import TRACE_SCORES

    if kind not in TRACE_SCORES:
        raise InputError(f"Unknown trace score {kind!r}; choose one of {', '.join(TRACE_SCORES)}.")
    if not 0.0 <= gamma <= 1.0:
        raise InputError(f"gamma is {gamma}; choose a value between 0 and 1.")


@dataclass(slots=True)
class RewardFunction:
    """See ``reward_function``. The trainers look at the names of its parameters, and log it under ``__name__``."""

    __name__ = NAME

    lens: Lens
    score: str
    gamma: float = DEFAULT_GAMMA
    problem_column: str | None = None
    end_ids: frozenset[int] = frozenset()
    unreadable: float | None = None
    batch_tokens: int = DEFAULT_BATCH_TOKENS

    def __call__(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float]:
        """One reward a completion.

        Args:
            prompts: texts or conversations, one a completion.
            completions: texts or conversations.
            completion_ids: their tokens, as the policy that is trained drew them.
            columns: the other columns of the data set, and whatever else the trainer gives.

        Raises:
            InputError: not one prompt a completion, or no such ``problem_column``.
        """
        problems = self.problems(prompts, columns)
        if len(problems) != len(completions):
            raise InputError(f"{len(completions)} completions with {len(problems)} problems; give one for each.")
        ids = completion_ids or [()] * len(completions)
        encoded = [
            self.encoded(problem, completion, tokens)
            for problem, completion, tokens in zip(problems, completions, ids, strict=True)
        ]
        rewards = self.rewards(encoded)
        if callable(log := columns.get("log_metric")) and rewards:
            log(f"{NAME}/unreadable", encoded.count(None) / len(rewards))
        return rewards

    def of(self, problem: str, solution: str) -> float:
        """The reward of one solution; NaN where it cannot be read."""
        return self.scores([self.encoded(problem, solution, ())])[0]

    def problems(self, prompts: Sequence[Text], columns: Mapping[str, Any]) -> list[str]:
        """The problem's text for each prompt. Raises InputError where there is no such column."""
        if self.problem_column is None:
            return [self.without_instruction(problem_of(prompt)) for prompt in prompts]
        if self.problem_column not in columns:
            known = ", ".join(sorted(columns)) or "none"
            raise InputError(f"The data has no column {self.problem_column!r}; it has {known}. Name another.")
        return [str(problem) for problem in columns[self.problem_column]]

    def without_instruction(self, problem: str) -> str:
        """The problem without the checkpoint's own instruction before it, which encoding adds."""
        instruction = self.lens.encoder.instruction
        return problem.removeprefix(instruction).lstrip() if instruction else problem

    def encoded(self, problem: str, completion: Text, ids: Sequence[int]) -> EncodedTrace | None:
        """A completion as a trace; None where the checkpoint cannot read it."""
        finished = not (self.end_ids and len(ids)) or int(ids[-1]) in self.end_ids
        try:
            return self.lens.encode(make_trace(problem, completion_text(completion), finished=finished))
        except InputError:
            return None

    def rewards(self, encoded: Sequence[EncodedTrace | None]) -> list[float]:
        """The rewards of traces; for one without, ``unreadable`` or else the lowest of them (0 where there is none)."""
        scores = self.scores(encoded)
        lowest = self.unreadable
        if lowest is None:
            lowest = min((value for value in scores if math.isfinite(value)), default=0.0)
        return [value if math.isfinite(value) else lowest for value in scores]

    def scores(self, encoded: Sequence[EncodedTrace | None]) -> list[float]:
        """The trace scores, NaN for what cannot be read."""
        readable = [one for one in encoded if one is not None]
        scored = iter(self.lens.score_encoded(readable, self.batch_tokens))
        return [math.nan if one is None else trace_score(next(scored), self.score, self.gamma) for one in encoded]


# ------------------------------------------------------------------------------------------------- conversations


def part_of(message: Message, name: str) -> Any:
    """A field of a message, which is a mapping or an object; None where it has none."""
    return message.get(name) if isinstance(message, Mapping) else getattr(message, name, None)


def content_of(message: Message) -> str:
    """The text of a message, whose content is a text or a list of parts."""
    content = part_of(message, "content")
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(text for text in (part_of(part, "text") for part in content) if isinstance(text, str))


def problem_of(prompt: Text) -> str:
    """The problem in a prompt: the text itself, or the last user message of a conversation; '' where there is none."""
    if isinstance(prompt, str):
        return prompt
    said = [content_of(message) for message in prompt if part_of(message, "role") == "user"]
    return said[-1] if said else ""


def completion_text(completion: Text) -> str:
    """What the policy wrote: the text itself, or the assistant's messages of a conversation, a blank line apart."""
    if isinstance(completion, str):
        return completion
    said = [content_of(message) for message in completion if part_of(message, "role") == "assistant"]
    return "\n\n".join(filter(None, said))


# ----------------------------------------------------------------------------------------------------- verifiers


def rewarded(task: type[Any], reward: RewardFunction, weight: float = 1.0) -> type[Any]:
    """A task of verifiers 0.4 with this reward beside its own.

    Args:
        task: a subclass of ``verifiers.v1.Task``; its problem is its ``data.prompt``.
        reward: as made by ``reward_function``.
        weight: of this reward among the task's.

    Raises:
        InputError: verifiers is not installed, or is a version without tasks, or the reward has no ``unreadable``.
    """
    import asyncio

    if reward.unreadable is None:
        raise InputError(
            "Here a completion is rewarded alone, and there is no lowest one beside it: give reward_function an "
            "unreadable=NUMBER, well below the rewards of what can be read."
        )
    mark = verifiers_reward()

    async def irl_lens(self: Any, trace: Any) -> float:
        """The reward of the rollout's last reply."""
        prompts, replies = [self.data.prompt or self.data.prompt_text], [trace.last_reply]
        return (await asyncio.to_thread(reward, prompts, replies))[0]

    return type(task.__name__, (task,), {NAME: mark(weight=weight)(irl_lens), "__module__": task.__module__})


def verifiers_reward() -> Callable[..., Any]:
    """The decorator ``reward`` of verifiers 0.4. Raises InputError where it is not there."""
    try:
        from verifiers.v1 import reward
    except ImportError as error:
        raise InputError(f"verifiers 0.4 is needed ({error}); pip install 'verifiers>=0.4,<0.5'.") from None
    marked: Callable[..., Any] = reward
    return marked
