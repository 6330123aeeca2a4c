"""The browser that tests drive: which one, and how it is started."""

from __future__ import annotations

import os
import shutil

# The first has the engine alone, without the windows, menus and services of a browser: a page costs it a quarter less.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
NO_BROWSER = "no Chromium: set IRL_LENS_CHROMIUM or install chromium-headless-shell"
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--font-render-hinting=none",  # the shell alone hints by default, so that its letters are wider than a browser's
    "--force-prefers-reduced-motion",  # what fades or slides is drawn sixty times a second, by the processor
)  # fmt: skip


def find_chromium() -> str | None:
    """The browser named by IRL_LENS_CHROMIUM, else the first of ``BROWSERS`` in PATH, else None."""
    named = os.environ.get("IRL_LENS_CHROMIUM")
    if named:
        return shutil.which(named)
    return next((path for path in map(shutil.which, BROWSERS) if path), None)
