// The report page: draws the charts in the colours of the reader's theme, and the examples token by token.

function drawReport() {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const charts = read("report-charts");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const options = { responsive: true, displaylogo: false, toImageButtonOptions: { format: "png", scale: 2 } };
  const draw = () => {
    for (const [id, figure] of Object.entries(charts)) {
      const { data, layout } = dark.matches ? figure.dark : figure.light;
      Plotly.react(document.getElementById(id), structuredClone(data), structuredClone(layout), {
        ...options, toImageButtonOptions: { ...options.toImageButtonOptions, filename: id },
      });
    }
  };
  const examples = Object.entries(read("report-examples"));
  const colour = () => { for (const [id, example] of examples) renderHeatmap(document.getElementById(id), example); };
  dark.addEventListener("change", () => { draw(); colour(); });
  draw();
  colour();
}

drawReport();
