"""A training round on a small pretrained model: ours beside trl's GRPO step, and beside a plain reading of the paper.

    python -m benchmarks.training_round [--model smollm2-135m] [--prompts 4] [--samples 4] [--tokens 64] [--repeats 3]

``ours``: sample, the discriminator's update, score, the policy's update (preset ``gsm8k-irl``). ``trl``: a step of its
``GRPOTrainer``, which has no discriminator, with a reward that costs nothing. ``plain``: what the paper describes as
most would write it: ``generate`` for each problem, the discriminator's batch padded to its longest, whole logits,
log-probabilities computed again, and a loop over the sequences to score them. All train adapters of one rank on the
same bfloat16 base, on the same problems of the generator, with as many samples of as many tokens: those of the others
may not end before, and of ours the mean length is told. Each has a process of its own with the settings that it would
have alone: ours keeps freed tensors, as irl-lens does, with which the others' whole logits would fill the memory. Every
repeat runs all in turn, one at a time; a ratio is the geometric mean over the repeats with its 95 % interval. Seconds
are the processor's, so that other programs do not count; set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from benchmarks.packing import ratio_with_interval
from irl_core.config import LoraConfig
from irl_core.data.word_problems.generate import problems
from irl_core.models.allocation import give_back_freed_tensors, keep_freed_tensors
from irl_core.models.pretrained import Base, load_base, with_adapters
from irl_core.presets import load_config
from train.planning.plan import PRESETS
from train.training_state import TrainingState

RANK: Final = 16
SIDES: Final = {"ours": "ours", "trl": "trl's GRPO step", "plain": "plain round"}


class Round(NamedTuple):
    """What a round took: seconds of the processor, and the mean number of tokens of its samples."""

    seconds: float
    length: float


Timed = Callable[[], Round]


def ours(asked: argparse.Namespace) -> Timed:
    """Rounds of our training."""
    keep_freed_tensors()
    settings = [
        "data.source=demo", "data.train_problems=200", "data.held_out=20", "data.styles=false", "run.after=[]",
        f"model.policy={asked.model}", f"model.discriminator={asked.model}", "model.compile=true",
        f"policy.prompts_per_round={asked.prompts}", f"policy.num_generations={asked.samples}",
        f"policy.max_new_tokens={asked.tokens}", "discriminator.warmup_rounds=0", "discriminator.minibatches=1",
        "discriminator.perturbations=[]", f"model.lora.rank={RANK}", "run.steps=100", "run.batch_tokens=2048",
    ]  # fmt: skip
    session = TrainingState.start(load_config("gsm8k-irl", settings, PRESETS))

    def one_round() -> Round:
        begun = time.process_time()
        length = session.round()["rollout/length"]
        return Round(time.process_time() - begun, length)

    return one_round


def trl_round(asked: argparse.Namespace) -> Timed:
    """Steps of trl's trainer, each from the beginning of its adapters: its set-up is not counted."""
    from datasets import Dataset
    from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder_of(asked.model))
    rows = Dataset.from_list([{"prompt": one.text + "\n"} for one in problems(seed=3, n=200)])

    class Clock(TrainerCallback):  # type: ignore[misc]
        begun = spent = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begun = time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.spent = time.process_time() - self.begun

    def step() -> Round:
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            config = GRPOConfig(
                output_dir=folder, max_steps=1, per_device_train_batch_size=asked.prompts * asked.samples,
                num_generations=asked.samples, max_completion_length=asked.tokens, learning_rate=1e-4, bf16=False,
                use_cpu=True, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, seed=3,
                gradient_checkpointing=False, generation_kwargs={"min_new_tokens": asked.tokens},
            )  # fmt: skip
            trainer = GRPOTrainer(
                model=adapted(asked.model), reward_funcs=by_length, args=config, train_dataset=rows,
                processing_class=tokenizer, callbacks=[clock],
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return Round(clock.spent, asked.tokens)

    return step


def by_length(completions: list[str], **_: Any) -> list[float | None]:
    """A reward that costs nothing."""
    return [float(len(one)) for one in completions]


class PlainRound:
    """A round of the paper's algorithm, written without any of what makes it fast."""

    def __init__(self, asked: argparse.Namespace) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder_of(asked.model))
        self.policy, self.backbone = adapted(asked.model), adapted(asked.model)
        self.head = torch.nn.Linear(self.policy.config.hidden_size, 1)
        self.for_policy = torch.optim.AdamW(trained(self.policy), lr=1e-4)
        self.for_discriminator = torch.optim.AdamW([*trained(self.backbone), *self.head.parameters()], lr=1e-4)
        self.samples, self.tokens = asked.samples, asked.tokens
        drawn = list(problems(seed=3, n=200))
        self.batches = (drawn[at : at + asked.prompts] for at in range(0, len(drawn), asked.prompts))

    def __call__(self) -> Round:
        """Sample, update the discriminator, score, and update the policy."""
        begun = time.process_time()
        some = next(self.batches)
        samples: list[torch.Tensor] = []
        starts: list[int] = []
        for problem in some:
            prompt = self.tokenizer(problem.text + "\n", return_tensors="pt")
            samples += list(
                self.policy.generate(
                    **prompt, do_sample=True, num_return_sequences=self.samples, max_new_tokens=self.tokens,
                    min_new_tokens=self.tokens, pad_token_id=self.tokenizer.eos_token_id,
                )
            )  # fmt: skip
            starts += [prompt["input_ids"].shape[1]] * self.samples
        solved = [self.tokenizer(f"{one.text}\n{one.solution}", return_tensors="pt")["input_ids"][0] for one in some]
        places = [len(self.tokenizer(one.text + "\n")["input_ids"]) for one in some]
        self.discriminator_step(*self.padded([*samples, *solved], [*starts, *places]), len(samples))
        self.policy_step(samples, starts)
        return Round(time.process_time() - begun, self.tokens)

    def discriminator_step(self, ids: torch.Tensor, mask: torch.Tensor, answer: torch.Tensor, sampled: int) -> None:
        """The first ``sampled`` rows are the policy's, the others the expert's."""
        labels = torch.ones(ids.shape)
        labels[:sampled] = 0.0
        logits = self.logits_of(ids, mask)
        self.for_discriminator.zero_grad()
        binary_cross_entropy_with_logits(logits[answer], labels[answer]).backward()
        self.for_discriminator.step()

    def policy_step(self, samples: Sequence[torch.Tensor], starts: Sequence[int]) -> None:
        """Score the samples one by one, and take a clipped step; each begins behind its prompt, at ``starts``."""
        ids, mask, answer = self.padded(samples, starts)
        with torch.no_grad():
            pairs = zip(samples, starts, strict=True)
            rewards = torch.stack(
                [self.logits_of(one[None], torch.ones_like(one[None]))[0, at:].mean() for one, at in pairs]
            )
            before = self.logprobs_of(ids, mask)
        grouped = rewards.view(-1, self.samples)
        advantages = ((grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-6)).view(-1, 1)
        ratio = (self.logprobs_of(ids, mask) - before).exp()
        surrogate = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
        self.for_policy.zero_grad()
        (-surrogate[answer[:, 1:]].mean()).backward()
        self.for_policy.step()

    def logits_of(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The discriminator's logit of every token."""
        hidden = self.backbone(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
        logits: torch.Tensor = self.head(hidden.float()).squeeze(-1)
        return logits

    def logprobs_of(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The policy's log-probability of every token but the first, from whole logits."""
        whole = log_softmax(self.policy(input_ids=ids, attention_mask=mask).logits.float(), dim=-1)
        return whole[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)

    def padded(
        self, some: Sequence[torch.Tensor], starts: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Ids, mask, and which tokens are of the answer, as long as the longest."""
        ids = torch.full((len(some), max(map(len, some))), self.tokenizer.eos_token_id)
        mask, answer = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        for row, (one, start) in enumerate(zip(some, starts, strict=True)):
            ids[row, : len(one)], mask[row, : len(one)], answer[row, start : len(one)] = one, 1, True
        return ids, mask, answer


def trained(model: Any) -> list[torch.nn.Parameter]:
    """The weights of a model that are trained."""
    return [one for one in model.parameters() if one.requires_grad]


def adapted(model: str) -> Any:
    """The base with adapters, as peft computes with them."""
    return with_adapters(load_base(Base(model, dtype="bfloat16")), LoraConfig(rank=RANK, alpha=2 * RANK))


def folder_of(model: str) -> Any:
    """The folder of a base."""
    from irl_core.models.hub import locate

    return locate(model, None)


def answer(step: Timed) -> None:
    """Run a round for every line of the standard input, and print what it took; what it freed is given back while the
    others have their turn."""
    for _ in sys.stdin:
        took = step()
        gc.collect()  # trl's trainer holds itself
        give_back_freed_tensors()
        print(*took, flush=True)


def asked_of(side: str) -> Timed:
    """A process for a side, with this one's arguments; each call has it run a round."""
    command = [sys.executable, "-m", "benchmarks.training_round", *sys.argv[1:], "--side", side]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step() -> Round:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        for line in process.stdout:
            parts = line.split()  # libraries print too
            if len(parts) == 2 and parts[0].replace(".", "").isdigit():
                return Round(float(parts[0]), float(parts[1]))
        raise SystemExit(f"{SIDES[side]} ended with {process.wait()}")

    return step


def main() -> None:
    """Run the rounds in turn and print samples a second, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        sides: dict[str, Callable[[argparse.Namespace], Timed]] = {"ours": ours, "trl": trl_round, "plain": PlainRound}
        answer(sides[asked.side](asked))
        return
    steps = {side: asked_of(side) for side in SIDES}
    took: dict[str, list[Round]] = {side: [] for side in SIDES}
    for repeat in range(asked.repeats + 1):
        for side, step in steps.items():
            one = step()
            if repeat:  # the first one warms up
                took[side].append(one)
    spent = {side: [one.seconds for one in rounds] for side, rounds in took.items()}
    count, mean = asked.prompts * asked.samples, sum(one.length for one in took["ours"]) / asked.repeats
    print(
        f"{asked.model}, {asked.prompts} problems x {asked.samples} samples of {asked.tokens} tokens, ours {mean:.1f}"
    )
    for side, values in spent.items():
        middle = sorted(values)[len(values) // 2]
        print(
            f"{SIDES[side]}: {middle:.1f} s of the processor (median of {len(values)}), "
            f"{count / middle:.2f} samples a second"
        )
    for side in ("trl", "plain"):
        ratio, low, high = ratio_with_interval(spent[side], spent["ours"])
        print(f"ours makes {ratio:.2f} [{low:.2f}, {high:.2f}] times as many samples a second as {SIDES[side]}")


if __name__ == "__main__":
    main()
