"""The report in Markdown: the questions with their answers first, then each section's tables, cited ones apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from irl_core.evaluation import published
from irl_core.evaluation.report import QUESTIONS
from irl_core.evaluation.scores import REWARD_SCORES
from irl_core.evaluation.wording import difference
from irl_core.report.tables import Table, cell, count_cell, escaped, markdown
from irl_core.storage.provenance import machine_in_words

Section = Mapping[str, Any]

HEADINGS = {
    "pass_at_k": "pass@k",
    "separation": "Separation",
    "reranking": "Reranking",
    "correlation": "Correlation",
    "localisation": "Localisation",
    "training": "Training",
    "probes": "Reward-hacking probes",
}


def to_markdown(report: Mapping[str, Any]) -> str:
    """The whole report. Texts that come from data or models are escaped."""
    parts = [f"# Evaluation of {escaped(str(report['provenance'].get('checkpoint', 'a scored run')))}\n"]
    parts += [f"- {escaped(line)}" for line in origin(report["provenance"])]
    parts += ["", "Brackets hold 95 % intervals, over problems where nothing else is said; n counts what they are of."]
    for question, names in QUESTIONS.items():
        parts += [f"\n## {question}\n", *(f"{escaped(report[name]['paragraph'])}\n" for name in names)]
    for name, heading in HEADINGS.items():
        parts.append(f"\n## {heading}\n")
        parts += [markdown(table) for table in section_tables(name, report[name])]
        parts += [_cited(table) for table in published.beside(name)]
    parts.append("\n## Published figures that were not found\n")
    parts += [f"- {escaped(line)}" for line in published.NOT_FOUND]
    return "\n".join(parts) + "\n"


def origin(provenance: Mapping[str, Any]) -> Iterator[str]:
    """Lines that say what was evaluated, on what, when, on which machine and with which seed."""
    known = dict(provenance)
    name, sha = known.get("checkpoint", "not known"), known.get("checkpoint_sha256")
    yield f"checkpoint: {name}" + (f" (sha256 {sha})" if sha else "")
    if "input" in known:
        yield f"data: {known['input']} (sha256 {known.get('input_sha256', 'not known')})"
    counted = [f"{known[key]} {key}" for key in ("problems", "samples") if key in known]
    traces = known.get("report", {}).get("traces", {})
    yield ", ".join([*counted, *(f"{count} {_FILES[name]}" for name, count in traces.items() if count)])
    if "temperature" in known and "samples" in known:  # given solutions were not sampled here
        yield f"sampled at temperature {known['temperature']:g}, top-p {known['top_p']:g}"
    if "seed" in known:
        yield f"seed: {known['seed']}; of the bootstrap: {known.get('report', {}).get('seed')}"
    if "created" in known or "date" in known:
        yield f"date: {known.get('created', known.get('date'))}"
    if isinstance(known.get("machine"), dict):
        yield f"machine: {machine_in_words(known['machine'])}"
    commit = (known.get("code") or {}).get("commit") if isinstance(known.get("code"), dict) else None
    if commit:
        yield f"code: {commit}" + (", with changes that are not committed" if known["code"].get("dirty") else "")


_FILES = {"run": "traces", "perturbed": "corrupted copies", "probes": "probes with their honest solutions"}


def section_tables(name: str, found: Section) -> list[Table]:
    """The measured tables of a section that have something to say."""
    return [table for table in _TABLES[name](found) if table.rows]


def summary(report: Mapping[str, Any], level: int = 2) -> str:
    """The questions with their answers as headings of a level, and the tables of ``SHOWN``."""
    mark, parts = "#" * level, []
    for question, names in QUESTIONS.items():
        parts += [f"{mark} {question}\n", *(f"{escaped(report[name]['paragraph'])}\n" for name in names)]
    for name, titles in SHOWN.items():
        parts += [markdown(table) for table in section_tables(name, report[name]) if table.title in titles]
    return "\n".join(parts)


# What a summary shows of the report; the rest is in report.json.
SHOWN = {
    "pass_at_k": ("pass@k by policy",),
    "separation": ("Correct against incorrect traces of the same problem",),
    "reranking": ("Best of N", "Votes weighted by exp(score / temperature)"),
    "localisation": (
        "First wrong step, traces of the run",
        "What was decided, at the held-out threshold",
        "Kinds of mistakes",
        "First wrong step, corrupted expert traces",
    ),
    "probes": ("What fools which score",),
}


def _cited(table: published.Table) -> str:
    """A published table, under its own heading and with its source: never beside a measured column."""
    rows = [[row.name, *row.cells] for row in table.rows]
    note = f"Cited, not measured here. Source: {table.source}, {table.place}. {table.note}"
    shown = markdown(Table(f"Published: {table.title}", ["", *table.columns], rows, note))
    return f"{shown}\nRead at {table.seen}.\n"


def _cells(figures: Section, names: Iterable[str]) -> list[str]:
    return [cell(figures.get(name)) for name in names]


# ------------------------------------------------------------------------------------------------- pass@k, separation


def _pass_at_k(found: Section) -> Iterator[Table]:
    ks = list(next(iter(found["policies"].values())))
    rows = [
        [name, *(cell(figures[k]) for k in ks), _verdict(found["differences"].get(name, {}).get("1"))]
        for name, figures in found["policies"].items()
    ]
    head = ["policy", *(f"pass@{k}" for k in ks), "pass@1 of this run minus its"]
    yield Table("pass@k by policy", head, rows, "The differences are paired by problem.")


def _verdict(figure: Section | None) -> str:
    return "" if figure is None else f"{difference(dict(figure))} (n {figure['n']})"


def _separation(found: Section) -> Iterator[Table]:
    titles, rows = found["titles"], found["scores"]
    pooled = ("difference", "cohens_d", "auc", "t", "p", "clustered_t", "clustered_p")
    head = ["score", "correct less incorrect", "Cohen's d", "AUC", "Welch t", "p", "t over problems", "p over problems"]
    yield Table(
        "Correct against incorrect traces, pooled",
        head,
        [[titles[name], *_cells(row["pooled"], pooled)] for name, row in rows.items()],
        "Welch's test takes traces as independent, which samples of one problem are not; the last two columns do not.",
    )
    within = ["pair_accuracy", "minus_log_prob", "cohens_d", "auc"]
    head = ["score", "pairs ranked right", "less mean log-probability", "Cohen's d", "AUC"]
    if any("minus_start" in row["within"] for row in rows.values()):
        within.insert(2, "minus_start")
        head.insert(3, "less the discriminator's start")
    yield Table(
        "Correct against incorrect traces of the same problem",
        head,
        [[titles[name], *_cells(row["within"], within)] for name, row in rows.items()],
        "d and AUC after each problem's mean is subtracted, over the problems that have both kinds.",
    )


# ------------------------------------------------------------------------------------------------- reranking


def _reranking(found: Section) -> Iterator[Table]:
    if not found["by_score"]:
        return
    titles = found["titles"]
    rows = [
        [titles[name], *(cell(figures[k].get("value")) for k in _KS), *_cells(figures["1"], _RIVALS)]
        for name, figures in found["by_score"].items()
    ]
    rows += [[titles[name], *_cells(figures, _KS), "", ""] for name, figures in found["baselines"].items()]
    head = ["chosen by", "pass@1|N", "pass@3|N", "pass@5|N", "pass@1|N less random text", "less majority"]
    yield Table("Best of N", head, rows, found["ties"])
    yield from _votes(found)
    needed = found["samples_needed"]
    rows = [
        [_CURVES.get(name, name), cell(figure) if name == "target" else count_cell(figure)]
        for name, figure in needed.items()
    ]
    title = "Samples a problem that reach the majority's accuracy with all of them"
    yield Table(title, ["way to choose", "samples"], rows)


_KS = ("1", "3", "5")
_RIVALS = ("minus_random_text", "minus_majority")
_CURVES = {
    "target": "(the accuracy to be reached)",
    "majority": "majority vote",
    "weighted_vote": "reward-weighted vote",
    "log_prob_vote": "vote weighted by log-probability",
    "best_of": "best of N by the vote's score",
    "oracle": "oracle",
    "saved_to_majority": "saved by the reward-weighted vote, beside majority",
    "saved_to_log_prob_vote": "saved by it, beside the log-probability vote",
}


def _votes(found: Section) -> Iterator[Table]:
    rule, titles = found["vote"], found["titles"]
    where = "chosen on calibration problems" if rule["chosen_on_calibration"] else "not chosen on other problems"
    keys, head = ("value", *_RIVALS), ["score", "right", "less random text", "less majority"]
    first = f"{titles[rule['score']]}, temperature {rule['temperature']:.3g}, {where}"
    rows = [[first, *_cells(found["weighted_vote"], keys)]]
    rows += [[f"{titles[name]}, one standard deviation", *_cells(row, keys)] for name, row in found["votes"].items()]
    yield Table("Votes weighted by exp(score / temperature)", head, rows)


# ------------------------------------------------------------------------------------------------- correlation


def _correlation(found: Section) -> Iterator[Table]:
    titles = found["titles"]
    for kind in ("pearson", "spearman"):
        rest = [name for name in titles if name not in REWARD_SCORES]
        rows = [[titles[name], *_cells(found[kind][name], rest)] for name in REWARD_SCORES]
        note = "report.json holds every pair."
        yield Table(f"{kind.capitalize()} correlation", ["", *(titles[name] for name in rest)], rows, note)
    head = ["score", *(f"{where}, {what}" for where in ("pooled", "within problems") for what in _REMOVED.values())]
    rows = [
        [titles[name], *_cells(parts["pooled"], _REMOVED), *_cells(parts["within"], _REMOVED)]
        for name, parts in found["partial"].items()
    ]
    yield Table("Correlation with correctness, with length and likelihood removed", head, rows)


_REMOVED = {
    "nothing": "nothing removed",
    "length": "length removed",
    "length_and_log_prob": "length and log-probability removed",
}


# ------------------------------------------------------------------------------------------------- localisation


def _localisation(found: Section) -> Iterator[Table]:
    if found["reason"]:
        return
    titles, rows = found["titles"], found["methods"]
    keys = ("exact", "reward_minus_this", "error_acc", "correct_acc", "f1", "step_accuracy", "mcc")
    head = ["method", "exact", "reward less this", "error_acc", "correct_acc", "F1", "MR-GSM8K step accuracy", "MCC"]
    table = [[titles[name], *(_or_dash(row.get(key)) for key in keys)] for name, row in rows.items()]
    if rows:
        for key, title in (("oracle", "reward, oracle threshold"), ("forced", "reward, undecided counted as no error")):
            table.append([title, "", "", *(_or_dash(found[key].get(name)) for name in keys[2:])])
    yield Table(
        "First wrong step, traces of the run", head, table,
        "A dash: the method names a step in every trace and has no threshold. The oracle threshold has the best F1 on "
        "these very traces, and is an upper bound.",
    )  # fmt: skip
    if rows:
        yield from _judgement(found)
    yield from _on_corrupted(found)


def _or_dash(figure: Section | None) -> str:
    if figure is not None and figure["value"] is None and "names a step in every trace" in figure["reason"]:
        return "-"
    return cell(None if figure is None else dict(figure))


def _judgement(found: Section) -> Iterator[Table]:
    rows = [[_DECISIONS[key], cell(figure)] for key, figure in found["decisions"].items()]
    yield Table("What was decided, at the held-out threshold", ["truth and decision", "share"], rows)
    rows = [[title, cell(found["distance"][key])] for key, title in _DISTANCES.items()]
    yield Table("Distance of the named from the true step, in wrong traces", ["", "steps or share"], rows)
    rows = [
        [f"{one['low']:.1f} to {one['high']:.1f}", f"{one['confidence']:.3f}", cell(one["right"])]
        for one in found["reliability"]["bins"]
        if one["confidence"] is not None
    ]
    error, left_out = cell(found["reliability"]["ece"]), found["reliability"]["left_out"]
    note = f"Expected calibration error: {error}. Undecided traces left out: {left_out}."
    yield Table("Confidence and how often it is right", ["confidence", "mean", "decision right"], rows, note)
    yield _conformal(found["conformal"])
    kinds = found["kinds"]
    names = ["share", *(name for name in found["titles"] if any(name in row for row in kinds.values()))]
    head = ["kind", *("share of wrong traces" if name == "share" else found["titles"][name] for name in names)]
    yield Table("Kinds of mistakes", head, [[kind, *_cells(row, names)] for kind, row in kinds.items()])


_DECISIONS = {
    f"{truth}_{said}": f"{truth} traces: '{said.replace('_', ' ')}'"
    for truth in ("correct", "wrong")
    for said in ("error", "uncertain", "no_error")
}
_DISTANCES = {
    "mean_absolute": "distance, steps",
    "mean": "named less true, steps (below 0: too early)",
    "within_one": "at most one step away",
    "too_early": "too early",
    "too_late": "too late",
}


def _conformal(found: Section) -> Table:
    rows = [
        [
            "not known" if one["alpha"] is None else f"{one['alpha']:g}" + (" (promised)" if one["promised"] else ""),
            cell(one["flagged"]),
            one["verdict"],
            "" if one["expected"] is None else f"{one['expected'][0]:.3f} to {one['expected'][1]:.3f}",
        ]
        for one in found["levels"]
    ]
    known = f"Calibrated on {found['n']} correct traces of other problems; the range holds 95 % of such calibrations."
    note = found["reason"] or known
    return Table("Correct traces that are flagged", ["at most", "flagged", "verdict", "range expected"], rows, note)


def _on_corrupted(found: Section) -> Iterator[Table]:
    spoilt, titles = found["perturbed"], found["titles"]
    if spoilt["reason"]:
        return
    rows = [[titles[name], *_cells(row, ("exact", "reward_minus_this"))] for name, row in spoilt["methods"].items()]
    yield Table("First wrong step, corrupted expert traces", ["method", "exact", "reward less this"], rows)
    names = list(spoilt["methods"])
    rows = [[kind, *_cells(row, names)] for kind, row in spoilt["kinds"].items()]
    yield Table("First wrong step by corruption", ["corruption", *(titles[name] for name in names)], rows)
    areas = {kind: row for kind, row in spoilt["token_auc"].items() if row}
    columns = [(signal, where) for signal in next(iter(areas.values()), {}) for where in ("at", "from")]
    head = ["corruption", *(f"{signal}, {where}" for signal, where in columns)]
    rows = [[kind, *(cell(row[signal][where]) for signal, where in columns)] for kind, row in areas.items()]
    note = "AUC of a low value: the first corrupted token (at) or all from it on (from), against those before it."
    yield Table("Corrupted tokens", head, rows, note)
    step = spoilt["within_step"]
    rows = [[title, cell(step[key])] for key, title in _WITHIN.items()]
    yield Table("Within the wrong step: the most suspect token", ["", "share or tokens"], rows)


_WITHIN = {
    "token_exact": "is the corrupted one",
    "random_token": "a random token of the step is the corrupted one",
    "same_part": "stands in the same part of the equation",
    "first_equation": "stands in the step's first equation",
    "distance": "distance to the corrupted one, in tokens",
}


# ------------------------------------------------------------------------------------------------- training, probes


def _training(found: Section) -> Iterator[Table]:
    if found["reason"]:
        return
    rows = [[str(one["step"]), cell(one["pass@1"])] for one in found["held_out"]]
    yield Table("pass@1 on held-out problems", ["step", "pass@1"], rows)
    titles = found["titles"]
    rows = [[f"change, {titles.get(key, key)}", cell(figure)] for key, figure in found["change"].items()]
    rows += [
        [f"rank correlation of the reward with: {titles.get(key, key)}, {what}", cell(figure)]
        for key, parts in found["rank_correlation"].items()
        for what, figure in parts.items()
    ]
    yield Table("Reward and correctness over steps", ["", "value"], rows)


def _probes(found: Section) -> Iterator[Table]:
    if found["reason"]:
        return
    names = (*REWARD_SCORES, "log_prob_mean")
    rows = [
        [found["probe_titles"][probe], *(cell(one["scores"][name]["fooled"]) for name in names)]
        for probe, one in found["probes"].items()
    ]
    note = "Share of pairs in which the probe scores higher than its honest solution; above 0.5 it fools the score."
    yield Table("What fools which score", ["probe", *(found["titles"][name] for name in names)], rows, note)


_TABLES = {
    "pass_at_k": _pass_at_k,
    "separation": _separation,
    "reranking": _reranking,
    "correlation": _correlation,
    "localisation": _localisation,
    "training": _training,
    "probes": _probes,
}
