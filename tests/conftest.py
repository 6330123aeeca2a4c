"""What all tests share: a sane environment, the rules for browser tests, and a tiny untrained checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# No test uses a pretrained model that happens to be on this machine, nor needs one: the tiny checkpoint is the default.
os.environ["IRL_LENS_CACHE"] = str(Path(__file__).resolve().parent / "no-models-here")
import pytest

from tests.chromium import NO_BROWSER, find_chromium

REPOSITORY = Path(__file__).resolve().parents[1]
SEEN: dict[str, set[str]] = {"collected": set(), "passed": set(), "skipped": set()}


def browser_required() -> bool:
    return os.environ.get("IRL_LENS_REQUIRE_BROWSER") == "1"


def pytest_configure(config: pytest.Config) -> None:
    """Processes that a test starts read the sitecustomize in ``lean``; those that run tests, workers too, do not."""
    starts_workers = getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput")
    if not starts_workers:
        lean = str(Path(__file__).resolve().parent / "lean")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [lean, os.environ.get("PYTHONPATH")]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything under tests/browser is a browser test; without a Chromium it is skipped, and says why."""
    missing = find_chromium() is None
    for item in items:
        if "browser" in item.path.relative_to(REPOSITORY).parts:
            item.add_marker("browser")
        if missing and item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason=NO_BROWSER))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Called where the session is reported, also for tests that ran in a worker beside it."""
    if "browser" in report.keywords:
        SEEN["collected"].add(report.nodeid)
        if report.skipped or (report.when == "call" and report.passed):
            SEEN["skipped" if report.skipped else "passed"].add(report.nodeid)


def _chosen(config: pytest.Config) -> bool:
    """Whether the whole suite was asked for, not single files or tests."""
    return not config.args or config.args == ["tests"] or [Path(a) for a in config.args] == [REPOSITORY / "tests"]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where browser tests are required, a skipped one, or none at all, fails the session."""
    if _incomplete(session.config) and exitstatus in (0, 5):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _incomplete(config: pytest.Config) -> bool:
    """Whether browser tests were required and did not all run; a worker has seen a part of them alone."""
    if hasattr(config, "workerinput"):
        return False
    return browser_required() and bool(SEEN["skipped"] or (_chosen(config) and not SEEN["passed"]))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    passed, skipped, collected = (len(SEEN[name]) for name in ("passed", "skipped", "collected"))
    terminalreporter.section("browser tests")
    if not collected:
        line = "BROWSER TESTS DID NOT RUN: none were among the tests asked for"
    elif skipped == collected:
        line = f"BROWSER TESTS DID NOT RUN ({skipped} skipped): {NO_BROWSER if not find_chromium() else 'see above'}"
    else:
        line = f"Browser tests ran: {passed} of {collected} passed, {skipped} skipped, with {find_chromium()}"
    terminalreporter.write_line(line)
    if _incomplete(config):
        terminalreporter.write_line("IRL_LENS_REQUIRE_BROWSER=1: this is a failure")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the system's Chromium; tests that use it are browser tests."""
    found = find_chromium()
    if found is None:
        pytest.skip(NO_BROWSER)
    return found


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data that lies beside some checkouts (or IRL_LENS_SHARED); a test skips where it is absent."""
    folder = Path(os.environ.get("IRL_LENS_SHARED", REPOSITORY / ".." / "shared")).resolve()
    if not folder.is_dir():
        pytest.skip("the shared data is not beside this checkout (IRL_LENS_SHARED)")
    return folder


@pytest.fixture(scope="session")
def lens() -> Any:
    """An untrained lens: the head is 0.5 * log p of a random 2-layer Llama, the context 160 tokens."""
    from tests.tiny import tiny_lens

    return tiny_lens()
