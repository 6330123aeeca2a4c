"""Permissions to train, annotate and upload: everybody has them, until a file names people.

``IRL_LENS_ACCESS`` names a TOML file with a list of e-mail addresses for each action, ``"*"`` for everybody who is
logged in:

    train = ["ada@example.org"]
    annotate = ["*"]
    upload = []

People are known by Streamlit's own login (OIDC, ``st.login``). A file that cannot be read, or an action that it does
not name, allows nobody. Whoever knows the secret that signs the login's cookie can log in as anybody: with one that is
empty or short nobody is logged in. ``python -m app.access`` checks both before the server starts.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import streamlit as st
from streamlit.errors import StreamlitSecretNotFoundError
from streamlit.web.server.server_util import get_cookie_secret

from irl_core.errors import UserError

VARIABLE: Final = "IRL_LENS_ACCESS"
ACTIONS: Final = {"train": "start trainings", "annotate": "annotate", "upload": "upload solutions"}
EVERYBODY: Final = "*"
LOCAL: Final = "local"
MOST_BYTES: Final = 1_000_000
NO_ADDRESS: Final = "You are nobody here: the login gives no address of yours, or it calls it unverified."
SHORTEST_SECRET: Final = 32  # characters of the secret that signs the cookie of the login
ASCII_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class NotAllowedError(UserError, PermissionError):
    """An action that whoever asks for it is not allowed; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The e-mail addresses allowed for each action.

    ``fault``: why the file allows nobody; empty where it could be read.
    """

    allowed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    fault: str = ""


def rules(environ: Mapping[str, str] = os.environ) -> Rules | None:
    """The rules of the file, read again every time; None where none is named: everybody may do everything then."""
    named = environ.get(VARIABLE)
    if not named:
        return None
    try:
        path = Path(named)
        if path.stat().st_size > MOST_BYTES:
            return Rules(fault=f"it has more than {MOST_BYTES:,} bytes")
        people = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return Rules(fault=f"it cannot be read ({error.strerror})")
    except (ValueError, RecursionError):
        return Rules(fault="it is not TOML")
    unknown = sorted(people.keys() - ACTIONS.keys())
    if unknown:
        return Rules(fault=f"it names {', '.join(unknown)[:100]}; there are {', '.join(ACTIONS)}")
    for action, names in people.items():
        if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
            return Rules(fault=f"{action} is no list of e-mail addresses")
    return Rules({action: frozenset(map(folded, names)) for action, names in people.items()})


def folded(address: str) -> str:
    """An address without blanks around it, its letters A to Z as a to z and every other character as it is.

    Unicode's rules make two addresses one: they take the Kelvin sign for a k, and the long s for an s.
    """
    return address.strip().translate(ASCII_LOWER)


def person(visitor: Mapping[str, object]) -> str | None:
    """The e-mail address of a visitor who is logged in; None otherwise, and for an unverified address."""
    if not visitor.get("is_logged_in") or str(visitor.get("email_verified", True)).lower() == "false":
        return None
    email = visitor.get("email")
    return folded(email) if isinstance(email, str) and email.strip() else None


def allows(known: Rules | None, action: str, email: str | None) -> bool:
    """Whether the rules allow a person an action. Raises ValueError for an unknown action."""
    if action not in ACTIONS:
        raise ValueError(f"action is {action!r}; it is one of {', '.join(ACTIONS)}")
    if known is None:
        return True
    names = known.allowed.get(action, frozenset())
    return not known.fault and email is not None and bool({email, EVERYBODY} & names)


# ------------------------------------------------------------------------------------------ whoever looks at the page


def login_fault() -> str:
    """Why nobody can log in although this server has a login; empty where all is well, or it has none."""
    try:
        has_login = "auth" in st.secrets
    except StreamlitSecretNotFoundError:
        return ""
    length = len(str(get_cookie_secret()).strip())
    if not has_login or length >= SHORTEST_SECRET:
        return ""
    known = f"has {length} characters" if length else "is empty"
    return (
        f"Nobody can log in: cookie_secret in secrets.toml {known}, and at least {SHORTEST_SECRET} are needed. With "
        "such a secret anybody could log in as anybody. deploy/make-secrets.sh makes one (docs/serving.md)."
    )


def user() -> Mapping[str, object]:
    """The visitor of the page, as Streamlit's login describes them; nobody where the login's cookie can be forged."""
    return {"is_logged_in": False} if login_fault() else dict(st.user.to_dict())


def may(action: str) -> bool:
    """Whether the visitor of the page is allowed an action."""
    return allows(rules(), action, person(user()))


def who() -> str:
    """The e-mail address of the visitor; ``local`` where nobody is logged in."""
    return person(user()) or LOCAL


def reason(action: str) -> str:
    """Why the visitor is not allowed an action, and what to do; empty where they are."""
    known = rules()
    if allows(known, action, person(user())):
        return ""
    what = ACTIONS[action]
    if known is not None and known.fault:
        return f"Nobody may {what}: the file that {VARIABLE} names allows nothing, because {known.fault}."
    if person(user()) is None:
        return login_fault() or f"Log in to {what}."
    return f"{who()} may not {what} here; ask who runs this server."


def writer(action: str, named: str = LOCAL) -> str:
    """The name that an action is written down with, asked at the moment of writing.

    It is the address of who is logged in. ``named``, the name that the page sends, counts only on a server without a
    login, where everybody may be anybody.

    Raises:
        NotAllowedError: the visitor is not allowed the action, or not any more.
    """
    if not may(action):
        raise NotAllowedError(reason(action))
    visitor = user()
    if "is_logged_in" in visitor:
        return person(visitor) or LOCAL
    return named.strip() or LOCAL


def show_login() -> None:
    """Draw who is logged in and the button that logs in or out, where this server limits what people may do."""
    if fault := login_fault():
        st.error(fault)
        return
    if rules() is None:
        return
    visitor = user()
    if visitor.get("is_logged_in"):
        if person(visitor) is None:
            st.warning(NO_ADDRESS)
        else:
            st.text(f"Logged in: {who()}")
        st.button("Log out", on_click=st.logout)
    elif "is_logged_in" in visitor:
        st.button("Log in", on_click=st.login)
    else:
        st.caption("Nobody can log in: this server has no login (docs/serving.md).")


def check_server() -> int:
    """Print what keeps people from logging in or from writing; the exit status is 1 where something does."""
    known = rules()
    broken = (
        f"Nobody may do anything: {VARIABLE} allows nothing, because {known.fault}." if known and known.fault else ""
    )
    faults = list(filter(None, (login_fault(), broken)))
    print("\n".join(f"irl-lens: {fault}" for fault in faults), file=sys.stderr, end="\n" if faults else "")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(check_server())
