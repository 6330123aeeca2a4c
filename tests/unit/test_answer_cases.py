"""Numbers, final answers and steps as people write them, kind by kind; each kind was misread once."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irl_core.text.answers import compare_answers, normalise_answer, parse_number
from irl_core.text.closing import closing_answer
from irl_core.text.segmentation import make_trace, segment
from irl_core.text.tokens import tokenise
from irl_core.text.verifiable import soft_format

# None: no number, more than one, or a part of something else; never the first digits.
NUMBERS = [
    (r"1\frac{1}{2}", Fraction(3, 2)),
    (r"33\frac{1}{3}\%", Fraction(100, 3)),
    ("2½", Fraction(5, 2)),
    ("‑3", Fraction(-3, 1)),
    ("5 million", 5000000),
    ("3 dozen", 36),
    ("x=5,y=6", None),
    (r"\frac12", Fraction(1, 2)),
    (r"24\text{ cm}^2", 24),
    ("3,5", None),
    ("1e3", 1000),
    ("1e-05", Fraction(1, 100000)),
    (r"-1\frac{3}{4}", Fraction(-7, 4)),
    (r"\dfrac{3}{4}", Fraction(3, 4)),
    (r"\tfrac34", Fraction(3, 4)),
    (r"\frac{3}4", Fraction(3, 4)),
    (r"\frac3{4}", Fraction(3, 4)),
    (r"-\frac{1}{2}", Fraction(-1, 2)),
    ("¾", Fraction(3, 4)),
    ("1{,}200", 1200),
    (r"10\,000", 10000),
    ("12 000", 12000),
    ("1\u202f234,5", None),
    ("–5", -5),
    ("−5", -5),
    ("—5", 5),
    ("$1.5 million", 1500000),
    ("2.5 billion dollars", 2500000000),
    ("5k", 5000),
    ("2x", None),
    ("x5", None),
    (r"3\pi", None),
    (r"2\sqrt{3}", None),
    ("√16", 4),
    (r"\sqrt{16}", 4),
    ("10^3", 1000),
    ("2^{10}", 1024),
    (r"3 \times 10^5", 300000),
    ("6.02 × 10^2", 602),
    ("3 * 4", None),
    ("5 m/s^2", 5),
    ("24 cm²", 24),
    ("24 m^{2}", 24),
    (r"30^\circ", 30),
    ("30°", 30),
    ("12:30", None),
    ("3/4/2020", None),
    ("2 hours 30 minutes", None),
    ("5'6\"", None),
    ("3 quarters", 3),
    ("2 and a half", Fraction(5, 2)),
    ("between 3 and 5", None),
    ("3-5", None),
    ("(3, 5)", None),
    ("[3,5]", None),
    ("x = 5", 5),
    ("x = 3 or x = 4", None),
    ("a=3; b=4", None),
    ("5 = x", 5),
    ("3*4 = 12", 12),
    ("minus 5", -5),
    ("negative 3", -3),
    ("$-5", -5),
    ("(-2)", -2),
    (r"50\%", 50),
    (r"\$5.50", Fraction(11, 2)),
    (r"\text{12 apples}", 12),
    ("12!", 12),
    ("±5", None),
    (">5", None),
    ("5 + x", None),
    ("12 - x", None),
    ("1,00,000", None),
    ("1.000.000", None),
    ("3.33...", None),
    ("about 5", 5),
    ("twice 5", None),
    ("3 squared", None),
    ("US$ 5", 5),
    ("€5", 5),
    ("5 €", 5),
    ("¥500", 500),
    ("0.5", Fraction(1, 2)),
    ("007", 7),
    ("", None),
    ("twelve", None),
    ("- 12", -12),
    (r"\boxed{12}", 12),
    ("1'000", 1000),
    ("1 1/2 cups", Fraction(3, 2)),
    ("2 1/2", Fraction(5, 2)),
    ("1/3", Fraction(1, 3)),
    (r"$\frac{1}{3}$", Fraction(1, 3)),
    ("3^2 + 1", None),
    (r"5\text{ apples and }3\text{ pears}", None),
    ("2 dozen eggs", 24),
    ("half", None),
    ("7th", 7),
    ("12.", 12),
    ("12,", 12),
    ("**12**", 12),
    ("NaN", None),
    ("inf", None),
    ("3.0e2", 300),
    ("1 000 000", 1000000),
    ("7 000 dollars", 7000),
]

# The answer in one spelling; None: none is stated.
CLOSINGS = [
    ("Step 1: 3*5=15. Step 2: 15+2=17. The answer is 17.", "17"),
    ("✅ Final Answer: **37**", "37"),
    ("#### **12**", "12"),
    ("#### x = 12", "12"),
    ("Ans: 12", "12"),
    ("### Final Answer\n12", "12"),
    (r"\boxed 2", "2"),
    (r"\fbox{2}", "2"),
    ("In all they cost $29.00, therefore.", None),
    ("3*5=15\n#### 15\n\nQuestion: one more\nAnswer: 3*2=6\n#### 6", "15"),
    ("3*4=12\n\n**Final Answer**\n\n$\\boxed{12}$", "12"),
    ("🎯 **Answer: 73**", "73"),
    ("**Answer**: 12 apples", "12"),
    ("## Answer: $12", "12"),
    ("Final Answer:\n$$\\boxed{12}$$", "12"),
    ("Final Answer:\n\\[\n12\n\\]", "12"),
    ("#### The answer is 12", "12"),
    ("#### Answer: 12", "12"),
    (r"#### \boxed{12}", "12"),
    ("#### $12", "12"),
    ("####12", "12"),
    ("#### 12 apples", "12"),
    ("#### **Answer: 12**", "12"),
    ("ANSWER: 12", "12"),
    ("Ans. 12", "12"),
    ("Ans = 12", "12"),
    ("Final answer = 12", "12"),
    ("Final answer — 12", "12"),
    ("The final answer is: **12**", "12"),
    (r"Thus, the final answer is $\boxed{12}$.", "12"),
    (r"\boxed{\text{12}}", "12"),
    (r"\boxed12", "12"),
    (r"\framebox{12}", "12"),
    (r"$\boxed{x = 12}$", "12"),
    ("So the answer is x = 12.", "12"),
    ("The answer is\n12", "12"),
    ("**Answer:**\n12", "12"),
    ("answer:12", "12"),
    ("Answer：12", "12"),
    ("➡️ Answer: 12", "12"),
    ("> **Answer:** 12", "12"),
    ("* Answer: 12", "12"),
    ("The answer to this problem is 12.", "12"),
    ("The answer, therefore, is 12", "12"),
    ("The answer is therefore 12.", "12"),
    ("My final answer is 12", "12"),
    ("Therefore, the correct answer is 12.", "12"),
    ("1. Add.\n2. Halve. The answer is 6.", "6"),
    ("a) 2+2=4\nb) 4*2=8\nAnswer: 8", "8"),
    ("4*2=8\nThe answer is 8.\n\nProblem: Tom has 3.\nThe answer is 3.", "8"),
    ("The answer is 8.\nQ: next?\nA: 9", "8"),
    ("#### 8\nHuman: thanks\n#### 9", "8"),
    ("#### 8\n<|im_start|>user\nfoo\n#### 9", "8"),
    ("#### 8\n### Instruction:\nfoo\n#### 9", "8"),
    ("<answer>8</answer>\nQuestion: foo\n<answer>9</answer>", "8"),
    ("#### Step 2: halve it\nfoo", None),
    ("#### Conclusion\nShe has many.", None),
    ("The answer is found by adding 3.", None),
    ("Question: How many?\nAnswer: 12", "12"),
    ("Answer: -5", "-5"),
    ("The answer is −5.", "-5"),
    ("The answer is ½.", "0.5"),
    (r"The answer is \frac{1}{2}.", "0.5"),
    ("**12**", None),
    ("A: $1,200.50", "1200.5"),
    ("So A: 5", None),
    ("Result: 12", None),
    ("### Final Answer: 12 km", "12"),
    ("Final Answer (in dollars): 12", "12"),
]

STEPS = [
    ("\\begin{align*}\n3 + 5 &= 8\\\\\n8 * 2 &= 16\n\\end{align*}\nThe answer is 16.", "rra"),
    ("2+3=5.\n</think>\n<answer>5</answer>", "ra"),  # the template opened <think>
    ("```python\nx = 3\n```\nSo it is 3.", "rr"),
    ("~~~\nx = 3\n~~~\nSo it is 3.", "rr"),
    ("Add.\n\n---\n\nHalve.", "rr"),
    ("<br>\nAdd them up.\n<br/>\nHalve.", "rr"),
    ("\\[\n3+4=7\n\\]\nHalve.\nAnswer: 7", "rra"),
    ("(1) Add.\nmore\n(2) Halve.", "rr"),
    ("1) Add.\nmore\n2) Halve.", "rr"),
    ("1: Add.\nmore\n2: Halve.", "rr"),
    ("a) Add.\nmore\nb) Halve.", "rr"),
    ("A. Add.\nmore\nB. Halve.", "rr"),
    ("i) Add.\nmore\nii) Halve.\niii) Stop.", "rrr"),
    ("① Add.\nmore\n② Halve.", "rr"),
    ("1\ufe0f\u20e3 Add.\nmore\n2\ufe0f\u20e3 Halve.", "rr"),
    ("### 1. Add\nmore\n### 2. Halve", "rr"),
    ("Step one: Add.\nmore\nStep two: Halve.", "rr"),
    ("STEP I: Add.\nmore\nSTEP II: Halve.", "rr"),
    ("Schritt 1: Addieren.\nmehr\nSchritt 2: Halbieren.", "rr"),
    ("Step 1: 3*5=15. Step 2: 15+2=17. The answer is 17.", "rra"),
    ("1. Add.\n2. Halve them. The answer is 6.", "rra"),
]


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_the_one_number_that_a_text_states(text: str, value: Fraction | int | None) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(("text", "answer"), CLOSINGS)
def test_the_final_answer_in_every_closing_form(text: str, answer: str | None) -> None:
    found = segment(text)[2]
    assert (None if found is None else normalise_answer(found)) == answer


@pytest.mark.parametrize(("text", "roles"), STEPS)
def test_steps_and_their_roles(text: str, roles: str) -> None:
    assert "".join(step.role[0] for step in segment(text)[1]) == roles


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("3, 5", "(3,5)", True),
        ("3 and 5", "3,5", True),
        ("3, 5", "5, 3", False),
        (r"\text{Monday}", "Monday", True),
        ("Monday", "Tuesday", False),
        ("twelve", "12", None),  # may well be right
        ("x+1", "1+x", None),
        ("", "12", None),
        ("12 apples", "12", True),
        ("1e-05", "0.00001", True),
        ("$29.00", "29", True),
    ],
)
def test_what_cannot_be_compared_is_neither_right_nor_wrong(a: str, b: str, same: bool | None) -> None:
    assert compare_answers(a, b) is same
    assert compare_answers(b, a) is same


LATEX_PAIRS = [
    (r"\frac{1}{2}", "0.5"),
    (r"1\frac{1}{2}", r"\frac{3}{2}"),
    (r"\dfrac{3}{4}", r"\frac34"),
    (r"33\frac{1}{3}", r"\frac{100}{3}"),
    (r"1{,}200", "1200"),
    (r"2^{10}", "1024"),
    (r"\sqrt{16}", "4"),
    (r"-\frac{1}{2}", "-0.5"),
    (r"24\text{ cm}^2", "24"),
    (r"\frac{1}{2}", r"\frac{1}{3}"),
    (r"\boxed{12}", "13"),
    (r"2^{3}", "6"),
]


@pytest.mark.parametrize(("a", "b"), LATEX_PAIRS)
def test_latex_answers_are_judged_as_math_verify_judges_them(a: str, b: str) -> None:
    math_verify = pytest.importorskip("math_verify", reason="math-verify is in the extra 'test'")
    theirs = math_verify.verify(math_verify.parse(f"${a}$"), math_verify.parse(f"${b}$"))
    assert compare_answers(a, b) is theirs


def test_no_answer_found_is_unknown() -> None:
    for text in ("In all they cost $29.00, therefore.", "It is 72 clips, altogether.", "Twelve."):
        assert make_trace("How many?", text, reference_answer="29").correct is None


def test_a_think_tag_that_the_template_opened_counts_for_the_format() -> None:
    assert soft_format(["2+3=5.\n</think>\n<answer>5</answer>", "2+3=5.\n<answer>5</answer>"]) == [0.5, 0.0]


@given(st.text(alphabet="0123456789.,/ \\{}frac()[]$*`½²^-–=eEk%:;andx×√<>\n", max_size=80))
def test_any_text_is_read_without_an_error(text: str) -> None:
    parse_number(text)
    closing_answer(text)
    assert normalise_answer(normalise_answer(text)) == normalise_answer(text)
    for token in tokenise(text, 0, len(text)):
        assert text[token.start : token.end] and token.start < token.end


@pytest.mark.parametrize(
    "unit", ["\\frac", "\\frac{1}", "1,", "½", "\\text{", "{", "x^2", "1 ", "$", "#", "Q: ", "A:\n1\n"]
)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    started = time.perf_counter()
    tokenise(text, 0, len(text))
    segment(text)
    assert time.perf_counter() - started < 20.0  # quadratic work would take hours
