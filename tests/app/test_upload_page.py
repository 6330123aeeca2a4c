"""The Upload page: what it says of a file, what it starts, and what it leaves where nothing can be started."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app import access
from app.analysis import uploads
from app.analysis.uploads import SAMPLE
from app.jobs import store, supervisor, waiting
from app.jobs.store import JobError
from app.jobs.supervisor import Busy

MAIN = Path(__file__).resolve().parents[2] / "app" / "main.py"
pytestmark = pytest.mark.usefixtures("fake_lens")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What jobs were asked for; in their place one runs that ends at once."""
    found: list[tuple[Any, ...]] = []
    real = supervisor.start

    def start(job: supervisor.Wanted) -> store.Job:
        found.append((job.kind, job.title, job.command, job.run_dir, job.device, job.user))
        return real(replace(job, command=[sys.executable, "-c", ""]))

    monkeypatch.setattr(supervisor, "start", start)
    return found


def open_page() -> AppTest:
    page = AppTest.from_file(str(MAIN), default_timeout=30).run()
    page.switch_page("views/upload.py").run()
    assert not page.exception
    return page


def given(page: AppTest, data: bytes, name: str = "mine.jsonl") -> AppTest:
    page.file_uploader(key="upload_file").upload(name, data, "application/json").run()
    assert not page.exception
    return page


def score(page: AppTest) -> AppTest:
    next(button for button in page.button if button.label == "Score").click().run()
    assert not page.exception
    return page


def errors(page: AppTest) -> str:
    return "\n".join(error.value for error in page.main.error).replace("\\", "")


def test_a_file_is_counted_and_scored_by_a_job(started: list[tuple[Any, ...]], here: Path) -> None:
    page = given(open_page(), (SAMPLE + "nonsense\n").encode())
    assert "2 solutions of 2 problems can be scored; 1 row cannot." in [text.value for text in page.text]
    assert any("line 3: not JSON" in text.value for text in page.text)
    assert any("Given: mine.jsonl, JSON, an object a line, 0." in one.value.replace("\\", "") for one in page.caption)
    score(page)
    ((kind, title, command, folder, device, user),) = started
    assert (kind, device, user) == ("score", "auto", "local")
    assert title == "scoring of mine" and folder.name.startswith("mine-")
    assert command == supervisor.command_line(*uploads.arguments(folder, Path("/nonexistent/fake"), "auto", "auto"))
    assert (here / folder / "traces.jsonl").read_bytes() == (SAMPLE + "nonsense\n").encode()
    assert [toast.value.replace("\\", "") for toast in page.toast] == ["Job 1 scores 2 solutions."]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x80\x04\0pickle", "Not taken: the file is no text"),
        (b"\n", "Not taken: the file is empty"),
        ('{"q": 1}\n'.encode("utf-16"), "Not taken: "),
        (b'{"problem": "p", "solution": ""}\n', "Not taken: no row can be scored; the first reason: line 1"),
    ],
)
def test_what_cannot_be_scored_is_said_and_cannot_be_started(data: bytes, said: str, here: Path) -> None:
    page = given(open_page(), data)
    assert said in errors(page)
    assert "Score" not in [button.label for button in page.button]
    assert not (here / "runs").exists()


def test_where_no_job_can_be_started_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, here: Path, started: list[tuple[Any, ...]]
) -> None:
    page = given(open_page(), SAMPLE.encode())

    def refuse(*_: Any, **__: Any) -> None:
        raise JobError("jobs.sqlite could not be written")

    monkeypatch.setattr(supervisor, "start", refuse)
    score(page)
    assert "Not started: " in errors(page)
    assert list((here / uploads.FOLDER).iterdir()) == []


def test_a_scoring_waits_where_the_device_is_busy(
    monkeypatch: pytest.MonkeyPatch, here: Path, started: list[tuple[Any, ...]]
) -> None:
    other = supervisor.start(supervisor.Wanted("score", "another", [], Path("runs/other"), "cpu"))

    def refuse(*_: Any, **__: Any) -> None:
        raise Busy(other)

    monkeypatch.setattr(supervisor, "start", refuse)
    monkeypatch.setattr(waiting, "begin", lambda jobs: False)
    page = score(given(open_page(), SAMPLE.encode()))
    assert "Not started: " not in errors(page)
    (kept,) = (here / uploads.FOLDER).iterdir()
    (job,) = [one for one in supervisor.list_jobs() if one.waiting]
    assert job.run_dir == kept.resolve()


def test_the_same_traces_twice_are_one_upload(started: list[tuple[Any, ...]]) -> None:
    score(given(open_page(), SAMPLE.encode()))
    assert "these solutions are here already, as mine (uploaded " in errors(score(given(open_page(), SAMPLE.encode())))
    assert len(started) == 1


def shown(page: AppTest) -> str:
    texts = [one.value for kind in (page.main.markdown, page.main.caption) for one in kind]
    return "\n".join(texts).replace("\\", "")


def ended(page: AppTest, monkeypatch: pytest.MonkeyPatch, state: Any, reason: str = "") -> None:
    real = store.Jobs.get
    monkeypatch.setattr(
        supervisor, "get", lambda number: replace(real(supervisor.jobs_table(), number), state=state, reason=reason)
    )
    page.run()
    assert not page.exception


def test_what_became_of_an_upload_stands_where_its_button_was(
    started: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = given(open_page(), SAMPLE.encode())
    real = store.Jobs.get
    monkeypatch.setattr(
        supervisor, "get", lambda number: replace(real(supervisor.jobs_table(), number), state="running")
    )
    score(page)
    assert "**mine**: job 1 scores 2 solutions." in shown(page)
    asked: list[int] = []
    monkeypatch.setattr(supervisor, "cancel", asked.append)
    page.button(key="watch_cancel_1").click().run()
    assert asked == [1] and "Resume goes on after them" in page.button(key="watch_cancel_1").help
    assert "Score" not in [button.label for button in page.button] and not page.main.subheader
    page.text_input(key="title_mine.jsonl").set_value("Other").run()
    assert "Score" in [button.label for button in page.button]  # under another title it is another run
    assert [one.value for one in page.main.subheader] == ["Uploaded before, in this session"]
    ended(page, monkeypatch, "failed", "the disk is full")
    assert "mine: the scoring was not finished (failed): the disk is full" in errors(page)
    ended(page, monkeypatch, "cancelled", "stopped")
    assert "mine: the scoring was cancelled. The parts that are written stay" in page.main.info[0].value.replace(
        "\\", ""
    )
    resumed: list[int] = []
    monkeypatch.setattr(supervisor, "resume", resumed.append)
    page.button(key="go_on_1").click().run()
    assert not page.exception and resumed == [1]


def test_each_row_left_out_is_listed_or_counted_under_its_reason() -> None:
    page = given(open_page(), (SAMPLE + "nonsense\n" + '{"question": "", "solution": "1"}\n').encode())
    texts = [text.value for text in page.text]
    assert "line 3: not JSON (Expecting value, column 1)\nline 4, question: empty" in texts
    assert not any("Left out" in text for text in texts)
    page = given(page, (SAMPLE + "nonsense\n" * 30 + '{"question": "", "solution": "1"}\n').encode(), "many.jsonl")
    assert "2 solutions of 2 problems can be scored; 31 rows cannot." in [text.value for text in page.text]
    losses = (
        "Left out: 30 rows, not JSON (Expecting value, column ...) (first: many.jsonl, line 3).\n"
        "Left out: 1 row, question: empty (first: many.jsonl, line 33)."
    )
    assert losses in [text.value for text in page.text]


def test_uploads_of_a_session_keep_their_ways_to_the_runs_and_old_words_go(
    started: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = score(given(open_page(), SAMPLE.encode()))
    ended(page, monkeypatch, "finished")
    assert "job 1 has scored 2 solutions" in shown(page) and "job 1 scores" not in shown(page)
    given(page, SAMPLE.replace("pens", "cups").encode(), "next.jsonl")
    score(page)
    looks = [button.label for button in page.main.button if button.label.startswith("Look at")]
    assert looks == ["Look at next", "Look at mine"]
    given(page, b"{}", "bad.jsonl")
    assert "Not taken: " in errors(page)
    assert [one.value for one in page.main.subheader] == ["Uploaded before, in this session"]
    assert not page.main.success


def test_a_second_click_on_score_starts_nothing_and_is_no_mistake(started: list[tuple[Any, ...]]) -> None:
    page = given(open_page(), SAMPLE.encode())
    button = next(one for one in page.button if one.label == "Score")
    button.click().run()
    button.click().run()  # of the page as it was before
    assert len(started) == 1 and not errors(page) and not page.exception


def test_a_permission_withdrawn_since_the_page_was_drawn_counts(
    monkeypatch: pytest.MonkeyPatch, here: Path, started: list[tuple[Any, ...]]
) -> None:
    page = given(open_page(), SAMPLE.encode())
    (here / "access.toml").write_text("upload = []\n")
    monkeypatch.setenv(access.VARIABLE, str(here / "access.toml"))
    score(page)
    assert started == [] and not (here / uploads.FOLDER).exists()
    assert "Log in to upload solutions." in "".join(info.value for info in page.info).replace("\\", "")
