"""Nested documents of settings before validation: short keys, and one laid on another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irl_core.errors import ConfigError

ALIASES = {"steps": "run.steps", "seed": "run.seed"}

Settings = dict[str, Any]  # a nested document as YAML gives it, before validation


def expand_aliases(document: Mapping[str, Any]) -> Settings:
    """The document with short keys such as ``steps`` in their sections."""
    expanded = {key: value for key, value in document.items() if key not in ALIASES}
    for alias, target in ALIASES.items():
        if alias in document:
            section, _, leaf = target.partition(".")
            if isinstance(expanded.get(section), Mapping) and leaf in expanded[section]:
                raise ConfigError(f"the key {target!r} is given twice, also as {alias!r}; remove one")
            expanded = merge_settings(expanded, {section: {leaf: document[alias]}})
    return expanded


def merge_settings(base: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    """``over`` laid on ``base``: mappings merge, everything else (lists too) replaces."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if not isinstance(value, Mapping) or below is None:
            merged[key] = value
        elif isinstance(below, Mapping):
            merged[key] = merge_settings(below, value)
        else:
            raise ConfigError(f"{key} is {below!r}; keys with values are expected")
    return merged
