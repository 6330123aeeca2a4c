"""Annotations: only ever added, whole or not at all, and read back; agreement against scikit-learn."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from irl_core import sqlite
from irl_core.data.annotations import Annotation, Annotations, from_jsonl, latest, text_hash, to_jsonl
from irl_core.errors import AnnotationError
from irl_core.evaluation.agreement import agreement, between_annotators, kappa, label_of, with_model

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<img src=x onerror=alert(1)> =cmd() $5 \u202e ' \"; DROP TABLE annotations; --"


def made(trace: str = "t1", annotator: str = "ann", step: int | None = 1, **more: Any) -> Annotation:
    verdict = {"verdict": "error" if step is not None else "none"}
    known = {"run": "demo", "trace_id": trace, "text_sha256": text_hash("p", trace), "problem_id": "p"}
    return Annotation(**{**known, "annotator": annotator, "step": step, **verdict, **more})


@pytest.fixture
def store(tmp_path: Path) -> Annotations:
    return Annotations(tmp_path / "runs" / "annotations.sqlite")


def test_what_was_added_is_read_back_in_order(store: Annotations) -> None:
    assert store.all() == []
    added = [store.add(made(step=step, note=HOSTILE)) for step in (0, 5)]
    added.append(store.add(made(step=None, verdict="unsure", blind=False)))
    assert store.all() == added and [one.label for one in added] == ["step 1", "step 6", "unsure"]
    assert store.latest() == {(text_hash("p", "t1"), "ann"): added[1]}  # the newest was not given blind


def test_two_annotators_on_a_trace_are_both_kept(store: Annotations) -> None:
    one, other = store.add(made(annotator="a")), store.add(made(annotator="b", step=None))
    assert store.latest() == {(one.text_sha256, "a"): one, (one.text_sha256, "b"): other}


def test_the_newest_counts_whatever_the_order_of_an_import() -> None:
    old, new = made(created="2026-01-01T00:00:00+00:00"), made(step=2, created="2026-01-02T00:00:00+00:00")
    for order in ([old, new], [new, old]):
        assert list(latest(order).values()) == [new]


def test_a_clock_that_is_set_back_does_not_change_what_counts(
    store: Annotations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        at = datetime(2026, 5, 5, 12, tzinfo=UTC)

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return cls.at

    monkeypatch.setattr("irl_core.data.annotations.datetime", Clock)
    store.add(made(step=0))
    for hours in (-1, -30, 0):  # an hour, a day and more, back again: not later than what was said before
        Clock.at = datetime(2026, 5, 5, 12, tzinfo=UTC) + timedelta(hours=hours)
        store.add(made(step=None, annotator="other"))
        said = store.add(made(step=hours + 40))
        assert store.latest()[said.text_sha256, "ann"] == said
        Clock.at += timedelta(days=2)
        elsewhere = Annotations(tmp_path / f"{hours}.sqlite")
        elsewhere.add_all(from_jsonl(to_jsonl(store.all())), importer="ben")
        assert elsewhere.latest()[said.text_sha256, "ann"].step == said.step
    times = [one.time for one in store.all() if one.annotator == "ann"]
    assert times == sorted(set(times))


def test_an_import_in_anothers_name_does_not_set_their_clock(store: Annotations) -> None:
    ahead = (datetime.now(UTC) + timedelta(hours=20)).isoformat()
    store.add_all([made(annotator="ada", created=ahead)], importer="ben")
    assert store.add(made(annotator="ada", step=3)).time < datetime.now(UTC)


def test_nothing_is_changed_or_removed(store: Annotations) -> None:
    store.add(made())
    with sqlite3.connect(store.path) as connection:
        for statement in ("UPDATE annotations SET step = 3", "DELETE FROM annotations"):
            with pytest.raises(sqlite3.IntegrityError, match="annotations are never"):
                connection.execute(statement)
    assert len(store.all()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"annotator": " "}, "annotator is empty"),
        ({"annotator": "x" * 101}, "annotator is empty or longer than 100"),
        ({"note": "x" * 2001}, "the note has 2,001 characters, the limit is 2,000"),
        ({"verdict": "maybe", "step": None}, "the verdict is 'maybe'; it is one of error, none, unsure"),
        ({"verdict": "none", "step": 3}, "a step belongs to the verdict 'error'"),
        ({"verdict": "error", "step": None}, "a step belongs to the verdict 'error'"),
        ({"step": -1}, "the step is -1"),
        ({"category": "bad"}, "the category is 'bad'; it is one of arithmetic"),
    ],
)
def test_values_outside_their_limits_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(AnnotationError, match=said):
        made(**change)


def test_an_import_keeps_its_importer_and_does_not_speak_for_the_annotator(store: Annotations) -> None:
    own = store.add(made(annotator="ada", step=0))
    forged = made(annotator="ada", step=5, created=(datetime.now(UTC) + timedelta(hours=1)).isoformat(), importer="ada")
    assert store.add_all([own, forged], importer="ben") == 1
    first, second = store.all()
    assert (first, second.importer, second.step) == (
        own,
        "ben",
        5,
    )  # what the file says of its importer is not believed
    assert list(store.latest().values()) == [own]
    assert store.add_all([made("t9", "ada", step=3, created="2026-01-01T00:00:00+00:00")], importer="ada") == 1
    assert store.latest()[text_hash("p", "t9"), "ada"].step == 3
    assert from_jsonl(to_jsonl(store.all())) == store.all()
    assert json.loads(to_jsonl([own]).splitlines()[0])["step_number"] == (own.step or 0) + 1
    with pytest.raises(AnnotationError, match="step_number is not step"):  # a hand that has mended one of the two
        from_jsonl(json.dumps(json.loads(to_jsonl([own])) | {"step_number": own.step}))
    with sqlite3.connect(store.path) as connection:
        for statement in ("UPDATE imports SET importer = 'x'", "DELETE FROM imports"):
            with pytest.raises(sqlite3.IntegrityError, match="annotations are never"):
                connection.execute(statement)


def test_severity_and_span_are_kept_beside_a_file_of_an_earlier_release(store: Annotations) -> None:
    plain = store.add(made("t1"))
    told = store.add(made("t2", severity="major", span_start=3, span_end=9))
    assert store.all() == [plain, told] and (told.severity, told.span_end) == ("major", 9)
    assert "severity" not in json.loads(to_jsonl([plain])) and json.loads(to_jsonl([told]))["span_start"] == 3
    assert from_jsonl(to_jsonl(store.all())) == store.all()
    with sqlite3.connect(store.path) as connection, pytest.raises(sqlite3.IntegrityError, match="never changed"):
        connection.execute("UPDATE details SET severity = 'minor'")
    for wrong in ({"severity": "huge"}, {"span_start": 5}, {"span_start": 5, "span_end": 5}):
        with pytest.raises(AnnotationError, match=r"the severity is|the span is"):
            made("t3", **wrong)
    with pytest.raises(AnnotationError, match="belong to the verdict 'error'"):
        replace(plain, verdict="unsure", step=None, severity="minor")


def test_a_file_of_an_earlier_release_takes_an_import(store: Annotations) -> None:
    first = store.add(made())
    with sqlite3.connect(store.path) as connection:
        connection.execute("DROP TABLE imports")
    assert store.all() == [first]
    store.add_all([made("t2", created="2026-01-01T00:00:00+00:00")], importer="ben")
    assert [one.importer for one in store.all()] == ["", "ben"]


def test_times_are_compared_as_times() -> None:
    """As texts, the first of each pair would be the later one."""
    for old, new in (
        ("2026-01-01T23:00:00+00:00", "2026-01-01T22:30:00-01:00"),
        ("20260101", "2026-01-02T00:00:00+00:00"),
        ("0001-01-01T00:00:00+05:00", "0001-01-01T00:00:00-05:00"),
    ):
        assert [one.created for one in latest([made(created=new), made(created=old)]).values()] == [new]


# ------------------------------------------------------------------------------------------------------- faults


def test_a_lock_is_waited_for_and_then_said(store: Annotations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "SECONDS_PER_TRY", 0.2)
    first = store.add(made())
    other = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(AnnotationError, match=r"locked by another process .* nothing was written, try again"):
        store.add(made("t2"))
    timer = threading.Timer(0.1, lambda: other.execute("COMMIT"))
    timer.start()
    second = store.add(made("t2"))  # within the second try
    timer.join()
    other.close()
    assert store.all() == [first, second]


def test_a_damaged_file_is_left_as_it_is(store: Annotations) -> None:
    store.path.parent.mkdir()
    store.path.write_bytes(b"this is no database, and long enough to be looked at " * 40)
    before = store.path.read_bytes()
    for action in (store.all, lambda: store.add(made())):
        with pytest.raises(AnnotationError, match="is damaged, and is left as it is"):
            action()
    assert store.path.read_bytes() == before


def test_a_full_disk_keeps_what_was_there(store: Annotations, monkeypatch: pytest.MonkeyPatch) -> None:
    first = store.add(made())
    real = sqlite3.connect

    def small(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = real(*arguments, **options)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(sqlite.sqlite3, "connect", small)
    with pytest.raises(AnnotationError, match=r"\(database or disk is full\); free space.* Nothing was written"):
        store.add_all([made(f"t{i}", note="x" * 2000, created="2026-01-01") for i in range(50)])
    monkeypatch.undo()
    assert store.all() == [first]


FIRST = """
import os, resource, signal, sqlite3, sys
from pathlib import Path
from irl_core import sqlite
from irl_core.data.annotations import Annotations, from_jsonl
from irl_core.errors import AnnotationError
path, kill_at, most_bytes, line = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if most_bytes >= 0:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
class Dying(sqlite3.Connection):
    statements = 0
    def execute(self, *arguments):
        Dying.statements += 1
        if Dying.statements == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.statement = super().execute(*arguments)
        return self.statement
real = sqlite3.connect
sqlite.sqlite3.connect = lambda *arguments, **options: real(*arguments, **options, factory=Dying)
try:
    Annotations(path).add_all(from_jsonl(line))
except AnnotationError as error:
    sys.exit(f"irl-lens: {error}")
"""


def first_write(path: Path, one: Annotation, kill_at: int = 0, most_bytes: int = -1) -> tuple[int, str]:
    """A first annotation in a process that is killed before one of its statements, or that may write few bytes."""
    command = [sys.executable, "-c", FIRST, str(path), str(kill_at), str(most_bytes), to_jsonl([one])]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_a_first_annotation_that_is_killed_at_any_point_locks_nothing(tmp_path: Path) -> None:
    one, other = (made(name, created="2026-01-01T00:00:00+00:00") for name in ("t1", "t2"))
    killed = 0
    for point in range(1, 40):
        store = Annotations(tmp_path / str(point) / "annotations.sqlite")
        status, said = first_write(store.path, one, kill_at=point)
        if status == 0:
            break
        assert status == -signal.SIGKILL, said
        killed += 1
        assert store.all() == []
        store.add(other)
        assert store.all() == [other]
    assert killed >= 8 and store.all() == [one]


@pytest.mark.parametrize("most_bytes", [0, 512, 4096, 8192, 20_000])
def test_a_first_annotation_on_a_full_disk_locks_nothing(store: Annotations, most_bytes: int) -> None:
    one = made(created="2026-01-01T00:00:00+00:00")
    status, said = first_write(store.path, one, most_bytes=most_bytes)
    assert status == 1 and "annotations.sqlite could not be written" in said and "free space" in said
    assert store.all() == []
    store.add(one)
    assert store.all() == [one]


def test_an_empty_file_is_nothing_saved_and_another_database_is_damage(store: Annotations) -> None:
    store.path.parent.mkdir()
    store.path.touch()
    assert store.all() == [] and store.latest() == {}
    with sqlite3.connect(store.path) as connection:
        connection.execute("CREATE TABLE others (id INTEGER)")
    with pytest.raises(AnnotationError, match="is damaged, and is left as it is"):
        store.all()


def test_a_later_version_is_not_touched(store: Annotations) -> None:
    store.add(made())
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(AnnotationError, match=r"by a later version of irl-lens \(9\); update"):
        store.add(made("t2"))


# ------------------------------------------------------------------------------------------------------ JSON lines


def test_export_and_import_are_inverse_and_import_twice_adds_once(store: Annotations, tmp_path: Path) -> None:
    added = [store.add(made(f"t{i}", note=HOSTILE, step=i)) for i in range(3)]
    text = to_jsonl(added)
    assert from_jsonl(text) == added
    other = Annotations(tmp_path / "other.sqlite")
    assert (other.add_all(from_jsonl(text)), other.add_all(from_jsonl(text))) == (3, 0)
    assert other.all() == added


def line(**change: Any) -> str:
    return json.dumps(asdict(made(created="2026-01-01T00:00:00+00:00")) | change)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: a JSON object is expected"),
        ("[" * 100_000, "line 2: not JSON"),
        (line(surprise=1), "line 2: unknown key 'surprise'"),
        ('{"run": "x"}', "line 2: trace_id is missing"),
        (line(step="1"), "line 2: step is '1' (text); a whole number is expected"),
        (line(step=True), "line 2: step is True (true/false); a whole number is expected"),
        (line(blind=1), "line 2: blind is 1 (a whole number); true or false is expected"),
        (line(note=5), "line 2: note is 5 (a whole number); text is expected"),
        (line(created="yesterday"), "line 2: created is 'yesterday'; a time in ISO 8601 is expected"),
        (line(created=""), "line 2: created is ''; a time in ISO 8601 is expected"),
        (
            line(created="9999-12-31T23:59:59+00:00"),
            "line 2: created is '9999-12-31T23:59:59+00:00', which is still to",
        ),
        (line(note="\ud800"), "line 2: a text holds NUL or half a character"),
        (line(note="\0"), "line 2: a text holds NUL or half a character"),
        (line(verdict="maybe"), "line 2: verdict is 'maybe'; one of error, none, unsure is expected"),
        (line(verdict="none"), "line 2: a step belongs to the verdict 'error'"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_taken(bad: str, said: str) -> None:
    with pytest.raises(AnnotationError, match=re.escape(said)):
        from_jsonl(f"{line()}\n{bad}\n")


# ------------------------------------------------------------------------------------------------------- agreement


def test_kappa_by_hand_and_as_scikit_learn_has_it() -> None:
    # 4 x (none, none), 2 x (none, step 1), 2 x (step 1, step 1): observed 6/8; expected 6/8 * 4/8 + 2/8 * 4/8 = 1/2;
    # kappa = (3/4 - 1/2) / (1 - 1/2) = 1/2
    ours, theirs = ["none", "none", "none", "step 1"] * 2, ["none", "none", "step 1", "step 1"] * 2
    found = agreement("a", "b", ours, theirs, [f"p{place}" for place in range(8)])
    assert found.observed.value == 0.75 and found.kappa.value == pytest.approx(0.5)
    assert found.confusion == {("none", "none"): 4, ("none", "step 1"): 2, ("step 1", "step 1"): 2}
    few = agreement("a", "b", ours[:4], theirs[:4], ["p1", "p2", "p3", "p4"])
    assert few.observed.value == 0.75 and few.kappa.reason == "fewer than 5 problems (4)"
    rng = np.random.default_rng(0)
    labels = np.array(["none", "step 1", "step 2", "step 3"])
    for _ in range(5):
        one = labels[rng.integers(4, size=60)]
        other = np.where(rng.random(60) < 0.6, one, labels[rng.integers(4, size=60)])
        pairs = list(zip(one.tolist(), other.tolist(), strict=True))
        figure = kappa(pairs, [f"p{i % 20}" for i in range(60)])
        assert figure.value == pytest.approx(cohen_kappa_score(one, other))
        assert figure.low < figure.value < figure.high and figure.n == 60


def test_the_unsure_are_left_out_and_counted() -> None:
    found = agreement("a", "b", ["none", "unsure", "step 1"], ["none", "none", "unsure"], ["p", "q", "r"])
    assert (found.unsure, found.observed.n) == (2, 1)
    assert not found.kappa.defined and found.kappa.reason == "both give the same label to all"
    none = agreement("a", "b", ["unsure"], ["none"], ["p"])
    assert not none.observed.defined and none.observed.reason == "no solution that both were sure about"


def test_annotators_meet_on_the_same_text_in_whatever_run() -> None:
    said = [made("t1", "a", 1), made("t2", "a", 0), made("t1", "b", 1, run="other"), made("t3", "b", 0)]
    (found,) = between_annotators(said)
    assert (found.first, found.second, found.confusion) == ("a", "b", {("step 2", "step 2"): 1})


def test_the_model_is_compared_with_blind_words_alone() -> None:
    said = [made("t1", "a", 1), made("t2", "a", 0, blind=False), made("t3", "a", None)]
    model = {text_hash("p", "t1"): label_of("error", 1), text_hash("p", "t2"): "none",
             text_hash("p", "t3"): label_of("error", 0)}  # fmt: skip
    (found,) = with_model(said, model)
    assert found.confusion == {("step 2", "step 2"): 1, ("none", "step 1"): 1}
    (all_of_them,) = with_model(said, model, blind_only=False)
    assert sum(all_of_them.confusion.values()) == 3
    assert [label_of("no_error", None), label_of("uncertain", None), label_of(None, None)] == [
        "none", "unsure", "unsure"]  # fmt: skip


def test_a_blind_label_is_never_superseded_by_one_that_was_not(store: Annotations) -> None:
    blind = store.add(made(step=1))
    store.add(made(step=4, blind=False))
    assert list(store.latest().values()) == [blind] and len(store.all()) == 2
    newer = store.add(made(step=2))
    assert list(store.latest().values()) == [newer]
    seen = store.add(made("t2", step=0, blind=False))
    assert store.latest()[seen.text_sha256, "ann"] == seen
    first = store.add(made("t2", step=3, created="2026-01-01T00:00:00+00:00"))
    assert store.latest()[seen.text_sha256, "ann"] == first


def test_an_answer_said_twice_in_a_row_is_stored_once(store: Annotations) -> None:
    first = store.add(made(step=1))
    assert store.add(made(step=1)) == first == store.add(made(step=1, blind=False))
    assert store.all() == [first]
    noted = store.add(made(step=1, note="the unit"))
    other = store.add(made(step=1, note="the unit", annotator="bob"))
    back = store.add(made(step=1))
    assert store.all() == [first, noted, other, back]
    store.withdraw(back)
    assert store.add(made(step=1)) not in (first, back)
    seen = store.add(made("t2", blind=False))
    blind = store.add(made("t2"))  # counts more, so it is told apart
    assert seen != blind and store.latest()[seen.text_sha256, "ann"] == blind


def test_a_withdrawn_annotation_stays_in_the_file_and_counts_nowhere(store: Annotations) -> None:
    first, second = store.add(made(step=0)), store.add(made(step=1))
    assert store.withdraw(second) and not store.withdraw(second)
    assert store.all() == [first] and store.latest() == {(first.text_sha256, first.annotator): first}
    assert store.answered(first.text_sha256, first.annotator) and not store.answered("other", first.annotator)
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT count(*) FROM annotations").fetchone() == (2,)
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("DELETE FROM withdrawals")
    store.withdraw(first)
    assert store.all() == [] and store.answered(first.text_sha256, first.annotator)


def test_nothing_was_answered_where_there_is_no_file(store: Annotations) -> None:
    assert not store.answered("x", "y")
