// The exported page: reads the data embedded in it and draws every trace with the shared renderer.

function startExport() {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const result = read("irl-lens-result");
  const settings = read("irl-lens-settings");
  const main = document.querySelector("main");
  main.append(element("h1", "", "Where does the reasoning go wrong?"), element("p", "problem", result.problem));
  const roots = result.traces.map(() => element("section", "trace"));
  const { gamma } = settings; // that the embedded values are of
  const controls = buildControls(settings, (change) => { Object.assign(settings, change); redraw(); });
  const redraw = () => {
    showChoice(controls, settings);
    roots.forEach((root, index) => renderHeatmap(root, {
      ...withGamma({ ...settings, ...settings.traces[index], trace: result.traces[index], gamma }, settings.gamma),
    }));
  };
  main.append(controls, ...roots, element("footer", "", settings.footer));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  redraw();
}

startExport();
