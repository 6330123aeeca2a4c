"""An inspection as one HTML file: no network, no dependency, the data readable in it. Imports no streamlit."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irl_core.report.heatmap import payload
from irl_core.report.heatmap.verdict import signed

_HERE = Path(__file__).parent
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>irl-lens: where the reasoning goes wrong</title>
<style>{style}</style>
</head>
<body>
<main></main>
<script type="application/json" id="irl-lens-result">{result}</script>
<script type="application/json" id="irl-lens-settings">{settings}</script>
<script>{script}</script>
</body>
</html>
"""


def to_html(
    result: Mapping[str, Any],
    *,
    view: str = "credit",
    gamma: float = 0.9,
    strength: float = 1.0,
    score_name: str = "trace score",
    described: Sequence[Mapping[str, Any]] | None = None,
    familiar: bool | None = None,
) -> str:
    """The page for ``result`` (of ``irl_core.scorer.to_json``), to be saved as one file and opened anywhere.

    The result is embedded as JSON in the element ``irl-lens-result`` and drawn with text nodes only. The policy in the
    page forbids every request and every script but its own. ``gamma`` is the one the discounted rewards of ``result``
    were computed with. ``described``: what `payload.describe` says of each trace; without it the traces are numbered
    and ``score_name`` names their score; ``familiar`` is then that of `irl_core.report.heatmap.verdict.verdict`.

    Raises:
        ValueError: a number in ``result`` is not finite.
    """
    if described is None:
        described = _numbered(result["traces"], score_name, familiar)
    footer = f"Made with irl-lens from checkpoint {result['checkpoint']}. Nothing in this page is sent anywhere."
    settings = {**payload.settings(view, gamma, strength), "traces": list(described), "footer": footer}
    style = payload.stylesheet() + (_HERE / "export.css").read_text(encoding="utf-8")
    script = payload.renderer_source() + (_HERE / "export.js").read_text(encoding="utf-8")
    return _PAGE.format(
        policy=_policy(script, style), style=style, script=script, result=embed(result), settings=embed(settings)
    )


def embed(data: Any) -> str:
    """``data`` as JSON that cannot end the element it stands in: ASCII, with ``<``, ``>`` and ``&`` escaped."""
    text = json.dumps(data, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _numbered(traces: Sequence[Mapping[str, Any]], score_name: str, familiar: bool | None) -> list[dict[str, Any]]:
    return [
        payload.describe(
            trace,
            title=f"{heading} \u00b7 {score_name} {signed(trace['trace_score'])}",
            file=f"trace-{number}",
            familiar=familiar,
        )
        for number, (heading, trace) in enumerate(zip(payload.titles(traces), traces, strict=True), start=1)
    ]


def _policy(script: str, style: str) -> str:
    sources = f"script-src {_hash(script)}; style-src {_hash(style)}; img-src blob:"
    return f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
