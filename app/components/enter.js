// Failures: an Enter that comes before the choice is drawn is kept until Save is that of the choice, and sent once.
// Save is disabled until then, or still that of the choice before: the Enter would be lost, or save the wrong one.
(() => {
  if (window.irlLensEnter) return;
  window.irlLensEnter = true;
  const MOST_WAIT = 20000;
  const CHOICES = ".st-key-choices";
  const TYPING = "input:not([type=checkbox]), textarea, [contenteditable=true], [role=combobox], [role=listbox]";
  let chosen = null; // the choice that was made last, as its button's class calls it, until Enter or another one
  let kept = null; // the Enter that waits: for which choice, on which solution, since when

  const find = (words) => document.querySelector(words);
  const saveButton = () => find(".st-key-say [data-testid=stFormSubmitButton] button");
  const isSave = (button) => button && button.innerText.trim().startsWith("Save");
  const place = () => [".st-key-trace h3", ".st-key-trace [data-testid=stText]"]
    .map((words) => (find(words) || {}).innerText || "").join("\n");
  const isIdle = () => find("[data-testid=stApp]").dataset.testScriptState === "notRunning";
  const isDrawn = (choice) =>
    isIdle() && Boolean(find(".st-key-choice_" + choice + " [data-testid=stBaseButton-primary]"));
  const canSave = () => isSave(saveButton()) && !saveButton().disabled;

  const tell = (words) => {
    for (const old of document.querySelectorAll(".irl-lens-enter")) old.remove();
    const told = document.createElement("div");
    told.className = "irl-lens-told irl-lens-enter";
    told.setAttribute("role", "status");
    told.textContent = words;
    document.body.append(told);
    setTimeout(() => told.remove(), 3500);
  };
  const stop = (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  const choiceOf = (key) => {
    if (key === "0") return "none";
    if (key.toLowerCase() === "u") return "unsure";
    return /^[1-9]$/.test(key) ? String(Number(key) - 1) : null;
  };
  const drop = (why) => {
    if (kept) tell("Not saved: " + why + " Choose again, then Enter.");
    kept = chosen = null;
  };
  const choose = (choice) => {
    drop("another choice came before the page had taken the first one.");
    chosen = find(".st-key-choice_" + choice) ? choice : null;
  };
  const wait = () => {
    if (!kept) return;
    if (kept.place !== place() || Date.now() - kept.since > MOST_WAIT) {
      drop("the page had not taken the choice yet.");
    } else if (isDrawn(kept.choice) && canSave()) {
      kept = null;
      saveButton().click();
    } else {
      if (!kept.pressed && Date.now() - kept.since > 1000 && isIdle()) { // its key came while buttons were exchanged
        kept.pressed = true;
        const button = find(".st-key-choice_" + kept.choice + " button");
        if (button) button.click();
      }
      setTimeout(wait, 50);
    }
  };

  window.addEventListener("keydown", (event) => {
    if (!find(CHOICES) || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.closest && event.target.closest(TYPING)) {
      if (event.key === "Enter") chosen = null; // the form itself saves
      return;
    }
    if (event.key !== "Enter") {
      const choice = choiceOf(event.key);
      if (choice !== null) choose(choice);
      else if (!["Shift", "Tab"].includes(event.key)) drop("another key came before the page had taken the choice.");
      return;
    }
    if (kept) return stop(event); // a second one is no second answer
    if (chosen !== null && !(isDrawn(chosen) && canSave())) {
      kept = { choice: chosen, place: place(), since: Date.now() };
      chosen = null;
      stop(event);
      wait();
    } else if (chosen === null && isSave(saveButton()) && saveButton().disabled && event.target === document.body) {
      tell("Nothing is chosen yet: 1 to 9, 0 or U, then Enter.");
    } else chosen = null;
  }, true);
  document.addEventListener("click", (event) => {
    const button = event.isTrusted && event.target.closest && event.target.closest(CHOICES + " [class*=st-key-choice_]");
    if (button) choose([...button.classList].find((name) => name.startsWith("st-key-choice_")).slice(14));
    else if (event.isTrusted) drop("a click came before the page had taken the choice.");
  }, true);
})();
