"""What every page has around it: the mark with the name, what the app is in a sentence, texts that can be read, and
keys that go on working after a choice."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import streamlit as st

HERE: Final = Path(__file__).resolve().parents[1]
FIRST_PAGE: Final = "Inspect"
WHAT_IT_IS: Final = (
    "Paste a maths problem and a solution, and see where the reasoning goes wrong: every token coloured, the first "
    "wrong step named."
)
# Streamlit's small print has 60 % of the ink, which is less than the 4.5 to 1 that reading needs
STYLE: Final = """<style>
[data-testid=stCaptionContainer], [data-testid=stFileUploaderDropzoneInstructions] small,
[data-testid=InputInstructions] { color: inherit; opacity: 0.85; }
[data-testid=stCaptionContainer] p { color: inherit; }
button kbd { color: inherit !important; opacity: 1 !important; }
@media (prefers-color-scheme: dark) {  /* the accent is read as text on dark paper; on it, ink is */
  [data-testid^=stBaseButton-primary]:enabled, [data-testid^=stBaseButton-primary]:enabled p,
  [data-testid=stMultiSelect] span[title], [data-testid=stMultiSelect] span[title] ~ * { color: #0b1118 !important; }
}
.irl-lens-told { position: fixed; bottom: 45%; left: 50%; transform: translateX(-50%); z-index: 1000;
  padding: 0.6rem 1rem; border-radius: 0.5rem; background-color: #14171c; color: #f3f5f8;
  box-shadow: 0 2px 10px rgb(0 0 0 / 30%); }
.irl-lens-told.irl-lens-waits { inset: 0 0 auto; transform: none; z-index: 1000000; padding: 0 1rem; border-radius: 0;
  font-size: 0.75rem; line-height: 1rem; text-align: center; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; pointer-events: none; }  /* a line at the upper edge, where nothing stands that is read */
[data-testid=stCheckbox] label { background-color: transparent !important; }  /* a grey frame after each click */
[data-testid=stCheckbox]:has(input:focus-visible) { outline: 2px solid currentColor; outline-offset: 2px; }
[class*="st-key-cards_"] { display: none; }
@media (max-width: 640px) {
  [class*="st-key-cards_"] { display: flex; }
  [class*="st-key-wide_"] { display: none; }
}
.first-run { display: none; }
@media (max-width: 767px) { .first-run { display: block; margin: 0 0 0.5rem; } }
</style>"""
# A list that was chosen from keeps the focus, and with it every key that the page listens to. The place in the order of
# the Tab key stays where it was. What is typed dims the result of the text before, and Inspect leads to the result. A
# page that is being made for more than a second says so.
KEYS: Final = """<script>
if (!window.irlLensKeys) {
  window.irlLensKeys = true;
  const leave = (list) => setTimeout(() => {
    const at = document.activeElement;
    if (at && list.contains(at)) at.blur();
  }, 0);
  const listOf = (node) => node && node.closest && node.closest("[data-testid=stSelectbox]");
  let opened = null;
  document.addEventListener("focusin", (event) => { opened = listOf(event.target) || opened; }, true);
  document.addEventListener("click", (event) => {
    if (event.target.closest && event.target.closest("[role=option]") && opened) leave(opened);
  }, true);
  document.addEventListener("keydown", (event) => {
    const list = listOf(event.target);
    if (list && event.key === "Enter" && list.querySelector("[aria-expanded=true]")) leave(list);
  }, true);
  // what is being typed makes the result below another text's at once; the page hears of it when the field is left
  const fields = ".st-key-problem, .st-key-solution, .st-key-answer";
  const typing = (on) => document.documentElement.classList.toggle("irl-lens-typing", on);
  const before = new WeakMap();
  document.addEventListener("focusin", (event) => {
    if (event.target.closest && event.target.closest(fields)) before.set(event.target, event.target.value);
  }, true);
  document.addEventListener("input", (event) => {
    if (before.has(event.target)) typing(event.target.value !== before.get(event.target));
  }, true);
  // what takes more than a second says so where it is seen, in its own words where it has some
  let waits = null;
  let clock = null;
  const inSight = (node) => {
    const box = node.getBoundingClientRect();
    return box.height > 0 && box.bottom > 0 && box.top < innerHeight;
  };
  const remind = () => {
    const own = [...document.querySelectorAll(".st-key-found [data-testid=stProgress], [data-testid=stSpinner]")];
    if (own.some(inSight)) return rest();
    if (!waits) {
      waits = document.createElement("div");
      waits.className = "irl-lens-told irl-lens-waits";
      waits.setAttribute("role", "status");
      document.body.append(waits);
    }
    waits.textContent = (own[0] && own[0].innerText.trim()) || "Working on this page \u2026";
  };
  const rest = () => {
    if (waits) waits.remove();
    waits = null;
  };
  const app = document.querySelector("[data-testid=stApp]");
  new MutationObserver(() => {
    const at = document.activeElement;
    if (app.dataset.testScriptState !== "notRunning") {
      clock = clock || setInterval(remind, 1000);
      return;
    }
    clearInterval(clock);
    clock = null;
    rest();
    typing(before.has(at) && at.closest(fields) !== null && at.value !== before.get(at));
  }).observe(app, { attributes: true, attributeFilter: ["data-test-script-state"] });
  // a toast of Streamlit's is named after a heading that is not there
  new MutationObserver(() => {
    const toasts = document.querySelectorAll("[data-testid=stToast]:not([aria-label])");
    for (const one of toasts) one.setAttribute("aria-label", "What was done");
  }).observe(document.body, { childList: true, subtree: true });
  // on a narrow screen the result stands below the form
  document.addEventListener("click", (event) => {
    if (!event.target.closest || !event.target.closest(".st-key-inspect button") || innerWidth > 767) return;
    const found = document.querySelector(".st-key-found");
    if (found) found.scrollIntoView({ block: "start" });
  });
}
</script>"""


def draw(page: str) -> None:
    """Draw the frame of a page, by its title; Inspect says what the app is where a session begins with it."""
    st.logo(str(HERE / "mark.svg"), icon_image=str(HERE / "icon.svg"), size="large")
    first = page == st.session_state.setdefault("first_page", page) == FIRST_PAGE
    narrow = f'<p class="first-run">{WHAT_IT_IS}</p>' if first else ""
    st.html(STYLE + narrow)  # wide pages have the sentence in the sidebar
    with st.sidebar:
        st.caption(WHAT_IT_IS)


def keep_keys() -> None:
    """Let the focus return to the page after a choice from a list. The script is ours, and holds nothing of others."""
    st.html(KEYS, unsafe_allow_javascript=True)
