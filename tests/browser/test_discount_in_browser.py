"""The discount of the heatmap in a real browser: what it adds up there is what the server does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, expect

from app.inspect.links import Link
from irl_core.report.heatmap.payload import ranges, renderer_source
from irl_core.reward.rewards import discount
from tests.browser.test_inspect_in_browser import PRESS, READY, open_page, token

pytestmark = pytest.mark.browser


def test_the_discount_that_the_browser_adds_up_is_the_servers(browser: Browser) -> None:
    rng = np.random.default_rng(5)
    rewards = rng.normal(size=(3, 40)).astype(np.float32)
    rewards[2, 30] = np.nan  # from there on backwards there is no number
    page = browser.new_page()
    page.add_script_tag(content=renderer_source())
    one = "([rewards, ranges, gamma]) => withGamma({ gamma: -1, ranges, trace: { tokens: rewards.map((standardised) =>"
    one += " ({ standardised })) } }, gamma)"
    for gamma in (round(0.01 * place, 2) for place in range(101)):
        for row in rewards:
            sent = [float(value) if np.isfinite(value) else None for value in row]
            found = page.evaluate(one, [sent, ranges(0.9), gamma])
            kept = torch.ones(1, len(row), dtype=torch.bool)
            expected = discount(torch.from_numpy(row).unsqueeze(0), kept, gamma)[0].tolist()
            got = [np.nan if token["discounted"] is None else token["discounted"] for token in found["trace"]["tokens"]]
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
            assert found["ranges"] == ranges(gamma) and found["gamma"] == gamma
    page.close()


def test_the_discount_is_painted_as_it_is_moved_and_told_to_the_page(
    watched: Any, address: str, tmp_path: Path
) -> None:
    page = watched.page
    open_page(page, address, Link("How many?", "pens= 4"))
    slider = page.get_by_role("slider", name="Discount (gamma)")
    expect(slider).to_be_hidden()  # no effect on credit
    page.evaluate(PRESS, "with what follows")
    page.wait_for_url("**view=discounted**")
    page.wait_for_selector(READY)
    expect(slider).to_be_visible()
    # raw 1.5, -3, 0, 0.75, end 0; standardised 1, -3.5, -0.5, 0.25, -0.5; gamma 0: nothing follows. Move and view
    # are one call, so that no message to the server and back could be in time
    move = "node => { node.value = 0; node.dispatchEvent(new Event('input')); return"
    move += " node.closest('.controls').parentNode.querySelector('.view-name').textContent; }"
    assert slider.evaluate(move) == "with what follows (gamma 0)"
    expect(page.locator(".ticks")).to_have_text("\u22129\u221230+3+9")
    assert "gamma=0.9" in page.url
    token(page, "=").hover()
    expect(page.locator(".tip tr.current")).to_have_text("with what follows\u22123.500")
    slider.evaluate("node => node.dispatchEvent(new Event('change'))")
    page.wait_for_url(re.compile("gamma=0(&|$)"))
    page.wait_for_selector(READY)
    expect(page.locator(".view-name")).to_have_text("with what follows (gamma 0)")
    with page.expect_download() as download:
        page.get_by_role("button", name="HTML page of what is shown").click()
    download.value.save_as(tmp_path / "page.html")
    page.goto((tmp_path / "page.html").as_uri())
    expect(page.locator(".view-name")).to_have_text("with what follows (gamma 0)")
    page.get_by_role("slider", name="Discount (gamma)").focus()
    page.keyboard.press("End")
    expect(page.locator(".view-name")).to_have_text("with what follows (gamma 1)")
    token(page, "=").hover()  # -3.5 - 0.5 + 0.25 - 0.5
    expect(page.locator(".tip tr.current")).to_have_text("with what follows\u22124.250")
