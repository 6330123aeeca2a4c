"""Mathematics in sentences: as one reads it, without the commands of LaTeX."""

from __future__ import annotations

import pytest

from irl_core.reward.plain_math import plain_math


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (r"54 \cdot 5", "54 × 5"),
        (r"\frac{3+4}{2} \times \left(5 - 2\right)", "(3+4)/2 × (5 - 2)"),
        (r"1{,}200 \div \dfrac{1}{2}", "1,200 ÷ (1/2)"),
        (r"2\frac12 + \frac{\frac{1}{2}}{3}", "2 1/2 + (1/2)/3"),
        ("2^{10} + 3^{n+1}", "2^10 + 3^(n+1)"),
        (r"\sqrt{16} + \sqrt{3+4}", "√16 + √(3+4)"),
        (r"5\text{ cm} \times 3\%$", "5 cm × 3%"),
        (r"\boxed{54 \cdot 5", "54 × 5"),
        (r"\( 54 \cdot 5", "54 × 5"),
        ("$5 *  3", "$5 * 3"),  # no LaTeX: as it is written
        ("4*3", "4*3"),
    ],
)
def test_an_expression_is_written_plainly(text: str, plain: str) -> None:
    assert plain_math(text) == plain
