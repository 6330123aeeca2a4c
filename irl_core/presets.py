"""Presets and configuration files: YAML with ``base:``, overrides ``key.sub=value``; nothing is executed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from irl_core.config import TrainConfig
from irl_core.errors import ConfigError
from irl_core.home import models_at_home
from irl_core.settings import ALIASES, Settings, expand_aliases, merge_settings
from irl_core.validation import nearest, read_yaml


def load_config(
    path_or_preset: str | Path, overrides: Sequence[str] = (), presets_dir: Path | None = None
) -> TrainConfig:
    """The configuration of a preset (its name in ``presets_dir``) or YAML file, with overrides applied in order.

    A file may name another as its ``base:`` (looked for beside it, then among the presets); its keys are laid over the
    base's. Each override is ``key.sub=value``, the value in YAML.

    Raises:
        ConfigError: no such file, an unknown key, or a value that cannot be used.
    """
    path = _find(str(path_or_preset), presets_dir)
    document = _read_with_bases(path, presets_dir)
    for override in overrides:
        key, separator, text = override.partition("=")
        key = ALIASES.get(key.strip(), key.strip())
        if not separator or not key:
            raise ConfigError(f"override {override!r}; key.sub=value is expected, such as run.steps=100")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{key}: {text!r} is not a YAML value; put quotes around text") from error
        for part in reversed(key.split(".")):
            value = {part: value}
        document = merge_settings(document, value)
    config = TrainConfig.from_dict(models_at_home(document))
    return config if config.run.preset else replace(config, run=replace(config.run, preset=path.stem))


def preset_names(presets_dir: Path) -> list[str]:
    """The sorted names of the presets in a folder; a file whose name begins with ``_`` is only a base."""
    return sorted(path.stem for path in presets_dir.glob("*.yaml") if not path.name.startswith("_"))


def _find(name: str, presets_dir: Path | None) -> Path:
    """The file of a preset, or the file itself where ``name`` ends in ``.yaml``."""
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise ConfigError(f"the configuration file {name!r} is not there")
        return Path(name)
    names = preset_names(presets_dir) if presets_dir else []
    path = presets_dir / f"{name}.yaml" if presets_dir and re.fullmatch(r"[\w.-]+", name) else None
    if path is None or not path.is_file():
        raise ConfigError(f"no preset {name!r}{nearest(name, names)}; there are: {', '.join(names) or 'none'}")
    return path


def _read_with_bases(path: Path, presets_dir: Path | None, above: tuple[Path, ...] = ()) -> Settings:
    """The settings of a file laid over those of its bases; ``above``: the files whose base this one is."""
    resolved = path.resolve()
    if resolved in above:
        chain = " -> ".join(step.name for step in (*above, resolved))
        raise ConfigError(f"{path.name}: its base leads back to itself ({chain}); remove one 'base:'")
    document = read_yaml(path)
    base = document.pop("base", None)
    document = expand_aliases(document)
    if base is None:
        return document
    if not isinstance(base, str):
        raise ConfigError(f"{path.name}: base is {base!r}; the name of a preset or of a YAML file is expected")
    beside = path.parent / (base if base.endswith((".yaml", ".yml")) else f"{base}.yaml")
    base_path = beside if beside.is_file() else _find(base, presets_dir)
    return merge_settings(_read_with_bases(base_path, presets_dir, (*above, resolved)), document)
