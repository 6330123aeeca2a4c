"""A scored run of sampled traces -> the figures of a model card, each with n and 95 % interval. Pure aggregation.

The frame has one row a sampled trace:

- ``problem_id``, ``text``, ``answer`` (None = none found), ``correct`` (bool), ``n_steps`` (steps that may be named;
  leave closing lines out where the rule does), ``first_error_step`` (the true one, -1 = none), ``kind`` of the mistake;
- ``log_prob_mean``, ``log_prob_min`` (the policy's, over tokens), ``length``: the scores that need no reward;
- any of ``SCORES``: trace scores of the reward;
- ``predicted_reward`` (the rule's choice, whatever the threshold says), ``predicted_logprob`` (the step of the least
  likely token), ``arithmetic_first_false_step``: located steps, -1 = none;
- ``decision``: error, no_error or uncertain, at the calibrated threshold;
- any further ``score:NAME`` and ``located:NAME``: other scores and located steps to stand beside the reward's. A NAME
  that begins with ``anchor`` is part of the reward itself before its adversarial training: shown, but no rival.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from irl_core import metrics
from irl_core.metrics import NO_ERROR, UNDECIDED, Figure

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Report = dict[str, Any]

SCORES = ("min", "minimum", "mean", "mean_discounted", "last", "credit_sum", "credit_minimum")
WITHOUT_REWARD = ("log_prob_mean", "log_prob_min")
REQUIRED = (
    *("problem_id", "text", "answer", "correct", "n_steps", "first_error_step", "kind", "length", "decision"),
    *(*WITHOUT_REWARD, "predicted_reward", "predicted_logprob", "arithmetic_first_false_step"),
)
TEMPERATURES = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0)  # in standard deviations of the score

NAMES = {
    "log_prob_mean": "policy log-probability, mean",
    "log_prob_min": "policy log-probability, lowest",
    "shortness": "shortness",
    "random": "random score per distinct text",
}


class Vote(NamedTuple):
    """The rule of a reward-weighted vote: weights are exp(score / temperature)."""

    score: str
    temperature: float


# ---------------------------------------------------------------------------------------------- the frame


def _checked(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its columns proven to be there. Raises ValueError naming what is missing or contradictory."""
    if missing := [name for name in REQUIRED if name not in frame.columns]:
        raise ValueError(f"the scored run lacks the columns {', '.join(missing)}")
    if not reward_scores(frame):
        raise ValueError(f"the scored run has no trace score; it needs one of {', '.join(SCORES)}")
    if not len(frame):
        raise ValueError("the scored run is empty; score at least two problems")
    unknown = set(frame["decision"]) - {"error", "no_error", "uncertain"}
    if unknown:
        raise ValueError(f"decision is {sorted(map(str, unknown))[0]!r}; it is error, no_error or uncertain")
    return frame.reset_index(drop=True)


def reward_scores(frame: pd.DataFrame) -> list[str]:
    """The reward's trace scores that the frame has, in the order of ``SCORES``."""
    return [name for name in SCORES if name in frame.columns]


def _numbers(frame: pd.DataFrame, name: str) -> Array:
    return frame[name].to_numpy(dtype=np.float64)


def _further(frame: pd.DataFrame, prefix: str) -> list[str]:
    return [str(column).removeprefix(prefix) for column in frame.columns if str(column).startswith(prefix)]


def _answers(frame: pd.DataFrame) -> list[str | None]:
    return [None if pd.isna(answer) else str(answer) for answer in frame["answer"]]


def _all_scores(frame: pd.DataFrame, seed: int) -> dict[str, Array]:
    """Every score to be compared, the reward's first, higher = better."""
    scores = {name: _numbers(frame, name) for name in (*reward_scores(frame), *WITHOUT_REWARD)}
    scores |= {name: _numbers(frame, f"score:{name}") for name in _further(frame, "score:")}
    scores["shortness"] = -_numbers(frame, "length")
    scores["random"] = metrics.random_text_scores(
        [f"{p}\0{t}" for p, t in zip(frame["problem_id"], frame["text"], strict=True)], seed
    )
    return scores


# ---------------------------------------------------------------------------------------------- the vote's rule


def choose_vote(frame: pd.DataFrame) -> Vote:
    """The score and temperature whose weighted vote elects most right answers on *these* problems: calibration
    problems, never the reported ones. Of equals the earlier score and the higher temperature (nearer to majority)."""
    ids, right, answers = list(frame["problem_id"]), _numbers(frame, "correct"), _answers(frame)
    best, best_share = None, -math.inf
    for name in reward_scores(frame):
        scores = _numbers(frame, name)
        spread = float(np.nanstd(scores))
        for times in sorted(TEMPERATURES, reverse=True):
            temperature = times * spread if spread > 0 else 1.0
            share = float(metrics.vote(answers, right, ids, scores, temperature).mean())
            if share > best_share + 1e-12:
                best, best_share = Vote(name, temperature), share
    if best is None:
        raise ValueError(f"no trace score to vote with; the frame needs one of {', '.join(SCORES)} and a row")
    return best


# ---------------------------------------------------------------------------------------------- sections


def _run(frame: pd.DataFrame) -> Report:
    sizes = frame.groupby("problem_id").size()
    right, known = _right(frame), _true_steps(frame) != NO_ERROR
    return {
        "problems": len(sizes),
        "traces": len(frame),
        "samples_per_problem": [int(sizes.min()), int(sizes.max())],
        "correct": int(right.sum()),
        "wrong": int((~right).sum()),
        "wrong_without_known_step": int((~right & ~known).sum()),
        "correct_with_wrong_step": int((right & known).sum()),
    }


def _right(frame: pd.DataFrame) -> Flags:
    return frame["correct"].to_numpy(dtype=bool)


def _wrong_traces(frame: pd.DataFrame) -> Flags:
    """Wrong answer with a known first wrong step: what locating is judged on."""
    return ~_right(frame) & (_true_steps(frame) != NO_ERROR)


def _sound_traces(frame: pd.DataFrame) -> Flags:
    """Right answer without a wrong step: what must not be flagged."""
    return _right(frame) & (_true_steps(frame) == NO_ERROR)


def _true_steps(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    return frame["first_error_step"].fillna(NO_ERROR).to_numpy(dtype=np.int64)


def _sampling(frame: pd.DataFrame, seed: int) -> Report:
    ids, right = list(frame["problem_id"]), _numbers(frame, "correct")
    smallest = int(frame.groupby("problem_id").size().min())
    sizes = sorted({k for k in (1, 3, 5, 10, 16) if k <= smallest} | {smallest})
    return {f"pass@{k}": metrics.pass_at_k(right, ids, k, seed=seed) for k in sizes}


def _ranking(frame: pd.DataFrame, seed: int) -> Report:
    """For each score: pairs of the same problem ranked right, r within problems, pooled AUC, d and best of N."""
    ids, right = list(frame["problem_id"]), _numbers(frame, "correct")
    rows = {}
    for name, scores in _all_scores(frame, seed).items():
        apart = metrics.separation(scores, right, ids)
        rows[name] = {
            "pair_accuracy": metrics.pair_accuracy(scores, right, ids, seed=seed),
            "within_r": metrics.within_problem_correlation(scores, right, ids, seed=seed),
            "auc": apart.auc,
            "cohens_d": apart.cohens_d,
            "best_of_n": _best(name, scores, frame, seed),
        }
    return rows


def _best(name: str, scores: Array, frame: pd.DataFrame, seed: int) -> Figure:
    ids, right = list(frame["problem_id"]), _numbers(frame, "correct")
    if name == "random":  # in expectation, not one draw
        return metrics.mean_over_problems(metrics.random_text(list(frame["text"]), right, ids), seed=seed)
    return metrics.pass_at_k_of_n(scores, right, ids, seed=seed)


def _choosing(frame: pd.DataFrame, vote: Vote, seed: int) -> Report:
    ids, right, answers = list(frame["problem_id"]), _numbers(frame, "correct"), _answers(frame)
    majority = metrics.vote(answers, right, ids)
    weighted = metrics.vote(answers, right, ids, _numbers(frame, vote.score), vote.temperature)
    likely = metrics.vote(answers, right, ids, _numbers(frame, "log_prob_mean"), _spread(frame, "log_prob_mean"))
    figures = {"majority": majority, "weighted_vote": weighted, "log_prob_vote": likely}
    figures["oracle"] = metrics.oracle(right, ids)
    result: Report = {name: metrics.mean_over_problems(values, seed=seed) for name, values in figures.items()}
    result["weighted_vote_minus_majority"] = metrics.paired_difference(weighted, majority, seed=seed)
    return result


def _spread(frame: pd.DataFrame, name: str) -> float:
    """One standard deviation of a score, the temperature of the vote that is only a baseline."""
    spread = float(np.nanstd(_numbers(frame, name)))
    return spread if spread > 0 else 1.0


def located_hits(frame: pd.DataFrame) -> dict[str, Array]:
    """How often each method names the true step of each trace, in expectation where it draws. Abstaining is 0."""
    true, steps = _true_steps(frame), np.maximum(_numbers(frame, "n_steps"), 1)
    named = {
        "reward": frame["predicted_reward"],
        "log_prob": frame["predicted_logprob"],
        "arithmetic": frame["arithmetic_first_false_step"],
        "first_step": 0,
        "middle_step": (steps - 1) // 2,
        "last_step": steps - 1,
    }
    named |= {name: frame[f"located:{name}"] for name in _further(frame, "located:")}
    hits = {name: (_as_step(value, len(frame)) == true).astype(np.float64) for name, value in named.items()}
    hits["random_step"] = np.where(true < steps, 1 / steps, 0.0)
    return hits


def _as_step(value: Any, n: int) -> Array:
    """A column, array or number as step labels; missing = no step."""
    column = pd.Series(value if np.ndim(value) else [value] * n, dtype="float64")
    return column.fillna(NO_ERROR).to_numpy(dtype=np.float64)


def _first_step(frame: pd.DataFrame, seed: int) -> Report:
    """Exact first wrong step over the wrong traces; the reward against the best of the others."""
    part = frame[_wrong_traces(frame)].reset_index(drop=True)
    ids, hits = list(part["problem_id"]), located_hits(part)
    result: Report = {name: metrics.share(values, ids, unit="wrong traces", seed=seed) for name, values in hits.items()}
    rivals = [n for n in result if n != "reward" and not n.startswith("anchor") and result[n].defined]
    if rivals:
        best = max(rivals, key=lambda name: result[name].value)
        margin = metrics.share_difference(hits["reward"], hits[best], ids, unit="wrong traces", seed=seed)
        result["reward_minus_best_baseline"], result["best_baseline"] = margin, best
    return result


def _arithmetic(frame: pd.DataFrame, seed: int) -> Report:
    """The checker's coverage of wrong traces, how often it is right when it speaks, and its false alarms."""
    true, said = _true_steps(frame), _as_step(frame["arithmetic_first_false_step"], len(frame))
    ids = frame["problem_id"].to_numpy()
    wrong, sound, spoke = _wrong_traces(frame), _sound_traces(frame), said != NO_ERROR
    return {
        "coverage": metrics.share(spoke[wrong], ids[wrong], unit="wrong traces", seed=seed),
        "right_when_it_speaks": metrics.share((said == true)[wrong & spoke], ids[wrong & spoke], seed=seed),
        "correct_flagged": metrics.share(spoke[sound], ids[sound], unit="correct traces", seed=seed),
    }


def _decisions(frame: pd.DataFrame, seed: int) -> Report:
    """At the calibrated threshold: ProcessBench's figures, MCC, and what became of correct traces."""
    part = frame[_wrong_traces(frame) | _sound_traces(frame)].reset_index(drop=True)
    true, named = _true_steps(part), _as_step(part["predicted_reward"], len(part))
    said, ids = part["decision"].to_numpy(dtype=str), part["problem_id"].to_numpy()
    predicted = np.where(said == "error", named, np.where(said == "no_error", NO_ERROR, UNDECIDED))
    found = metrics.first_error(true, predicted, ids, seed=seed)
    shares = {}
    for group, rows in (("correct", true == NO_ERROR), ("wrong", true != NO_ERROR)):
        for name in ("error", "uncertain"):
            flags = (said == name)[rows]
            shares[f"{group}_{name}"] = metrics.share(flags, ids[rows], unit=f"{group} traces", seed=seed)
    judged = {"error_acc": found.error_acc, "correct_acc": found.correct_acc, "f1": found.f1}
    return {**judged, "mcc": metrics.mr_gsm8k(true, predicted, ids, seed=seed).mcc, **shares}


def _kinds(frame: pd.DataFrame, seed: int) -> Report:
    """For each kind of mistake, most frequent first: its share of wrong traces and how often each method finds it."""
    part = frame[_wrong_traces(frame)].reset_index(drop=True)
    kinds, hits = part["kind"].fillna("unknown").astype(str), located_hits(part)
    ids, rows = part["problem_id"].to_numpy(), {}
    for kind in kinds.value_counts(sort=True).index:
        mine = (kinds == kind).to_numpy()
        found = {
            name: metrics.share(hits[name][mine], ids[mine], unit="wrong traces", seed=seed)
            for name in ("reward", "log_prob", "arithmetic")
        }
        rows[str(kind)] = {"share": metrics.share(mine, ids, unit="wrong traces", seed=seed), **found}
    return rows


# ---------------------------------------------------------------------------------------------- report


def report(frame: pd.DataFrame, *, vote: Vote | None = None, seed: int = 0) -> Report:
    """All figures of a scored run as plain values: a figure is {value, n, interval, method, reason}.

    ``vote`` is the rule found by `choose_vote` on calibration problems; without one the first trace score at one
    standard deviation is used, and the report says that it was not chosen. Raises ValueError naming missing columns.
    """
    checked = _checked(frame)
    first = reward_scores(checked)[0]
    rule = vote or Vote(first, _spread(checked, first))
    if rule.score not in checked.columns:
        raise ValueError(f"the vote's score {rule.score!r} is not in the scored run; it has {reward_scores(checked)}")
    sections = {
        "run": _run(checked),
        "sampling": _sampling(checked, seed),
        "ranking": _ranking(checked, seed),
        "choosing": _choosing(checked, rule, seed),
        "vote": {"score": rule.score, "temperature": rule.temperature, "chosen_on_calibration": vote is not None},
        "first_step": _first_step(checked, seed),
        "arithmetic": _arithmetic(checked, seed),
        "decisions": _decisions(checked, seed),
        "kinds": _kinds(checked, seed),
    }
    return {name: _plain(section) for name, section in sections.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Figure):
        return value.to_json()
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


# ---------------------------------------------------------------------------------------------- markdown


def markdown(found: Report) -> str:
    """The report as Markdown tables. A figure without an interval shows as its reason, never as a bare number."""
    run = found["run"]
    low, high = run["samples_per_problem"]
    samples = str(low) if low == high else f"{low}-{high}"
    head = (
        f"{run['problems']} problems x {samples} samples: {run['traces']} traces, {run['correct']} with a right and "
        f"{run['wrong']} with a wrong answer. Left out of locating: {run['wrong_without_known_step']} wrong ones "
        f"whose first wrong step is not known, {run['correct_with_wrong_step']} right ones with a wrong step. "
        "Brackets hold 95 % intervals, over problems."
    )
    parts = [head, _sampling_table(found), _choosing_table(found), _ranking_table(found)]
    parts += [_steps_table(found), _decisions_table(found), _kinds_table(found)]
    return "\n\n".join(parts) + "\n"


def _table(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _cell(figure: dict[str, Any]) -> str:
    if figure["value"] is None or figure["interval"] is None:
        return f"undefined: {figure['reason']}"
    low, high = figure["interval"]
    return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"


def _rows(figures: dict[str, dict[str, Any]], names: dict[str, str]) -> list[list[str]]:
    return [[title, _cell(figures[key]), str(figures[key]["n"])] for key, title in names.items() if key in figures]


def _sampling_table(found: Report) -> str:
    return _table(["policy", "value", "problems"], _rows(found["sampling"], {key: key for key in found["sampling"]}))


def _choosing_table(found: Report) -> str:
    rule = found["vote"]
    origin = "chosen on calibration problems" if rule["chosen_on_calibration"] else "not chosen on calibration problems"
    names = {
        "majority": "majority vote",
        "log_prob_vote": "vote weighted by mean log-probability",
        "weighted_vote": f"vote weighted by exp({rule['score']} / {rule['temperature']:.3g}), {origin}",
        "weighted_vote_minus_majority": "weighted vote - majority (paired)",
        "oracle": "oracle (any sample correct)",
    }
    return _table(["one answer out of all samples", "value", "problems"], _rows(found["choosing"], names))


def _ranking_table(found: Report) -> str:
    columns = ("pair_accuracy", "within_r", "auc", "cohens_d", "best_of_n")
    titles = ["trace score", "pairs within a problem", "r within problems", "AUC, pooled", "Cohen's d", "best of N"]
    rows = [[NAMES.get(name, name), *(_cell(row[c]) for c in columns)] for name, row in found["ranking"].items()]
    first = next(iter(found["ranking"].values()))
    titles[1] += f" (n {first['pair_accuracy']['n']})"
    titles[3] += f" (n {first['auc']['n']})"
    titles[5] += f" (n {first['best_of_n']['n']})"
    return _table(titles, rows)


def _steps_table(found: Report) -> str:
    steps = found["first_step"]
    names = {
        "reward": "reward, calibrated rule",
        "log_prob": "least likely token",
        "arithmetic": "arithmetic checker (silence counts as wrong)",
        "random_step": "random step",
        "first_step": "first step",
        "middle_step": "middle step",
        "last_step": "last step",
    }
    others = [name for name in steps if name not in names and not name.startswith(("reward_", "best_"))]
    names = {"reward": names.pop("reward"), **{name: name for name in others}, **names}
    rows = _rows(steps, names)
    if "best_baseline" in steps:
        best = names[steps["best_baseline"]]
        rows += _rows(steps, {"reward_minus_best_baseline": f"reward - {best} (paired)"})
    about = {
        "coverage": "arithmetic checker: speaks",
        "right_when_it_speaks": "arithmetic checker: right when it speaks",
    }
    return _table(["first wrong step, exact", "value", "wrong traces"], rows + _rows(found["arithmetic"], about))


def _decisions_table(found: Report) -> str:
    names = {
        "correct_error": "correct traces flagged",
        "correct_uncertain": "correct traces left uncertain",
        "correct_acc": "correct traces: 'no error'",
        "wrong_error": "wrong traces flagged",
        "wrong_uncertain": "wrong traces left uncertain",
        "error_acc": "wrong traces: exact first step",
        "f1": "F1 (ProcessBench)",
        "mcc": "MCC (wrong against correct)",
    }
    rows = _rows(found["decisions"], names)
    rows += _rows(found["arithmetic"], {"correct_flagged": "correct traces flagged by the arithmetic checker"})
    return _table(["at the calibrated threshold", "value", "traces"], rows)


def _kinds_table(found: Report) -> str:
    columns = ("share", "reward", "log_prob", "arithmetic")
    rows = [[kind, *(_cell(row[c]) for c in columns), str(row["reward"]["n"])] for kind, row in found["kinds"].items()]
    titles = ["kind of mistake", "share", "reward", "least likely token", "arithmetic checker", "wrong traces"]
    return _table(titles, rows)
