"""``irl-lens app``: the Streamlit server, as a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from irl_core.home import place_words
from train.cli.say import say
from train.serving.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
OPEN_FILES = 16_384


def app(
    port: Annotated[int | None, typer.Option(help="The port. (default: the first free one from 8501)")] = None,
) -> None:
    """Open the app on the bundled checkpoint and those in runs/ of this folder, on this machine alone."""
    chosen = free_port(port)
    # ``streamlit run`` puts only the script's own folder on the path; an app.py of the current folder is not ours
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
    if has_login(environment):
        # It says what is wrong. The pages work all the same; nobody is logged in with a secret that is short.
        subprocess.run([sys.executable, "-m", "app.access"], env=environment, check=False)
    say(f"irl-lens is at http://localhost:{chosen} (Ctrl+C stops it)")
    say(f"{place_words()}.")
    options = [f"--server.port={chosen}", "--server.address=localhost", "--server.headless=true"]
    command = [sys.executable, "-m", "streamlit", "run", str(REPOSITORY / "app" / "main.py"), *options]
    allow_open_files()
    child = subprocess.Popen(command, env=environment)
    # Ctrl+C reaches the child by itself; SIGTERM is passed on, so that no child is left
    signal.signal(signal.SIGTERM, lambda number, frame: child.terminate())
    while True:
        try:
            raise typer.Exit(child.wait())
        except KeyboardInterrupt:
            continue


def has_login(environ: Mapping[str, str]) -> bool:
    """Whether somebody has set up a login, or who may do what: ``app.access`` then says at the start what is wrong."""
    secrets = (folder / ".streamlit" / "secrets.toml" for folder in (Path.cwd(), Path.home()))
    return "IRL_LENS_ACCESS" in environ or any(path.exists() for path in secrets)


def allow_open_files() -> None:
    """Let this process and its children open as many files as the system allows them, ``OPEN_FILES`` at most: every
    open page takes four, and 1,024, which many systems begin with, are used up by 250 pages."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
