"""Judge a checkpoint on held-out problems of the generator: a scored run, its figures, and the model card.

    irl-lens evaluate --checkpoint demo --out DIR [--compare NAME=CHECKPOINT ...]

writes ``run.parquet`` (every sample with every token's reward), ``report.json``, ``figures.md``, ``MODEL_CARD.md`` and
``problems.jsonl`` (examples for the Inspect page). Everything is sampled anew from fixed seeds; the vote's rule is
chosen on calibration problems, never on the reported ones.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from irl_core import metrics
from irl_core.arithmetic import first_false_step
from irl_core.checkpoints import verify
from irl_core.config import ConfigError, PolicyConfig, TrainConfig, load_config
from irl_core.encoding import collate, token_budget_batches
from irl_core.inspection import Lens
from irl_core.localisation import Rule, calibrate, candidate_rules, most_suspect
from irl_core.perturbations import ALL_KINDS, corrupt
from irl_core.policy import completion_logprobs
from irl_core.pretrained import load_causal_lm
from irl_core.rewards import TRACE_SCORES
from irl_core.sampling import make_sampler
from irl_core.segmentation import make_trace
from irl_core.signals import named_signals, trace_score
from irl_core.store import row_of, write_run
from irl_core.types import ScoredTrace, Source, Trace, Truth
from irl_core.word_problems import WordProblem
from irl_core.word_problems.families import FAMILIES
from train.calibrate import held_out, sampled_traces
from train.data import demo_problems, expert_trace
from train.demo_report import choose_vote, located_hits, markdown, report
from train.model_card import example_rows, jsonl, model_card

Say = Callable[[str], None]
PRESETS = Path(__file__).parent / "configs"


def evaluate(
    lens: Lens,
    out: Path,
    *,
    num_problems: int,
    samples: int,
    seed: int = 0,
    compare: Mapping[str, Path] | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Sample, score and judge; returns the report that ``report.json`` holds.

    ``compare`` names further checkpoints whose policies are sampled on the same problems, for pass@k beside this one's.

    Raises:
        ConfigError: a checkpoint that was not trained on the generator's problems.
    """
    config = TrainConfig.from_dict(lens.config["train_config"])
    if config.data.source != "demo":
        raise ConfigError(
            f"checkpoint {lens.name} was trained on {config.data.source!r}, and evaluate asks problems of the demo's "
            "generator; score solutions of its own with irl-lens score"
        )
    out.mkdir(parents=True, exist_ok=True)
    problems = demo_problems(config, "held_out", num_problems)
    say(f"sampling {num_problems} held-out problems x {samples}")
    traces = _sampled(lens, lens.policy, problems, samples, seed)
    scored = lens.score([trace for group in traces for trace in group])
    say("choosing rules on calibration problems")
    calibration = demo_problems(config, "calibration", num_problems)
    tuning = lens.score([trace for group in _sampled(lens, lens.policy, calibration, 8, seed + 1) for trace in group])
    rule = choose_vote(trace_frame(lens, tuning))
    frame = trace_frame(lens, scored).assign(**likelihood_columns(lens, config, scored, tuning))
    found = report(frame, vote=rule, seed=seed)
    found["perturbed"] = perturbed_figures(lens, problems, seed)
    found["policies"] = {"this checkpoint": found["sampling"]}
    for name, path in (compare or {}).items():
        say(f"sampling the policy of {name}")
        found["policies"][name], found[f"difference to {name}"] = _compared(lens, path, problems, samples, seed, frame)
    found["provenance"] = {"checkpoint": lens.name, **lens.provenance, "problems": num_problems, "samples": samples}
    _write(out, lens, scored, problems, found)
    (out / "problems.jsonl").write_text(jsonl(example_rows(problems, traces)))
    (out / "MODEL_CARD.md").write_text(model_card(figures_markdown(found), _facts(lens, found)))
    return found


def _facts(lens: Lens, found: dict[str, Any]) -> dict[str, Any]:
    config = TrainConfig.from_dict(lens.config["train_config"])
    return {
        **found["provenance"],
        "name": lens.name,
        "policy_parameters": sum(p.numel() for p in lens.policy.parameters()),
        "discriminator_parameters": sum(p.numel() for p in lens.discriminator.parameters()),
        "families": len(FAMILIES),
        "vocabulary": len(lens.encoder.tokenizer),
        "warmup": config.discriminator.warmup_rounds,
        "sft_steps": load_config("demo-sft", presets_dir=PRESETS).run.steps,
        "expert_steps": load_config("demo-expert", presets_dir=PRESETS).run.steps,
    }


def _sampled(lens: Lens, policy: Any, problems: Sequence[WordProblem], samples: int, seed: int) -> list[list[Trace]]:
    length = int(lens.config["train_config"]["data"]["max_completion_tokens"])
    sampler = make_sampler(PolicyConfig(), lens.encoder)
    return sampled_traces(
        sampler, policy, lens.encoder, problems, num_samples=samples, seed=seed, max_new_tokens=length
    )


def trace_frame(lens: Lens, scored: Sequence[ScoredTrace]) -> pd.DataFrame:
    """One row a trace with what ``train.demo_report`` needs."""
    found = lens.calibration
    return pd.DataFrame([frame_row(one, found.rule, lens.locate(one).decision, found.threshold) for one in scored])


def frame_row(scored: ScoredTrace, rule: Rule, decision: str, threshold: float = -math.inf) -> dict[str, Any]:
    """A scored trace as a row of ``train.demo_report``'s frame; ``rule`` names a step also where nothing is flagged."""
    trace = scored.trace
    truth = trace.truth
    return {
        "problem_id": trace.problem_id,
        "text": trace.text,
        "answer": trace.answer,
        "correct": bool(trace.correct),
        "n_steps": sum(rule.include_answer or step.role == "reasoning" for step in trace.steps),
        "first_error_step": -1 if truth is None or truth.first_error_step is None else truth.first_error_step,
        "kind": None if truth is None else truth.kind,
        "length": len(scored.raw),
        "decision": decision,
        "log_prob_mean": float(scored.logprobs.mean()),
        "log_prob_min": float(scored.logprobs.min()),
        "predicted_reward": _named(scored, rule, threshold),
        "predicted_logprob": _named(scored, Rule("logprob", "min", "argmin", rule.include_answer)),
        "arithmetic_first_false_step": _or_none(first_false_step(trace)),
        **{name: trace_score(scored, name) for name in TRACE_SCORES},
    }


def likelihood_columns(
    lens: Lens, config: TrainConfig, scored: Sequence[ScoredTrace], tuning: Sequence[ScoredTrace]
) -> dict[str, Any]:
    """What likelihood alone ranks and locates, with its own rule chosen like the reward's on calibration traces: the
    policy's, and that of the model which the discriminator started from, where it is still there."""
    columns: dict[str, Any] = {}
    columns["located:policy log-probability, calibrated rule"] = likelihood_steps(lens, scored, tuning)
    start = Path(config.model.discriminator) if config.model.discriminator else None
    if start is not None and (start / "policy").is_dir():
        verify(start)
        model = load_causal_lm(start / "policy")
        ours, theirs = (with_likelihood(lens, traces, model) for traces in (scored, tuning))
        columns["score:anchor: log-probability under the discriminator's start, mean"] = [
            float(one.logprobs.mean()) for one in ours
        ]
        columns["located:anchor: log-probability under the discriminator's start, calibrated rule"] = likelihood_steps(
            lens, ours, theirs
        )
    return columns


def likelihood_steps(lens: Lens, scored: Sequence[ScoredTrace], tuning: Sequence[ScoredTrace]) -> list[int]:
    """The step that the best rule over log-probabilities names in each trace, the rule chosen on ``tuning``."""
    rules = candidate_rules(("logprob",), include_answer=(lens.calibration.rule.include_answer,))
    found = calibrate([held_out(one) for one in tuning], rules)
    return [_named(one, found.rule, found.threshold) for one in scored]


def with_likelihood(lens: Lens, scored: Sequence[ScoredTrace], model: Any) -> list[ScoredTrace]:
    """The same traces with the log-probabilities that ``model`` gives them."""
    encoded = [one.encoded for one in scored]
    values: list[Any] = [None] * len(encoded)
    lengths = [len(one.prompt_ids) + len(one.completion_ids) for one in encoded]
    for indices in token_budget_batches(lengths, 8192):
        with torch.no_grad():
            rows = completion_logprobs(model, collate([encoded[i] for i in indices], lens.encoder.pad_id)).numpy()
        for row, index in enumerate(indices):
            values[index] = rows[row, : len(encoded[index].completion_ids)].copy()
    return [replace(one, logprobs=value) for one, value in zip(scored, values, strict=True)]


def _named(scored: ScoredTrace, rule: Rule, threshold: float = -math.inf) -> int:
    signals = named_signals(scored)
    return _or_none(most_suspect(signals, scored.encoded.spans, scored.trace.steps, rule, threshold))


def _or_none(step: int | None) -> int:
    return -1 if step is None else step


def perturbed_figures(lens: Lens, problems: Sequence[WordProblem], seed: int) -> dict[str, Any]:
    """How often the first wrong step of a corrupted expert solution is named, by kind of corruption."""
    traces = [
        trace
        for problem in problems
        for trace in perturbed_traces(problem, random.Random(f"{seed}-{problem.problem_id}"))
    ]
    scored = lens.score(traces)
    rows = trace_frame(lens, scored)
    hits = located_hits(rows)
    ids = rows["problem_id"].to_numpy()
    figures: dict[str, Any] = {
        name: metrics.share(hits[name], ids, unit="perturbed traces", seed=seed).to_json()
        for name in ("reward", "log_prob", "arithmetic", "random_step")
    }
    figures["by_kind"] = {
        kind: metrics.share(hits["reward"][mine], ids[mine], unit="perturbed traces", seed=seed).to_json()
        for kind in sorted(set(rows["kind"]))
        for mine in [(rows["kind"] == kind).to_numpy()]
    }
    return figures


def perturbed_traces(problem: WordProblem, rng: random.Random) -> list[Trace]:
    """One corrupted copy of the expert solution for each kind that applies, with its first wrong step."""
    expert, traces = expert_trace(problem), []
    for kind in ALL_KINDS:
        change = corrupt(expert, rng, (kind,))
        if change is not None:
            trace = make_trace(
                problem.text, change.text, reference_answer=problem.answer, source=Source.PERTURBED,
                problem_id=problem.problem_id, trace_id=f"{problem.problem_id}/{kind}", extra={"perturbation": kind},
                truth=Truth(change.first_error_step, kind),
            )  # fmt: skip
            traces.append(trace)
    return traces


def _compared(
    lens: Lens, path: Path, problems: Sequence[WordProblem], samples: int, seed: int, frame: pd.DataFrame
) -> tuple[dict[str, Any], dict[str, Any]]:
    """pass@k of another policy on the same problems, and this one's pass@1 minus its, paired by problem."""
    verify(path)
    policy = load_causal_lm(path / "policy")
    groups = _sampled(lens, policy, problems, samples, seed)
    right = np.array([bool(trace.correct) for group in groups for trace in group], dtype=np.float64)
    ids = [trace.problem_id for group in groups for trace in group]
    figures = {
        f"pass@{k}": metrics.pass_at_k(right, ids, k, seed=seed).to_json() for k in (1, 3, 5, 10, 16) if k <= samples
    }
    mine = frame["correct"].to_numpy(dtype=np.float64).reshape(len(problems), -1).mean(1)
    return figures, metrics.paired_difference(mine, right.reshape(len(problems), -1).mean(1), seed=seed).to_json()


def _write(
    out: Path, lens: Lens, scored: Sequence[ScoredTrace], problems: Sequence[WordProblem], found: dict[str, Any]
) -> None:
    solutions = {problem.problem_id: problem for problem in problems}
    rows = [
        row_of(one, lens.locate(one), run_id=f"{lens.name}-held-out")
        | {
            "reference_solution": solutions[one.trace.problem_id].solution,
            "family": solutions[one.trace.problem_id].family,
        }
        for one in scored
    ]
    write_run(out / "run.parquet", rows, found["provenance"])
    (out / "report.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    (out / "figures.md").write_text(figures_markdown(found))


def figures_markdown(found: dict[str, Any]) -> str:
    """The report's tables, with the policies and the perturbed traces."""

    def cell(figure: dict[str, Any]) -> str:
        if figure["value"] is None:
            return f"undefined: {figure['reason']}"
        low, high = figure["interval"]
        return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"

    ks = list(found["sampling"])
    lines = [
        "| policy | " + " | ".join(ks) + " | pass@1 of this checkpoint minus its |",
        "| --- " * (len(ks) + 2) + "|",
    ]
    for name, figures in found["policies"].items():
        difference = cell(found[f"difference to {name}"]) if f"difference to {name}" in found else ""
        lines.append(f"| {name} | " + " | ".join(cell(figures[k]) for k in ks if k in figures) + f" | {difference} |")
    perturbed = found["perturbed"]
    titles = {
        "reward": "reward",
        "log_prob": "least likely token",
        "arithmetic": "arithmetic checker",
        "random_step": "random step",
    }
    lines += ["", "| first wrong step of perturbed expert traces | value | n |", "| --- | --- | --- |"]
    lines += [f"| {title} | {cell(perturbed[key])} | {perturbed[key]['n']} |" for key, title in titles.items()]
    lines += [f"| reward, {kind} | {cell(f)} | {f['n']} |" for kind, f in perturbed["by_kind"].items()]
    return markdown(found) + "\n" + "\n".join(lines) + "\n"
