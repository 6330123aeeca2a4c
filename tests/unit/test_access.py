"""Who may do what: everybody without a file, those that it names with one, nobody where it is broken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from app import access
from app.access import Rules, allows, person, rules

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
FILE = 'train = ["Ada@Example.org"]\nannotate = ["*"]\nupload = []\n'


def read(tmp_path: Path, text: str | bytes) -> Rules:
    path = tmp_path / "access.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = rules({access.VARIABLE: str(path)})
    assert found is not None
    return found


def test_without_a_file_everybody_may() -> None:
    assert rules({}) is None and rules({access.VARIABLE: ""}) is None
    assert all(allows(None, action, None) for action in access.ACTIONS)


def test_those_who_are_named_may(tmp_path: Path) -> None:
    found = read(tmp_path, FILE)
    assert not found.fault
    expected = {
        ("train", "ada@example.org"): True, ("train", "bob@example.org"): False, ("train", None): False,
        ("annotate", "bob@example.org"): True, ("annotate", None): False, ("upload", "ada@example.org"): False,
    }  # fmt: skip
    assert {key: allows(found, *key) for key in expected} == expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("train = [", "it is not TOML"),
        (b"\xff\xfe", "it is not TOML"),
        ('delete = ["*"]', "it names delete; there are train, annotate, upload"),
        ('train = "*"', "train is no list of e-mail addresses"),
        ("train = [1]", "train is no list of e-mail addresses"),
        ('train = [" "]', "train is no list of e-mail addresses"),
        ("#" * 1_000_001, "it has more than 1,000,000 bytes"),
    ],
)
def test_a_broken_file_allows_nobody(tmp_path: Path, text: str | bytes, fault: str) -> None:
    found = read(tmp_path, text)
    assert found.fault == fault
    assert not any(allows(found, action, "ada@example.org") for action in access.ACTIONS)


def test_a_missing_file_allows_nobody_and_an_empty_one_neither(tmp_path: Path) -> None:
    missing = rules({access.VARIABLE: str(tmp_path / "no.toml")})
    assert missing == Rules(fault="it cannot be read (No such file or directory)")
    for found in (missing, read(tmp_path, "")):
        assert not any(allows(found, action, "a@b.c") for action in access.ACTIONS)


@pytest.mark.parametrize(
    ("user", "email"),
    [
        ({}, None),
        ({"is_logged_in": False, "email": "a@b.c"}, None),
        ({"is_logged_in": True, "email": " A@b.C "}, "a@b.c"),
        ({"is_logged_in": True, "email": "a@b.c", "email_verified": False}, None),
        ({"is_logged_in": True, "email": "a@b.c", "email_verified": "false"}, None),
        ({"is_logged_in": True, "email": "a@b.c", "email_verified": True}, "a@b.c"),
        ({"is_logged_in": True, "email": ["a@b.c"]}, None),
        ({"is_logged_in": True}, None),
    ],
)
def test_a_person_is_a_verified_address(user: dict[str, Any], email: str | None) -> None:
    assert person(user) == email


def test_an_unknown_action_is_named() -> None:
    with pytest.raises(ValueError, match="action is 'fly'; it is one of train, annotate, upload"):
        allows(None, "fly", None)


def test_why_not_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users: list[dict[str, Any]] = [{}]
    monkeypatch.setattr(access, "user", lambda: users[0])
    assert access.may("train") and access.reason("train") == "" and access.who() == "local"
    (tmp_path / "access.toml").write_text(FILE)
    monkeypatch.setenv(access.VARIABLE, str(tmp_path / "access.toml"))
    assert not access.may("annotate") and access.reason("annotate") == "Log in to annotate."
    users[0] = {"is_logged_in": True, "email": "bob@example.org"}
    assert access.may("annotate") and access.who() == "bob@example.org"
    assert access.reason("train") == "bob@example.org may not start trainings here; ask who runs this server."
    (tmp_path / "access.toml").write_text("train = [")
    assert access.reason("train").startswith("Nobody may start trainings: the file that IRL_LENS_ACCESS names allows")


@pytest.mark.parametrize(
    "address", ["\u212aim@example.org", "mi\u017fs@example.org", "stra\u00dfe@x.org", "\u0130@x.org"]
)
def test_only_ascii_letters_are_folded(tmp_path: Path, address: str) -> None:
    """Unicode's rules take each of these for another address: kim@, miss@, strasse@, i + a dot."""
    plain = address.casefold()
    found = read(tmp_path, f'train = ["{plain}"]\nannotate = ["{address}"]\n')
    someone = person({"is_logged_in": True, "email": address})
    assert someone != plain and not allows(found, "train", someone) and allows(found, "annotate", someone)
    assert not allows(found, "annotate", person({"is_logged_in": True, "email": plain}))


# ------------------------------------------------------------------------------------------- the secret of the login


def checked(folder: Path, secrets: str, **environ: str) -> tuple[int, str]:
    """Exit status and words of ``python -m app.access`` where this is the server's ``secrets.toml``."""
    (folder / ".streamlit").mkdir(exist_ok=True)
    (folder / ".streamlit" / "secrets.toml").write_text(secrets)
    known = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), **environ}
    command = [sys.executable, "-m", "app.access"]
    done = subprocess.run(command, cwd=folder, env=known, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_the_example_as_it_is_lets_nobody_log_in_and_says_so_at_the_start(tmp_path: Path) -> None:
    status, said = checked(tmp_path, (DEPLOY / "secrets.toml.example").read_text())
    assert status == 1 and "Nobody can log in: cookie_secret in secrets.toml is empty, and at least 32" in said
    status, said = checked(tmp_path, '[auth]\ncookie_secret = "' + "x" * 31 + '"\n')
    assert status == 1 and "cookie_secret in secrets.toml has 31 characters" in said
    assert checked(tmp_path, '[auth]\ncookie_secret = "' + "x" * 32 + '"\n') == (0, "")
    assert "ExecStartPre=/opt/irl-lens/.venv/bin/python -m app.access\n" in (DEPLOY / "irl-lens.service").read_text()


def test_irl_lens_app_says_it_too(tmp_path: Path) -> None:
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "secrets.toml").write_text('[auth]\ncookie_secret = "short"\n')
    known = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    child = subprocess.Popen(
        [sys.executable, "-m", "train.cli.main", "app"], cwd=tmp_path, env=known, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    assert child.stdout is not None
    lines = [child.stdout.readline(), child.stdout.readline()]
    os.killpg(child.pid, signal.SIGTERM)
    child.communicate(timeout=60)
    assert "Nobody can log in: cookie_secret in secrets.toml has 5 characters" in lines[0]
    assert "irl-lens is at http://localhost:" in lines[1]


def test_a_broken_access_file_is_said_at_the_start(tmp_path: Path) -> None:
    status, said = checked(tmp_path, "", **{access.VARIABLE: str(tmp_path / "no.toml")})
    assert status == 1 and "IRL_LENS_ACCESS allows nothing, because it cannot be read" in said


def test_the_shipped_script_makes_a_secret_of_its_own_for_its_owner_alone(tmp_path: Path) -> None:
    made = []
    for name in ("one.toml", "two.toml"):
        path = tmp_path / name
        subprocess.run([DEPLOY / "make-secrets.sh", path], check=True)
        assert path.stat().st_mode & 0o777 == 0o600
        made.append(tomllib.loads(path.read_text())["auth"]["cookie_secret"])
    assert all(len(secret) == 64 and set(secret) <= set("0123456789abcdef") for secret in made) and made[0] != made[1]
    assert checked(tmp_path, (tmp_path / "one.toml").read_text()) == (0, "")
    again = subprocess.run([DEPLOY / "make-secrets.sh", tmp_path / "one.toml"], check=False, capture_output=True)
    assert again.returncode == 1 and b"is there already" in again.stderr
    assert tomllib.loads((tmp_path / "one.toml").read_text())["auth"]["cookie_secret"] == made[0]


def test_a_cookie_is_not_believed_while_its_secret_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    class Visitor:
        @staticmethod
        def to_dict() -> dict[str, Any]:
            return {"is_logged_in": True, "email": "ada@example.org"}

    monkeypatch.setattr(access.st, "user", Visitor())
    monkeypatch.setattr(access.st, "secrets", {"auth": {}})
    monkeypatch.setattr(access, "rules", lambda: Rules({"annotate": frozenset({"ada@example.org"})}))
    secrets = ["", "x" * 31]
    for secret in secrets:
        monkeypatch.setattr(access, "get_cookie_secret", lambda secret=secret: secret)
        assert not access.may("annotate") and access.who() == "local"
        assert access.reason("annotate").startswith("Nobody can log in: cookie_secret")
    monkeypatch.setattr(access, "get_cookie_secret", lambda: "x" * 32)
    assert access.may("annotate") and access.who() == "ada@example.org" and access.login_fault() == ""


@pytest.mark.parametrize(
    ("visitor", "shown"),
    [
        ({"email": "Ada@example.org", "email_verified": True}, "Logged in: ada@example.org"),
        ({"email": "ada@example.org", "email_verified": False}, access.NO_ADDRESS),
        ({"sub": "1234"}, access.NO_ADDRESS),
    ],
)
def test_whose_address_does_not_count_is_told_so_and_can_log_out(
    visitor: dict[str, Any], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(access, "login_fault", lambda: "")
    monkeypatch.setattr(access, "rules", lambda: Rules({"upload": frozenset({"*"})}))
    monkeypatch.setattr(access, "user", lambda: {"is_logged_in": True, **visitor})
    for kind in ("text", "warning", "button"):
        monkeypatch.setattr(access.st, kind, lambda label, **more: said.append(label))
    access.show_login()
    assert said == [shown, "Log out"]
    assert access.may("upload") == (shown != access.NO_ADDRESS)
