"""The command line: light to start, plain errors, exact JSON, text that cannot draw on the terminal."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from irl_core.errors import CheckpointError, InputError
from irl_core.evaluation.section import Table
from irl_core.report import terminal
from irl_core.report.tables import for_terminal
from irl_core.scorer import Lens
from tests.tiny import PROBLEM, SOLUTION
from train.cli import app, inspect, options
from train.cli.say import say
from train.cli.score import score
from train.serving.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "train.cli.main", *arguments]
    env = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", **environment}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, timeout=120)


def trace(text: str = "ab c", **changes: Any) -> dict[str, Any]:
    zero = {"standardised": 0.0, "discounted": 0.0, "credit": 0.0, "logprob": -1.0}
    tokens = [
        {"start": 0, "end": 2, "text": text[:2], "raw": 6.0, **zero},
        {"start": 2, "end": len(text), "text": text[2:], "raw": -3.0, **zero},
    ]
    steps = [{"start": 0, "end": len(text), "text": text, "score": -3.0, "name": "step 1", "role": "reasoning"}]
    found = {"decision": "error", "first_error_step": 0, "confidence": 0.8, "rule": "raw/min", "threshold": -1.0}
    said = {"kind": "error", "by": "reward", "step": 0, "headline": "First error: step 1 of 1"}
    said["findings"] = [{"by": "reward", "says": "Reward: step 1.", "step": 0}]
    rest = {"answer": None, "correct": None, "trace_score": -3.0, "arithmetic": [], "verdict": said}
    rest |= {"cannot_judge": None, "familiarity": None, "quantities": []}
    return {"text": text, "steps": steps, "tokens": tokens, **found, **rest, **changes}


def printed(one: dict[str, Any], problem: str = "p", **options: Any) -> str:
    console = Console(file=io.StringIO(), width=200, highlight=False, **options)
    result = {"checkpoint": "demo", "problem": problem, "traces": [one]}
    terminal.print_result(console, result, view="raw", gamma=0.9, score_name="minimum")
    return console.file.getvalue()  # type: ignore[attr-defined]


HEAVY = "{'torch', 'transformers', 'datasets', 'numpy', 'pandas', 'pyarrow', 'streamlit'}"


@pytest.mark.parametrize("arguments", [["presets"], ["presets", "llama-8b-1b"], ["train", "--help"]])
def test_presets_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['irl-lens', *{arguments}]\n"
        "from train.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', sorted({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("HEAVY []\n") and len(done.stdout.splitlines()) > 10


def test_help_imports_nothing_heavy_and_is_quick() -> None:
    code = (
        "import sys, time; begun = time.process_time(); sys.argv = ['irl-lens', '--help']\n"
        "from train.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy), 'TIME', time.process_time() - begun)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "HEAVY [] TIME" in done.stdout
    assert all(name in done.stdout for name in ("inspect", "score", "train", "presets", "checkpoints", "app"))
    assert float(done.stdout.rsplit(" ", 1)[1]) < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", "--problem", "  "), "The problem is empty"),
        (("inspect", "--problem", "p", "--solution", ""), "The solution is empty"),
        (("inspect", "--problem", "@missing.txt"), "missing.txt cannot be read"),
        (("inspect", "--problem", "p", "--view", "best"), "Unknown view 'best'; choose one of raw"),
        (("inspect", "--problem", "p", "--gamma", "2"), "gamma is 2.0; choose a value between 0 and 1"),
        (("inspect", "--problem", "p", "--checkpoint", "../elsewhere"), "refused"),
        (("inspect", "--problem", "p", "--checkpoint", "nowhere"), "no checkpoint of that name"),
        (("score", "missing.jsonl", "--out", "o.parquet"), "is not there"),
        (("train", "no-such-preset"), "no preset 'no-such-preset'"),
        (("train", "demo-sft", "--set", "sed=7", "--dry-run"), "seed"),
        (("train", "llama-8b-1b", "--memory-gb", "20"), "Set run.batch_tokens=8192"),
        (("train", "demo-sft", "--json"), "--json prints the plan of a training; give --dry-run too"),
        (("train", "demo-sft", "--set", "data.source=rows.jsonl", "--dry-run"), "'rows.jsonl' is not there"),
        (("presets", "lama-8b-1b"), "no preset 'lama-8b-1b'; nearest is 'llama-8b-1b'"),
        (("app", "--port", "99999"), "--port 99999: ports are numbers from 0 to 65535"),
    ],
)
def test_user_errors_are_one_plain_line(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("irl-lens: ") and len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_scoring_says_at_once_what_it_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, told = tmp_path / "in.jsonl", list[str]()
    source.write_text(json.dumps({"question": "How many?", "solution": "3 + 4 = 7"}) + "\n")

    def load(*_: object) -> None:
        told.append(capsys.readouterr().err)
        raise InputError("nothing is loaded here")

    monkeypatch.setattr("train.cli.score.load_lens", load)
    with pytest.raises(InputError):
        score(source, tmp_path / "out.parquet", checkpoint="demo")
    assert told == [f"Loading the checkpoint demo and its models; then {source} is scored \u2026\n"]


def test_presets_and_dry_run() -> None:
    assert "demo-sft" in run("presets").stdout
    done = run("train", "demo-sft", "steps=100", "--set", "seed=7", "--dry-run")
    assert done.returncode == 0
    assert "steps: 100" in done.stdout and "seed: 7" in done.stdout


def test_a_text_file_over_the_limit_and_one_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("x" * 1_000_001)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "fine.txt").write_text("Zwölf $5\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"long.txt has 1,000,001 bytes; the limit is 1,000,000"):
        inspect.text_of(f"@{tmp_path / 'long.txt'}")
    with pytest.raises(InputError, match=r"bytes.txt is not UTF-8 text"):
        inspect.text_of(f"@{tmp_path / 'bytes.txt'}")
    assert inspect.text_of(f"@{tmp_path / 'fine.txt'}") == "Zwölf $5"  # the line end is the editor's
    (tmp_path / "marked.txt").write_bytes("\ufeffZwölf $5\r\n".encode())
    assert inspect.text_of(f"@{tmp_path / 'marked.txt'}") == "Zwölf $5"  # and so is a byte order mark
    assert inspect.text_of("plain") == "plain"


def test_the_version_is_printed() -> None:
    done = run("--version")
    assert done.returncode == 0 and done.stdout.startswith("irl-lens 0.")


def test_json_is_all_that_is_printed(lens: Lens, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(inspect, "load_lens", lambda checkpoint, device: lens)
    inspect.inspect(problem=PROBLEM, solution=SOLUTION, samples=2, seed=3, as_json=True, html=tmp_path / "page.html")
    first = capsys.readouterr()
    result = json.loads(first.out)
    assert (result["checkpoint"], result["problem"], len(result["traces"])) == ("tiny", PROBLEM, 3)
    assert result["traces"][0]["text"] == SOLUTION
    scores = [one["trace_score"] for one in result["traces"][1:]]
    assert scores == sorted(scores, reverse=True)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page and "tiny" in page
    inspect.inspect(problem=PROBLEM, solution=SOLUTION, samples=2, seed=3, as_json=True)
    assert capsys.readouterr().out == first.out


def test_inspect_prints_the_verdict(lens: Lens, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(inspect, "load_lens", lambda checkpoint, device: lens)
    inspect.inspect(problem=PROBLEM, solution="3 * 4 = 13\n#### 13")
    out = capsys.readouterr().out
    assert "Checkpoint tiny" in out and "Solution 1 of 1 · answer 13 ─" in out
    assert "Step 1: 3 * 4 is 12, not 13\nArithmetic: its one equation does not hold: 3 * 4 is 12, not 13" in out
    assert "threshold \u22123.00" in out and "rule: the step with the lowest reward of a token)." in out


def test_the_right_answer_judges_what_is_pasted_and_sampled(
    lens: Lens, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(inspect, "load_lens", lambda checkpoint, device: lens)
    given = {"problem": PROBLEM, "solution": "3 * 4 = 12\n#### 12", "samples": 1, "as_json": True}
    inspect.inspect(**given, answer="12.0")
    traces = json.loads(capsys.readouterr().out)["traces"]
    assert [one["correct"] for one in traces] == [True, False]  # a sample of a random model has no answer
    inspect.inspect(**given, answer="13")
    assert json.loads(capsys.readouterr().out)["traces"][0]["correct"] is False
    with pytest.raises(InputError, match="The --answer is empty"):
        inspect.inspect(**given, answer=" ")


def test_nothing_to_score_is_said(lens: Lens) -> None:
    with pytest.raises(InputError, match="give a --solution, or --samples of at least 1"):
        inspect.score_solutions(lens, PROBLEM, None, 0, 0, 0.9)


# -------------------------------------------------------------------------------------------------- terminal


@pytest.mark.parametrize(
    ("value", "colour"),
    [
        (0.0, (255, 255, 255)),
        (None, (255, 255, 255)),
        (6.0, (144, 178, 214)),  # half way: 255 + (33 - 255) / 2 = 144, 178.5 to even, 213.5 to even
        (-6.0, (236, 175, 128)),  # 255 + (217 - 255) / 2 = 236, 175, 128.5 to even
        (3.0, (181, 204, 227)),  # a third: 3 / (3 + 6)
        (54.0, (55, 117, 180)),  # nine tenths: 54 / (54 + 6)
    ],
)
def test_background_by_hand(value: float | None, colour: tuple[int, int, int]) -> None:
    assert terminal.background(value, 6.0) == colour


def test_colour_output_has_the_tokens_colours() -> None:
    out = printed(trace(), force_terminal=True, color_system="truecolor")
    assert "48;2;144;178;214mab" in out  # 6.0, half at 6.0
    assert "48;2;242;202;171m c" in out  # -3.0, a third: 255 + (217 - 255) / 3 = 242.3, 201.7, 170.7
    assert "First error: step 1 of 1" in out
    assert "Reward: step 1.\n" in out


def test_sixteen_colours_are_two_that_can_be_read() -> None:
    out = printed(trace(), force_terminal=True, color_system="standard")
    assert "\x1b[97;44mab" in out and "\x1b[30;43m c" in out
    assert "48;2" not in out and "on yellow from \u22122.0 down, on blue from +2.0 up" in out


def test_large_values_stay_apart() -> None:
    shades = [terminal.background(value, 6.0) for value in (6.0, 12.0, 24.0, 48.0, 96.0)]
    assert len(set(shades)) == len(shades) and shades[-1] != terminal.BLUE


def test_without_colour_tokens_stand_in_brackets() -> None:
    out = printed(trace())
    assert "\x1b" not in out
    assert "[+6.0 ab] [-3.0 c]" in out
    no_color = printed(trace(), force_terminal=True, color_system="truecolor", no_color=True)
    assert "[+6.0 ab] [-3.0 c]" in no_color and "48;2" not in no_color


def test_weak_tokens_are_not_marked() -> None:
    one = trace()
    one["tokens"][1]["raw"] = -1.9  # a third of 6.0 is 2.0
    assert "[+6.0 ab] c" in printed(one)


def test_markup_and_control_characters_are_text() -> None:
    hostile = "[red]x[/red] \x1b[31m\x07\x00 :smile: $5 and $10 \u202e[/]"
    out = printed(trace(hostile), problem=hostile)
    assert "\x1b" not in out and "\x07" not in out and "\x00" not in out and "\u202e" not in out
    assert "[red]x[/red] ␛[31m␇␀ :smile: $5 and $10 ⟨U+202E⟩[/]" in out


def test_every_line_of_the_command_is_made_inert(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines go through ``say``; what is echoed as it is, is JSON in ASCII, where control characters are escaped."""
    say("\x1b]0;title\x07\x9b31m \u202e\ud800 \x7f ok")
    assert capsys.readouterr().out == "␛]0;title␇⟨U+009B⟩31m ⟨U+202E⟩⟨U+D800⟩ ␡ ok\n"
    sources = [*(ROOT / "train").rglob("*.py")]
    lines = [(path.name, line.strip()) for path in sources for line in path.read_text().splitlines()]
    echoed = [(name, line) for name, line in lines if re.search(r"typer\.echo\(|\bprint\(|click\.echo\(", line)]
    assert len(echoed) > 5
    inert = r"visible\(|json\.dumps\(|for_terminal\(|echo\(as_text\)"
    assert not [one for one in echoed if not re.search(inert, one[1])]
    assert not [one for one in lines if "ensure_ascii=False" in one[1] and "echo" in one[1]]


def test_a_table_holds_no_escape_code() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    console.print(for_terminal(Table("\x1b[31mt", ["\x1b[2J"], [["\x9bx"]], note="\x1b]0;n\x07")))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "␛[31mt" in shown and "␛[2J" in shown and "⟨U+009B⟩x" in shown and "␛]0;n␇" in shown
    assert "\x1b[31mt" not in shown and "\x1b[2J" not in shown and "\x9b" not in shown and "\x1b]" not in shown


def test_pieces_join_to_the_text_even_where_tokens_share_a_character() -> None:
    text = "a😀b c"
    tokens = [{"start": 0, "end": 1}, {"start": 1, "end": 2}, {"start": 1, "end": 2}, {"start": 3, "end": 4}]
    found = list(terminal.pieces(text, tokens))
    assert [piece for piece, _ in found] == ["a", "😀", "b", " ", "c"]
    assert [token is None for _, token in found] == [False, False, True, False, True]


def test_no_reward_is_shown_where_the_model_cannot_judge() -> None:
    out = printed(trace(cannot_judge=True))
    assert out.endswith("Reward: step 1.\nab c\n")


# ----------------------------------------------------------------------------------------------- --checkpoint


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is no root, with one thing that looks like a checkpoint; the roots are empty."""
    for folder in ("assets/demo", "home/own/final", "home/demo", "home/runs"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("assets/demo", "home/own/final", "home/demo"):
        (tmp_path / folder / "manifest.json").write_text("{}")
    roots = (tmp_path / "assets", tmp_path / "home" / "runs")
    monkeypatch.setattr("irl_core.checkpoints.find.default_roots", lambda: roots)
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def test_a_checkpoint_may_be_named_by_its_whole_path(elsewhere: Path) -> None:
    assert options.checkpoint_folder(str(elsewhere / "own" / "final")) == elsewhere / "own" / "final"
    (elsewhere / "link").symlink_to(elsewhere / "own" / "final")
    assert options.checkpoint_folder(str(elsewhere / "link")) == elsewhere / "own" / "final"


def test_a_checkpoint_may_be_named_by_a_path_from_here(elsewhere: Path) -> None:
    assert options.checkpoint_folder("own/final") == elsewhere / "own" / "final"


def test_a_bundled_name_is_not_hidden_by_a_folder_of_that_name(elsewhere: Path) -> None:
    assert options.checkpoint_folder("demo") == elsewhere.parent / "assets" / "demo"
    assert options.checkpoint_folder(str(elsewhere / "demo")) == elsewhere / "demo"


def test_a_path_that_leads_to_no_checkpoint_says_so(elsewhere: Path) -> None:
    with pytest.raises(InputError, match=r"own' holds no checkpoint; name a run's final, or one that"):
        options.checkpoint_folder(str(elsewhere / "own"))
    with pytest.raises(InputError, match=r"nowhere' is not there; name a run's final"):
        options.checkpoint_folder(str(elsewhere / "nowhere"))
    with pytest.raises(CheckpointError, match="no checkpoint of that name; there are: demo"):
        options.checkpoint_folder("nobody")


# ------------------------------------------------------------------------------------------------------- app


def test_app_serves_and_stops_with_its_command(tmp_path: Path) -> None:
    port = free_port(None)
    log = (tmp_path / "log").open("w+")
    command = [sys.executable, "-m", "train.cli.main", "app", "--port", str(port)]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True,
                             env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    try:
        assert _healthy(port, seconds=60)
        assert f"http://localhost:{port}" in Path(log.name).read_text()
    finally:
        child.terminate()
        child.wait(timeout=30)
        log.close()
    assert _gone(port, seconds=20)


def _answers(port: int) -> bool:
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _healthy(port: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if _answers(port):
            return True
        time.sleep(0.2)
    return False


def _gone(port: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not _answers(port):
            return True
        time.sleep(0.2)
    return False


def test_the_app_may_hold_as_many_open_files_as_its_pages_take() -> None:
    """In a process of its own, whose limit is not the tests'."""
    resource = pytest.importorskip("resource")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    code = (
        "import resource as r; from train.cli.app import allow_open_files as allow; n = r.RLIMIT_NOFILE; "
        "r.setrlimit(n, (100, r.getrlimit(n)[1])); allow(); print(r.getrlimit(n)); "
        "r.setrlimit(n, (100, 200)); allow(); print(r.getrlimit(n))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    most = app.OPEN_FILES if hard == resource.RLIM_INFINITY else min(app.OPEN_FILES, hard)
    assert found.splitlines() == [str((most, hard)), "(200, 200)"]
