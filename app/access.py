"""Who may train, annotate and upload."""

from __future__ import annotations


def may(action: str) -> bool:
    """Whether whoever looks at the page may do it."""
    return True


def who() -> str:
    """The name of whoever looks at the page."""
    return "local"


def reason(action: str) -> str:
    """Why it is not allowed."""
    return ""
