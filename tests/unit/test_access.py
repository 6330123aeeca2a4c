"""Who may do what: everybody without a file, those that it names with one, nobody where it is broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app import access
from app.access import Rules, allows, person, rules

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
