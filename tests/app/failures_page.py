"""The Failures page as tests open it, with what they press and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from app.analysis import catalogue
from irl_core.storage.run_writer import write_run
from irl_core.storage.scored_run import read_run

MAIN = Path(__file__).resolve().parents[2] / "app" / "main.py"
PAGE = MAIN.with_name("views") / "failures.py"


def open_page() -> AppTest:
    page = AppTest.from_file(str(PAGE), default_timeout=60)
    page.run()
    assert not page.exception
    return page


def press(page: AppTest, label: str) -> None:
    next(one for one in page.button if one.label == label).click().run()
    assert not page.exception


def listed(page: AppTest) -> list[str]:
    """The ids of the solutions in the list, which calls them by their rows while one judges blind."""
    found = catalogue.find("mine")
    assert found is not None
    ids = read_run(found.path).column("trace_id").to_pylist()
    return [ids[int(name.removeprefix("row ")) - 1] for name in page.dataframe[0].value["trace_id"]]


def said(page: AppTest) -> str:
    return " ".join(one.value.replace("\\", "") for one in (*page.markdown, *page.caption))


def captions(page: AppTest) -> list[str]:
    return [one.value.replace("\\", "") for one in page.caption]


def told(page: AppTest) -> str:
    """What became of the last answer; empty where nothing is told."""
    mark = ":material/info: "
    return next((one.removeprefix(mark) for one in captions(page) if one.startswith(mark)), "")


def drawn(page: AppTest) -> list[Any]:
    return list(page.get("bidi_component"))


def own_lines(page: AppTest) -> list[str]:
    """The lines that say who said what of the solution; empty before the answer."""
    found = [one.value.replace("\\", "") for one in page.markdown if one.value.startswith("**You**")]
    return found[0].split("  \n") if found else []


def rename(folder: Path, form: str) -> None:
    """Give the solutions of the run in a folder ids made of their numbers."""
    path = folder / "mine" / "run.parquet"
    rows = [row | {"trace_id": form.format(number)} for number, row in enumerate(read_run(path).to_pylist())]
    write_run(path, rows, {"checkpoint": "demo"})
