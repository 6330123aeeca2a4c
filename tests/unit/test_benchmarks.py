"""The document of the benchmarks: a section replaces its earlier self, and loses no other."""

from benchmarks.__main__ import BENCHMARKS, HEADING, ON_CUDA, Benchmark, with_section

LISTED = (Benchmark("one", (), "First"), Benchmark("two", (), "Second"), Benchmark("three", (), "Third"))


def section(question: str, told: str) -> str:
    return f"## {question}\n\n`python -m benchmarks`\n\nToday.\n\n```\n{told}\n```\n"


def test_sections_are_in_the_order_of_the_list_and_replaced_alone() -> None:
    document = ""
    for question, told in (("Third", "3"), ("First", "1"), ("Second", "2"), ("First", "1 again")):
        document = with_section(document, question, section(question, told), LISTED)
    assert document == "\n".join([
        HEADING, section("First", "1 again"), section("Second", "2"), section("Third", "3"),
    ])  # fmt: skip


def test_a_section_that_is_listed_no_more_is_left_out() -> None:
    document = with_section("", "First", section("First", "1"), LISTED)
    assert with_section(document, "Second", section("Second", "2"), LISTED[1:]) == "\n".join([
        HEADING, section("Second", "2"),
    ])  # fmt: skip


def test_every_question_names_one_section() -> None:
    questions = [one.question for one in (*BENCHMARKS, *ON_CUDA)]
    assert len(set(questions)) == len(questions)
