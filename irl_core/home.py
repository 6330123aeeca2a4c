"""The place of what people make: training runs, jobs, scored runs and annotations, for every command and the page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

VARIABLE: Final = "IRL_LENS_HOME"
RUNS: Final = "runs"


def runs_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder ``runs`` of IRL_LENS_HOME where that is set, else of the working directory, as a relative path."""
    named = environ.get(VARIABLE, "")
    return Path(named).expanduser() / RUNS if named else Path(RUNS)


def models_at_home(document: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """A training's configuration whose models of earlier trainings, ``runs/NAME/final``, lie in `runs_folder`."""
    model = document.get("model")
    if not environ.get(VARIABLE) or not isinstance(model, Mapping):
        return dict(document)
    found = dict(model)
    for role in ("policy", "discriminator"):
        if isinstance(name := found.get(role), str) and name.startswith(f"{RUNS}/"):
            found[role] = str(runs_folder(environ) / name.removeprefix(f"{RUNS}/"))
    return {**document, "model": found}


def place_words(environ: Mapping[str, str] = os.environ) -> str:
    """Where all of it lies, and how to choose another place."""
    return (
        f"Runs, jobs, scored runs and annotations lie in {runs_folder(environ).resolve()} "
        f"(the folder where irl-lens is started; {VARIABLE}=FOLDER sets another)"
    )
