"""``irl-lens inspect``: a solution scored token by token, in the terminal, as JSON or as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irl_core.errors import InputError
from train.cli.options import (
    DEFAULT_CHECKPOINT,
    Checkpoint,
    Device,
    EngineModel,
    EngineUrl,
    check_known,
    engine_of,
    load_lens,
    ways,
)
from train.cli.say import say

if TYPE_CHECKING:
    from irl_core.policy.engine_requests import Engine
    from irl_core.report.inspection_json import InspectionResult
    from irl_core.scorer import Lens
    from irl_core.types import ScoredTrace, Trace

DEFAULT_SAMPLES = 4
MAX_TEXT_FILE_BYTES = 1_000_000


def inspect(
    problem: Annotated[str, typer.Option(help="The problem's text, or @FILE.")],
    solution: Annotated[str | None, typer.Option(help="A solution's text, or @FILE. Without one, samples.")] = None,
    answer: Annotated[str | None, typer.Option(help="The right answer, where you know it.")] = None,
    samples: Annotated[int | None, typer.Option(help="Solutions to sample. (default: 4; 0 with --solution)")] = None,
    way: Annotated[
        str | None,
        typer.Option(help="Write it with the reward: early-rejection, self-revision, guided-decoding."),
    ] = None,
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    seed: Annotated[int, typer.Option(help="The same seed gives the same samples on a CPU.")] = 0,
    gamma: Annotated[float, typer.Option(help="Discount of the discounted view, 0 to 1.")] = 0.9,
    view: Annotated[
        str,
        typer.Option(
            help="Colours: raw (pages: reward), standardised, discounted (with what follows), credit (rise and fall)."
        ),
    ] = "credit",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write the page to send: one file, no network.")] = None,
    device: Device = "auto",
    engine: EngineUrl = None,
    engine_model: EngineModel = None,
) -> None:
    """Score a solution token by token and name its first error."""
    from rich.console import Console

    from irl_core.report.heatmap.payload import VIEWS, score_name
    from irl_core.report.inspection_json import to_json, with_ids
    from irl_core.report.terminal import print_result
    from irl_core.scorer import check_inputs

    if view not in VIEWS:
        raise InputError(f"Unknown view {view!r}; choose one of {', '.join(VIEWS)}.")
    if not 0.0 <= gamma <= 1.0:
        raise InputError(f"gamma is {gamma}; choose a value between 0 and 1.")
    problem, solution = text_of(problem), None if solution is None else text_of(solution)
    check_inputs(problem, solution)
    check_way(way, solution, samples, engine)
    if samples is None:
        samples = DEFAULT_SAMPLES if solution is None else 0
    asked = engine_of(engine, engine_model)
    if asked is not None and not samples:
        raise InputError("--engine: nothing is sampled; give --samples N, or leave it out.")
    lens = load_lens(checkpoint, device)
    if way is None:
        scored = score_solutions(lens, problem, solution, samples, seed, gamma, asked, answer)
    else:
        scored = solution_by(way, lens, problem, seed, answer)
    localisations, kind = [lens.locate(one) for one in scored], lens.default_trace_score
    known = lens.familiarities(scored)
    result = to_json(
        scored, localisations, problem=problem, checkpoint=lens.name, familiarity=known, gamma=gamma, kind=kind
    )
    as_text = json.dumps(result, allow_nan=False)
    if html is not None:
        write_page(html, with_ids(result, scored), view, gamma, score_name(kind))
    if as_json:
        typer.echo(as_text)
    else:
        print_result(Console(highlight=False), result, view=view, gamma=gamma, score_name=score_name(kind))


def text_of(given: str) -> str:
    """The text itself, or that of the file named after an ``@``. Raises InputError for a file that cannot be used."""
    if not given.startswith("@"):
        return given
    path = Path(given[1:])
    try:
        size = path.stat().st_size
        if size > MAX_TEXT_FILE_BYTES:
            raise InputError(f"{path.name} has {size:,} bytes; the limit is {MAX_TEXT_FILE_BYTES:,}. Shorten it.")
        # a byte order mark and the last line end are the editor's, not the solution's
        return path.read_text(encoding="utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}). Give the text itself or an existing @FILE."
        ) from None


def check_way(way: str | None, solution: str | None, samples: int | None, engine: str | None) -> None:
    """Raise InputError for a way that there is not, or one that is asked for with what it does itself."""
    if way is not None:
        check_known(way)
    given = {"--solution": solution, "--samples": samples, "--engine": engine}
    for name in (name for name, value in given.items() if way is not None and value is not None):
        raise InputError(f"--way {way} writes its own solution with the checkpoint's policy; leave out {name}.")


def solution_by(way: str, lens: Lens, problem: str, seed: int, answer: str | None) -> list[ScoredTrace]:
    """The solution that a way answers with, and behind a revision its first draft; says what it took."""
    from irl_core.strategies import in_words
    from irl_core.text.segmentation import with_reference

    made = ways()[way](lens, problem, seed)
    told = in_words(way, made)
    say(told if made.draft is None else f"{told} The draft stands below.", err=True)
    traces = [made.trace] if made.draft is None else [made.trace, made.draft.trace]
    return lens.score([with_reference(one, answer) for one in traces])


def score_solutions(
    lens: Lens,
    problem: str,
    solution: str | None,
    samples: int,
    seed: int,
    gamma: float,
    engine: Engine | None = None,
    answer: str | None = None,
) -> list[ScoredTrace]:
    """The pasted solution, then the sampled ones from the highest trace score to the lowest, those that the model
    cannot judge last; ``answer``: the right one.

    Rewards are standardised over the group where there are samples, else over the checkpoint's reference.
    """
    from irl_core.reward.token_scores import rank
    from irl_core.storage.rows import judge_of
    from irl_core.text.segmentation import make_trace, with_reference

    if answer is not None and not answer.strip():
        raise InputError("The --answer is empty. Give the right answer, or leave the option away.")
    if solution is None and samples == 0:
        raise InputError("Nothing to score: give a --solution, or --samples of at least 1.")
    sampled = sample_with_progress(lens, problem, samples, seed, engine) if samples else []
    pasted = [] if solution is None else [make_trace(problem, solution, trace_id="pasted")]
    traces = [with_reference(one, answer) for one in (*pasted, *sampled)]
    scored = lens.score(traces, standardise_over="group" if sampled else "reference")
    own, others = scored[: len(pasted)], scored[len(pasted) :]
    known = lens.familiarities(others) if others else []
    judged = [judge_of(one, familiarity).can is not False for one, familiarity in zip(others, known, strict=True)]
    return own + [others[index] for index in rank(others, lens.default_trace_score, gamma, judged)]


def sample_with_progress(lens: Lens, problem: str, samples: int, seed: int, engine: Engine | None) -> list[Trace]:
    """Samples of the policy, or of an engine in its place, with a bar on stderr while they are drawn."""
    from irl_core.progress import progress_bar

    with progress_bar(f"Sampling {samples}", transient=True) as bar:

        def on_step(done: int, total: int) -> None:
            bar.update(done, total=total)

        if engine is None:
            return lens.sample(problem, samples, seed, on_progress=on_step)
        from irl_core.policy.engine import samples_of

        traces, notes = samples_of(
            engine, lens.encoder, problem, samples, seed, context=lens.context_window, on_step=on_step
        )
    for note in notes:
        say(note, err=True)
    return traces


def write_page(path: Path, result: InspectionResult, view: str, gamma: float, score_name: str) -> None:
    """Write the result as a page. Raises InputError where the file cannot be written."""
    from irl_core.report.heatmap.export import to_html

    page = to_html(result, view=view, gamma=gamma, score_name=score_name)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}).") from None
    say(f"Wrote {path}", err=True)
