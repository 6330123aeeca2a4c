"""Samples for training from a serving engine that takes new adapters: vLLM with ``/v1/load_lora_adapter``.

Before every round the policy's adapters are written to a folder and given to the engine under a name of their own, so
that no answer is of older ones. A sample is taken only as the tokens that were drawn, with their log-probabilities:
what an engine does not tell is not guessed, and the training is refused. The step itself computes log-probabilities
anew with our own weights, and logs how far the engine's are from them (``rollout/logprob_mismatch``).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from safetensors.torch import save_file

from irl_core.errors import ConfigError, EngineError, InputError
from irl_core.models import pretrained
from irl_core.models.hub import ADAPTER_CONFIG
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.engine import Drawn, EngineClient, Lost, told_ids
from irl_core.policy.engine_requests import KEY_VARIABLE, Ask, Drawing, Engine, Refused, reason_of
from irl_core.policy.protocol import OnStep, Rollout

URL_VARIABLE = "IRL_LENS_ENGINE"
FOLDER_VARIABLE = "IRL_LENS_ENGINE_ADAPTERS"
LARGEST_SEED = 2**31 - 1
RELOADING = "start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True ('irl-lens engine start' does)"


@dataclass(frozen=True, slots=True)
class Told(Drawn):
    """A sample with its tokens, the end token among them where it ended by itself, and the log p of each."""

    logprobs: tuple[float, ...] = ()


class TrainingClient(EngineClient):
    """An engine whose samples are learned from: each is told token by token, or refused."""

    def read(self, answer: Mapping[str, Any], ask: Ask, drawing: Drawing) -> Told:
        """The sample in an answer. Raises ConfigError where it is not all told, ValueError where it is no sample."""
        if self.requests.way:
            raise ConfigError(
                f"the engine at {self.engine.url} refuses prompts of tokens, or to tell the tokens that it drew and "
                "their log-probabilities, and so cannot be trained with; set policy.sampler to loop, or take vLLM"
            )
        choices = answer.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            raise ValueError("an answer without a sample")
        ids, logprobs = told_ids(choice), told_logprobs(choice)
        lacking = [name for name, one in (("tokens", ids), ("log-probabilities", logprobs)) if one is None]
        if ids is None or logprobs is None:
            raise ConfigError(
                f"the engine at {self.engine.url} does not tell the {' and '.join(lacking)} of what it drew, and so "
                "cannot be trained with; set policy.sampler to loop, or take vLLM 0.11 or newer"
            )
        usage = answer.get("usage")
        read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if read is not None and read != len(ask.prompt_ids):
            raise ConfigError(
                f"the engine at {self.engine.url} read {read} tokens where the prompt has {len(ask.prompt_ids)}: it "
                "adds its own, and its samples are of another prompt; set policy.sampler to loop"
            )
        if not ids or len(ids) != len(logprobs) or len(ids) > drawing.max_new_tokens:
            raise ValueError(f"{len(ids)} tokens with {len(logprobs)} log-probabilities, of {drawing.max_new_tokens}")
        ended = choice.get("finish_reason") == "stop"
        if ended and ids[-1] not in self.encoder.end_ids:
            raise ConfigError(
                f"the engine at {self.engine.url} ended a sample without telling its end token (the last one is "
                f"{ids[-1]}), whose reward would be lost; set policy.sampler to loop"
            )
        return Told(str(choice.get("text", "")), ended, ids, logprobs)


@dataclass(slots=True)
class EngineSampler:
    """A ``Sampler`` that asks an engine, which is given the adapters of the model that it is called with.

    Args:
        engine: where it is; its ``model`` is not used, since every round's adapters have a name of their own.
        encoder: of the policy's tokens.
        folder: where adapters are written; the engine must see it under the same path.
    """

    engine: Engine
    encoder: TraceEncoder
    folder: Path
    name: str = field(default_factory=lambda: f"irl-lens-{os.getpid()}-{secrets.token_hex(3)}")
    rounds: int = 0

    @classmethod
    def from_environment(cls, encoder: TraceEncoder) -> EngineSampler:
        """The engine of ``IRL_LENS_ENGINE``. Raises ConfigError where it names none."""
        url = os.environ.get(URL_VARIABLE, "")
        if not url:
            raise ConfigError(
                f"policy.sampler is engine, and no engine is named; give --engine http://HOST:PORT, or set "
                f"{URL_VARIABLE}"
            )
        folder = Path(os.environ.get(FOLDER_VARIABLE) or tempfile.gettempdir())
        try:
            return cls(Engine(url, key=os.environ.get(KEY_VARIABLE, "")), encoder, folder)
        except InputError as error:
            raise ConfigError(str(error)) from None

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
        """See ``irl_core.policy.protocol.Sampler``. ``on_step`` counts samples. What an engine draws is not drawn again
        with the same seed.

        Raises:
            ConfigError: the model has no adapters, or the engine cannot be trained with.
            EngineError: it is gone, or a sample did not come after all tries.
        """
        if not prompts:
            return []
        asks = [
            Ask("", tuple(prompt), number, (seed + number) % LARGEST_SEED)
            for prompt, seed in zip(prompts, seeds, strict=True)
            for number in range(num_samples)
        ]
        drawing = Drawing(max_new_tokens, temperature, top_p, ends=tuple(self.encoder.end_ids))
        url = self.engine.url
        with (
            adapters_of(model, self.folder) as adapters,
            TrainingClient(replace(self.engine, model=self.name), self.encoder) as client,
            self.loaded(client, adapters),
        ):
            drawn = client.draw(asks, drawing, on_step=on_step)
        lost = [one.reason for one in drawn if isinstance(one, Lost)]
        if lost:
            raise EngineError(
                f"{len(lost)} of {len(asks)} samples did not come from the engine at {url} ({lost[0]}); start "
                "the training again with --resume when it answers"
            )
        rollouts = [Rollout(one.token_ids or (), one.logprobs, one.finished) for one in drawn if isinstance(one, Told)]
        return [rollouts[start : start + num_samples] for start in range(0, len(rollouts), num_samples)]

    @contextmanager
    def loaded(self, client: EngineClient, adapters: Path) -> Iterator[None]:
        """Give the engine these adapters while the block runs. Raises ConfigError where it does not take them."""
        self.rounds += 1
        name = f"{self.name}-{self.rounds}"
        url, requests = self.engine.url, client.requests
        try:
            requests.tell("/load_lora_adapter", {"lora_name": name, "lora_path": str(adapters)})
        except Refused as error:
            hint = RELOADING if error.status in (404, 405) else f"it must see {adapters} ({FOLDER_VARIABLE} moves it)"
            raise ConfigError(f"the engine at {url} does not take new adapters ({error}); {hint}") from None
        except (httpx.HTTPError, ValueError) as error:
            raise EngineError(f"The engine at {url} did not take new adapters ({reason_of(error)})") from None
        requests.model = name
        try:
            yield
        finally:
            with contextlib.suppress(Refused, httpx.HTTPError, ValueError):  # an engine that is gone has none any more
                requests.tell("/unload_lora_adapter", {"lora_name": name})


@contextmanager
def adapters_of(model: Any, folder: Path) -> Iterator[Path]:
    """The adapters of a model, saved in a new folder inside ``folder`` while the block runs. Raises ConfigError."""
    if pretrained.base_of(model) is None:
        raise ConfigError(
            "policy.sampler is engine, and an engine takes new adapters alone, no whole model; set model.lora.rank (to "
            "16, say), or policy.sampler to loop"
        )
    try:
        path = Path(tempfile.mkdtemp(prefix="irl-lens-adapters-", dir=folder))
        path.chmod(0o755)  # the engine may be another user's
    except OSError as error:
        raise ConfigError(
            f"{folder}: adapters cannot be written there ({error.strerror}); name another folder with {FOLDER_VARIABLE}"
        ) from None
    try:
        description = json.dumps(asdict(pretrained.adapter_config(model)))
        (path / ADAPTER_CONFIG).write_text(description, encoding="utf-8")
        tensors = {
            name: tensor.detach().cpu().contiguous() for name, tensor in pretrained.adapter_weights(model).items()
        }
        save_file(tensors, path / pretrained.ADAPTER_WEIGHTS)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def told_logprobs(choice: Mapping[str, Any]) -> tuple[float, ...] | None:
    """The log-probability of each token of a sample, where the engine tells them as OpenAI's completions do."""
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(values, list) or not all(isinstance(one, int | float) and one <= 1e-3 for one in values):
        return None
    return tuple(float(one) for one in values)
