"""An inspection as one HTML file: no network, no dependency, the data readable in it. Imports no streamlit."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from irl_core.report.heatmap import payload
from irl_core.report.inspection_json import InspectionResult

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
    result: InspectionResult,
    *,
    view: str = "credit",
    gamma: float = 0.9,
    strength: float = 1.0,
    score_name: str = "score",
    described: Sequence[payload.Description] | None = None,
) -> str:
    """The page for an inspection, to be saved as one file and opened anywhere.

    The result is embedded as JSON in the element ``irl-lens-result`` and drawn with text nodes only. The policy in the
    page forbids every request and every script but its own.

    Args:
        result: of ``irl_core.report.inspection_json.to_json``.
        view: one of `payload.VIEWS`.
        gamma: the discount that the discounted rewards of ``result`` were computed with.
        strength: divides the value drawn at full colour.
        score_name: names the trace score where ``described`` is not given.
        described: what is said of each trace; without it the traces are numbered.

    Raises:
        ValueError: a number in ``result`` is not finite.
    """
    if described is None:
        headings = zip(payload.titles(result["traces"]), result["traces"], strict=True)
        described = [
            payload.describe(
                trace,
                title=heading,
                caption=payload.ranked_words(trace, score_name)
                if len(result["traces"]) > 1 and not trace["cannot_judge"]
                else "",
                file=f"solution-{number}",
                problem=result["problem"],
            )
            for number, (heading, trace) in enumerate(headings, start=1)
        ]
    footer = f"Made with irl-lens from checkpoint {result['checkpoint']}. Nothing in this page is sent anywhere."
    settings = {**payload.settings(view, gamma, strength), "traces": list(described), "footer": footer}
    style = payload.stylesheet() + (payload.HERE / "export.css").read_text(encoding="utf-8")
    script = payload.renderer_source() + (payload.HERE / "export.js").read_text(encoding="utf-8")
    sources = f"script-src {hash_source(script)}; style-src {hash_source(style)}; img-src blob:"
    policy = f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"
    return _PAGE.format(policy=policy, style=style, script=script, result=embed(result), settings=embed(settings))


def embed(data: Any) -> str:
    """``data`` as JSON that cannot end the element it stands in: ASCII, with ``<``, ``>`` and ``&`` escaped."""
    text = json.dumps(data, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def hash_source(text: str) -> str:
    """The source expression of a Content-Security-Policy that allows this very text."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
