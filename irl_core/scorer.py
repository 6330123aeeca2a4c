"""A loaded checkpoint that samples, scores and locates first errors; shared by the command line and the app.

Torch and transformers are imported when a checkpoint is loaded, not before. Views, trace scores and ranking, which run
no model, are in ``irl_core.reward.token_scores``.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from irl_core.errors import CheckpointError, EncodingError, InputError
from irl_core.models.devices import memory_errors, usable_device
from irl_core.policy.familiarity import Familiarity, compared_with_held_out, prompt_logprob
from irl_core.reward.token_scores import (
    DEFAULT_GAMMA,
    group_standardisation,
    named_signals,
    restandardise,
)
from irl_core.types import EncodedTrace, Localisation, ScoredTrace, Standardisation, Trace

if TYPE_CHECKING:
    from irl_core.checkpoints.step_models import StepLayout
    from irl_core.models.batching import BatchLayout
    from irl_core.models.tokenization import TraceEncoder
    from irl_core.policy.branches import Branch
    from irl_core.reward.localisation import Calibration

DEFAULT_BATCH_TOKENS = 8192
MAX_PROBLEM_CHARACTERS = 20_000
MAX_SOLUTION_CHARACTERS = 20_000
MAX_SAMPLES = 64
DEFAULT_NEW_TOKENS = 256
MOST_BRANCHES = 5

Scope = Literal["reference", "group"]


def check_text(name: str, text: str, limit: int) -> None:
    """Refuse a text that is blank or longer than ``limit`` characters.

    Raises:
        InputError: naming what was given and the limit.
    """
    if not text.strip():
        raise InputError(f"The {name} is empty. Write or paste some text.")
    if len(text) > limit:
        raise InputError(f"The {name} has {len(text):,} characters; the limit is {limit:,}. Shorten it.")


def check_inputs(problem: str, solution: str | None = None) -> None:
    """Refuse a blank or overlong problem, or solution where one is given. Raises InputError."""
    check_text("problem", problem, MAX_PROBLEM_CHARACTERS)
    if solution is not None:
        check_text("solution", solution, MAX_SOLUTION_CHARACTERS)


class Lens:
    """A loaded checkpoint: policy, discriminator, tokenizer and calibration.

    Every method that runs a model or the tokenizer takes one lock, so threads may share a lens.
    """

    def __init__(
        self,
        *,
        name: str,
        config: Mapping[str, Any],
        policy: Any,
        discriminator: Any,
        encoder: TraceEncoder,
        calibration: Calibration,
        device: str = "cpu",
        fingerprint: str = "",
        discriminator_encoder: TraceEncoder | None = None,
        batch_layout: BatchLayout = "padded",
    ) -> None:
        self.name = name
        self.config = dict(config)
        self.policy = policy
        self.discriminator = discriminator
        self.encoder = encoder
        self.discriminator_encoder = discriminator_encoder  # where the discriminator reads other tokens
        self.calibration = calibration
        self.batch_layout = batch_layout
        self.device = device
        self.fingerprint = fingerprint  # sha256 of the manifest, which names the sha256 of every file
        self.lock = threading.RLock()

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> Lens:
        """Load the checkpoint at ``path``; every file is verified before it is read.

        ``device``: a torch device name; ``auto`` takes the GPU where there is one.

        Raises:
            CheckpointError: the directory is not a whole, untouched checkpoint.
            InputError: the device cannot be used here.
        """
        from irl_core.checkpoints.load import load_json
        from irl_core.checkpoints.manifest import MANIFEST, verify
        from irl_core.checkpoints.step_models import step_layout
        from irl_core.models.bundled import called
        from irl_core.models.pretrained import (
            OWN_TOKENIZER,
            check_ids,
            context_window,
            load_causal_lm,
            load_encoder,
        )
        from irl_core.models.shared_prompts import sharing_layout
        from irl_core.reward.discriminator import load_discriminator
        from irl_core.reward.localisation import Calibration
        from irl_core.reward.rewards import TRACE_SCORES

        if not (path / MANIFEST).is_file() and (layout := step_layout(path)):
            return cls.of_step_model(path, layout, device)
        verify(path)
        config = load_json(path / "config.json")
        if not (path / "discriminator").is_dir():
            raise CheckpointError(
                f"{config['name']} is a policy without a discriminator, as the methods sft and grpo leave it: nothing "
                "in it scores. Take a checkpoint of the method irl, and compare this policy with "
                "'irl-lens evaluate --compare NAME=FOLDER'"
            )
        missing = [key for key in ("reference", "localisation") if key not in config]
        if missing:
            raise CheckpointError(f"config.json has no {' and no '.join(missing)}: the checkpoint was not calibrated")
        instruction, score = config.get("instruction", ""), config.get("default_trace_score", "minimum")
        if score not in TRACE_SCORES:
            raise CheckpointError(
                f"config.json: default_trace_score is {score[:80]!r}; one of {', '.join(TRACE_SCORES)}"
            )
        chosen = usable_device(device)
        policy = load_causal_lm(path / "policy", chosen, merge="exact")
        discriminator = load_discriminator(path / "discriminator", chosen)
        own = path / "discriminator" / OWN_TOKENIZER
        if own.is_dir() and discriminator.likelihood == "policy":
            raise CheckpointError(
                "discriminator/head.json: likelihood is 'policy', which needs the policy's tokens, but there is a "
                f"discriminator/{OWN_TOKENIZER}; train with discriminator.likelihood own"
            )
        encoder = load_encoder(path, policy, instruction)
        if not own.is_dir():
            check_ids(encoder, discriminator.backbone, path)
        for model in (policy, discriminator.backbone):
            context_window(model)
        fingerprint = hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
        return cls(
            name=called(str(config["name"]), fingerprint),
            config=config,
            policy=policy,
            discriminator=discriminator,
            encoder=encoder,
            calibration=Calibration.from_json(config["localisation"]),
            device=chosen,
            fingerprint=fingerprint,
            discriminator_encoder=load_encoder(own, discriminator.backbone, instruction) if own.is_dir() else None,
            batch_layout=sharing_layout(policy, discriminator.backbone),
        )

    @classmethod
    def of_step_model(cls, path: Path, layout: StepLayout, device: str) -> Lens:
        """A process-reward model of others, beside the policy of the default checkpoint, whose tokens are shown."""
        from irl_core.checkpoints.find import default_roots
        from irl_core.checkpoints.step_models import described, fingerprint
        from irl_core.models.bundled import default_checkpoint
        from irl_core.reward.localisation import Calibration
        from irl_core.reward.step_model import load_step_model

        assets = default_roots()[0]
        beside, config = cls.load(assets / default_checkpoint(assets).name, device), described(path, layout)
        config["provenance"]["policy"] = beside.name
        config["train_config"] = beside.config.get("train_config", {}) | {"model": {}}  # of the policy, which samples
        return cls(
            name=config["name"], config=config, policy=beside.policy, encoder=beside.encoder, device=beside.device,
            discriminator=load_step_model(path, layout, beside.device), fingerprint=fingerprint(path),
            calibration=Calibration.from_json(config["localisation"]),
        )  # fmt: skip

    @property
    def computes_on(self) -> str:
        """The device; for a bfloat16 model on a CPU also the precision that it computes in there, and why."""
        from irl_core.models.precision import cpu_precision_in_words
        from irl_core.models.pretrained import base_of

        base = base_of(self.policy)
        if self.device != "cpu" or base is None or base.dtype != "bfloat16" or base.quantisation != "none":
            return self.device
        return f"{self.device}, {cpu_precision_in_words()}"

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the checkpoint comes from: command, preset, seed, date, data, steps, code version."""
        return dict(self.config.get("provenance", {}))

    @property
    def default_trace_score(self) -> str:
        """The trace score that ranked best on held-out problems when the checkpoint was made."""
        return str(self.config.get("default_trace_score", "minimum"))

    @property
    def context_window(self) -> int:
        """The longest prompt plus completion, in tokens, that both models accept."""
        from irl_core.models.pretrained import context_window

        return min(context_window(model) for model in (self.policy, self.discriminator.backbone))

    @property
    def reference(self) -> Standardisation:
        """Mean and spread of raw rewards on held-out solutions, stored with the checkpoint."""
        stored = self.config["reference"]
        origin = stored.get("origin", "held-out solutions")
        return Standardisation(stored["mean"], stored["std"], f"{origin} of checkpoint {self.name}")

    def encode(self, trace: Trace) -> EncodedTrace:
        """Encode ``trace`` with the policy's tokenizer.

        Raises:
            InputError: a blank or overlong text, or one outside the context window.
        """
        check_inputs(trace.problem, trace.text)
        try:
            with self.lock:
                encoded = self.encoder.encode(trace)
                readings = [encoded]
                if self.discriminator_encoder is not None:  # the longer of the two readings must fit
                    text = replace(encoded.trace, token_ids=None, logprobs=None)
                    readings.append(self.discriminator_encoder.encode(text))
        except EncodingError as error:
            raise InputError(str(error)) from error
        tokens = max(len(one.prompt_ids) + len(one.completion_ids) for one in readings)
        self._check_window(tokens, "The problem and the solution are too long")
        return encoded

    def score(
        self,
        traces: Sequence[Trace],
        *,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        standardise_over: Scope = "reference",
    ) -> list[ScoredTrace]:
        """Compute a reward for every token of the traces; returns them in the order given.

        ``standardise_over``: ``reference`` takes the checkpoint's held-out statistics, ``group`` those of these traces
        (which must then be solutions of one problem).

        Raises:
            InputError: a trace that ``encode`` refuses.
        """
        return self.score_encoded([self.encode(trace) for trace in traces], batch_tokens, standardise_over)

    def score_encoded(
        self, encoded: Sequence[EncodedTrace], batch_tokens: int = DEFAULT_BATCH_TOKENS, over: Scope = "reference"
    ) -> list[ScoredTrace]:
        """As ``score``, for traces that are already encoded with the policy's tokenizer."""
        from irl_core.reward.step_model import StepModel
        from irl_core.training.model_pair import ModelPair
        from irl_core.training.step_pair import StepPair

        if not encoded:
            return []
        with self.lock, memory_errors(batch_tokens):
            if isinstance(self.discriminator, StepModel):
                rewards = StepPair(self.policy, self.discriminator, self.encoder, batch_tokens).score(encoded)
            else:
                read_by = self.discriminator_encoder or self.encoder
                models = self.policy, self.discriminator, self.encoder, read_by
                rewards = ModelPair(*models, batch_tokens, self.batch_layout, reads_prompts=True).score(encoded)
        unit = self.reference if over == "reference" else group_standardisation([one.raw for one in rewards])
        return [
            ScoredTrace(trace, one.raw, one.logprobs, one.prompt_reward, unit, self.name, one.prompt_logprob)
            for trace, one in zip(encoded, rewards, strict=True)
        ]

    def sample(
        self,
        problem: str,
        n: int,
        seed: int,
        *,
        temperature: float = 1.0,
        top_p: float = 0.95,
        max_new_tokens: int = DEFAULT_NEW_TOKENS,
        begun: str = "",
        until_line: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Trace]:
        """Sample ``n`` solutions from the policy: the same for the same seed, and fewer are the first of more.

        ``begun``: the beginning of every one, behind which they go on; ``until_line``: only to the end of that line.
        ``on_progress(done, total)`` is called after each token position; ``total`` is at most ``max_new_tokens``.
        A completion that reached a limit has ``finished=False``.

        Raises:
            InputError: a blank or overlong problem, or ``n`` outside 1..MAX_SAMPLES.
        """
        if not 1 <= n <= MAX_SAMPLES:
            raise InputError(f"{n} samples asked for; choose between 1 and {MAX_SAMPLES}.")
        check_inputs(problem)
        from irl_core.policy.branches import continued, ids_of
        from irl_core.policy.protocol import vocab_size
        from irl_core.policy.sampling import LoopSampler

        with self.lock:
            prompt, before = self.encoder.encode_prompt(problem), ids_of(self.encoder, begun)
            self._check_window(len(prompt) + len(before) + 1, "The problem is too long")
            ends = (*self.encoder.end_ids, *(self.encoder.line_ends if until_line else ()))
            sampler = LoopSampler(ends, self.encoder.pad_id, vocab_size=vocab_size(self.encoder))
            (rollouts,) = sampler(
                self.policy,
                [(*prompt, *before)],
                num_samples=n,
                max_new_tokens=min(max_new_tokens, self.context_window - len(prompt) - len(before)),
                seeds=[random.Random(f"{seed}-{problem}").getrandbits(62)],
                temperature=temperature,
                top_p=top_p,
                on_step=on_progress,
            )
            if before:
                return [
                    continued(self.encoder, problem, before, one.token_ids, number)
                    for number, one in enumerate(rollouts, start=1)
                ]
            return [
                self.encoder.sampled_trace(problem, one.token_ids, one.logprobs, trace_id=f"sample-{number}")
                for number, one in enumerate(rollouts, start=1)
            ]

    def branches(self, scored: ScoredTrace, place: int, most: int = MOST_BRANCHES) -> list[Branch]:
        """The token at a place of a solution, and the likeliest ones that may stand there, each with its reward."""
        from irl_core.policy.branches import branch, likeliest, with_token
        from irl_core.policy.protocol import vocab_size

        encoded = scored.encoded
        written = encoded.completion_ids[place]
        with self.lock:
            ids = (*encoded.prompt_ids, *encoded.completion_ids[:place])
            others = [
                one for one in likeliest(self.policy, ids, most + 1, vocab_size(self.encoder)) if one[0] != written
            ]
            tokens = [(written, float(scored.logprobs[place])), *others[:most]]
            traces = [self.encoder.encode(with_token(self.encoder, scored, place, *token)) for token in tokens]
            rewards = self.score_encoded(traces)
        return [branch(one, token, written, value) for one, (token, value) in zip(rewards, tokens, strict=True)]

    def locate(self, scored: ScoredTrace) -> Localisation:
        """Locate the first error of a trace by the checkpoint's calibrated rule. Runs no model."""
        from irl_core.reward.localisation import locate

        gamma = DEFAULT_GAMMA if self.calibration.gamma is None else self.calibration.gamma
        unit = self.reference  # the unit that the threshold was found in, whatever the trace is shown in
        values = named_signals(restandardise([scored], unit)[0], gamma)
        return locate(values, scored.encoded.spans, scored.trace.steps, self.calibration)

    def familiarity(self, problem: str, text: str | None = None) -> Familiarity:
        """Measure how much ``problem`` is like the held-out problems of the checkpoint.

        ``text``: a solution, whose share of unknown tokens counts too.
        """
        check_inputs(problem, text)
        return self._familiarity(problem, text, self._prompt_score(problem))

    def familiarities(self, scored: Sequence[ScoredTrace]) -> list[Familiarity]:
        """Measure each trace's familiarity. A problem is read, once, only where the policy did not in scoring."""
        known = {one.trace.problem: one.prompt_logprob for one in scored if one.prompt_logprob is not None}
        for problem in dict.fromkeys(one.trace.problem for one in scored):
            if problem not in known:
                known[problem] = self._prompt_score(problem)
        traces = [one.trace for one in scored]
        return [self._familiarity(one.problem, one.text, known[one.problem]) for one in traces]

    def _prompt_score(self, problem: str) -> float:
        """The mean log-probability of the problem's prompt."""
        with self.lock:
            prompt = self.encoder.encode_prompt(problem)
            self._check_window(len(prompt), "The problem is too long")
            return prompt_logprob(self.policy, prompt)

    def _familiarity(self, problem: str, text: str | None, score: float) -> Familiarity:
        """The familiarity of a problem with this score of its prompt, and of the solution ``text``."""
        with self.lock:
            tokenizer = self.encoder.tokenizer
            pieces = tokenizer(problem if text is None else f"{problem}\n{text}", add_special_tokens=False)["input_ids"]
            unknown = pieces.count(tokenizer.unk_token_id) / max(len(pieces), 1)
        return compared_with_held_out(score, unknown, self.config["reference"].get("prompt_logprob_quantiles"))

    def _check_window(self, tokens: int, what: str) -> None:
        if tokens > self.context_window:
            raise InputError(
                f"{what}: {tokens:,} tokens; checkpoint {self.name} reads at most {self.context_window:,}. "
                "Shorten the text or choose a checkpoint with a longer context."
            )
