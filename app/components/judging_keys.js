// Failures: keys are taken one after the other, each when the page has been drawn anew after the one before. Streamlit's
// own listener loses a key that comes while buttons are exchanged, and knows none of a button that is yet to be drawn.
(() => {
  if (window.irlLensJudgingKeys) return;
  window.irlLensJudgingKeys = true;
  const MOST_WAIT = 20000; // for the page to be drawn
  const PATIENCE = 1200; // for a button that is not drawn, or disabled, while nothing is going on
  const CHOICES = ".st-key-choices";
  const TYPING = "input:not([type=checkbox]), textarea, [contenteditable=true], [role=combobox], [role=listbox]";
  const PRESSED_BY_ENTER = "button, a, summary, input, [role=button], [role=tab], [role=checkbox], [tabindex='0']";
  const PLACES = { j: "walk_next", k: "walk_previous", n: "walk_unjudged", z: "undo" };
  let queue = []; // the keys that wait
  let pressed = null; // how often the page had been drawn when the button of the first of them was pressed
  let since = 0; // the first of them is the first
  let idle = 0; // since when the page has been drawn
  let drawn = 0; // how often it has been drawn
  let armed = false; // a choice was made, and Enter is to save it, wherever the focus is

  const find = (words) => document.querySelector(words);
  const submit = () => find(".st-key-say [data-testid=stFormSubmitButton] button");
  const isSave = () => Boolean(submit()) && submit().innerText.trim().startsWith("Save");
  const app = () => find("[data-testid=stApp]");
  const isIdle = () => app().dataset.testScriptState === "notRunning";

  const tell = (words) => {
    for (const old of document.querySelectorAll(".irl-lens-key")) old.remove();
    const told = document.createElement("div");
    told.className = "irl-lens-told irl-lens-key";
    told.setAttribute("role", "status");
    told.textContent = words;
    document.body.append(told);
    setTimeout(() => told.remove(), 3500);
  };
  const stop = (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  const choiceOf = (key) => (key === "0" ? "none" : key === "u" ? "unsure" : /^\d+$/.test(key) ? Number(key) - 1 : null);
  const isChosen = (choice) => Boolean(find(".st-key-choice_" + choice + " [data-testid=stBaseButton-primary]"));
  const buttonOf = (key) => {
    const choice = choiceOf(key);
    if (choice !== null) return find(".st-key-choice_" + choice + " button");
    if (key === "Enter") return submit();
    return find(".st-key-" + PLACES[key] + " button");
  };
  const whyNot = (key) => {
    if (choiceOf(key) !== null) return "Key " + key + " is no step of this solution.";
    if (key === "Enter" && isSave()) return "Nothing is chosen yet: 1 to 9, 0 or U, then Enter.";
    if (key === "z") return "Key Z: there is nothing of yours to undo on this solution.";
    return "Key " + shown(key) + ": there is none further in the list.";
  };
  const shown = (key) => (key.length > 1 ? key : key.toUpperCase());
  const notTaken = (why) => "Key " + shown(queue[0]) + " was not taken: " + why;
  const drop = (why) => {
    const rest = queue.slice(1).map(shown);
    tell(why + (rest.length ? " Not taken after it: " + rest.join(", ") + "." : ""));
    queue = [];
    pressed = null;
    armed = false;
  };
  const next = () => {
    queue.shift();
    pressed = null;
    since = Date.now();
  };
  const work = () => {
    if (!queue.length) return;
    const now = Date.now();
    const choice = choiceOf(queue[0]);
    if (pressed !== null && isIdle() && (choice === null ? drawn > pressed : isChosen(choice))) next();
    else if (pressed !== null && isIdle() && drawn > pressed && now - idle > PATIENCE) drop(notTaken("choose again."));
    else if (now - since > MOST_WAIT) drop(notTaken("the page is busy. Press it again."));
    else if (pressed === null && isIdle()) {
      const button = buttonOf(queue[0]);
      if (button && !button.disabled) {
        pressed = drawn;
        button.click();
      } else if (now - Math.max(since, idle) > PATIENCE) drop(whyNot(queue[0]));
    }
    if (queue.length) setTimeout(work, 40);
  };
  const take = (key, clicked) => {
    queue.push(key);
    if (queue.length > 1) return;
    since = Date.now();
    if (clicked) pressed = drawn;
    work();
  };

  new MutationObserver(() => {
    if (!isIdle()) return;
    idle = Date.now();
    drawn += 1;
  }).observe(app(), { attributes: true, attributeFilter: ["data-test-script-state"] });
  window.addEventListener("keydown", (event) => {
    if (!find(CHOICES) || event.ctrlKey || event.altKey || event.metaKey) return;
    const at = event.target.closest ? event.target : document.body;
    if (at.closest(TYPING)) return; // letters, and Enter sends the form
    const key = event.key === "Enter" ? "Enter" : event.key.toLowerCase();
    if (key === "Enter") {
      const own = at === document.body || at.closest(CHOICES) || at === submit();
      if (!own && !armed && !queue.length && at.closest(PRESSED_BY_ENTER)) return; // it presses what has the focus
      armed = false;
    } else if (choiceOf(key) !== null) armed = true;
    else if (!(key in PLACES)) return;
    stop(event);
    if (!event.repeat) take(key);
  }, true);
  document.addEventListener("click", (event) => {
    if (!event.isTrusted || !event.target.closest) return;
    if (queue.length) drop(notTaken("a click came before the page had taken it."));
    const button = event.target.closest(CHOICES + " [class*=st-key-choice_]");
    armed = Boolean(button);
    if (!armed) return;
    const choice = [...button.classList].find((name) => name.startsWith("st-key-choice_")).slice(14);
    take({ none: "0", unsure: "u" }[choice] || String(Number(choice) + 1), true); // an Enter waits for it too
  }, true);
})();
