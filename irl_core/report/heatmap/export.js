// The exported page: reads the data embedded in it and draws every trace with the shared renderer.

function exportControls(settings, redraw) {
  const box = element("div", "controls");
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "View");
  for (const [key, name] of SIGNALS.slice(0, 4)) {
    const button = element("button", "", name);
    button.type = "button";
    button.dataset.view = key;
    button.addEventListener("click", () => { settings.view = key; redraw(); });
    box.append(button);
  }
  const label = element("label", "", "Colour strength ");
  const slider = element("input");
  Object.assign(slider, { type: "range", min: -2, max: 3, step: 0.5, value: Math.log2(settings.strength) });
  slider.addEventListener("input", () => { settings.strength = 2 ** Number(slider.value); redraw(); });
  label.append(slider);
  box.append(label);
  return box;
}

function startExport() {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const result = read("irl-lens-result");
  const settings = read("irl-lens-settings");
  const main = document.querySelector("main");
  main.append(element("h1", "", "Where does the reasoning go wrong?"), element("p", "problem", result.problem));
  const roots = result.traces.map(() => element("section", "trace"));
  const redraw = () => {
    for (const button of main.querySelectorAll(".controls button")) {
      button.setAttribute("aria-pressed", String(button.dataset.view === settings.view));
    }
    roots.forEach((root, index) => renderHeatmap(root, {
      ...settings, ...settings.traces[index], trace: result.traces[index],
    }));
  };
  main.append(exportControls(settings, redraw), ...roots, element("footer", "", settings.footer));
  redraw();
}

startExport();
