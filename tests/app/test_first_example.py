"""The Inspect page opens with an example of the checkpoint that the sidebar chose."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest

from app.inspect import examples


def opened(checkpoint: str) -> AppTest:
    """A page that prepares its session as the app does, with a checkpoint chosen between."""

    def script(checkpoint: str) -> None:
        import streamlit as st

        from app.inspect import session

        session.prepare()
        st.session_state["checkpoint"] = st.session_state.get("asked_for", checkpoint)
        session.settle_example()

    return AppTest.from_function(script, kwargs={"checkpoint": checkpoint}).run()


def first_of(checkpoint: str) -> examples.Example:
    return examples.load(examples.file_of(checkpoint))[0][0]


def test_the_first_example_is_the_checkpoints_own() -> None:
    assert first_of("gsm8k") != first_of("demo")
    for checkpoint in ("gsm8k", "demo"):
        page, example = opened(checkpoint), first_of(checkpoint)
        assert not page.exception
        assert (page.session_state["problem"], page.session_state["solution"]) == (
            example.problem, example.wrong_solution or example.solution
        )  # fmt: skip
        assert page.session_state["example_0"] == 0 and page.session_state["run_now"] is True


def test_another_checkpoint_leaves_the_text_and_calls_it_no_example_of_its_own() -> None:
    page = opened("gsm8k")
    page.session_state["asked_for"] = "demo"
    page.run()
    assert page.session_state["problem"] == first_of("gsm8k").problem
    assert page.session_state["example_chooser"] == 1  # a new one, with nothing chosen
