// The token heatmap: data in, DOM out. Text reaches the page through text nodes only, never as markup.
// Used by the Streamlit component and, unchanged, by the exported page. Offsets count code points.

// zero has the colour of the paper; the ink is read on every colour on the way to the ends
const PALETTES = {
  light: { paper: [255, 255, 255], blue: [74, 144, 217], orange: [240, 135, 43], grey: [176, 180, 188] },
  dark: { paper: [28, 31, 36], blue: [38, 104, 180], orange: [176, 84, 10], grey: [104, 109, 118] },
};
const HOVERS = {
  raw: "What the reward model says of each token: higher is more like an expert",
  standardised: "The reward in standard deviations from its usual value",
  discounted: "The discounted reward: that of each token and of what follows it, later ones counting less",
  credit: "The credit: how much the reward rises or falls at each token",
  logprob: "How likely the policy finds the token after what stands before it: 0 is certain",
  fixed: "The same colours for every solution, so that they can be compared",
  trace: "Full colour at this solution's largest value",
};
const FINDINGS = {
  arithmetic: "Every equation in the text, calculated again exactly; no model has a say. Those that were not "
    + "read whole or are rounded are told apart, and count as neither true nor false",
  answer: "The final answer beside the right one, by value",
  answer_line: "The number that the answer line states beside the one that the last calculation comes to; a right "
    + "solution seldom departs from it",
  quantities: "Numbers of the problem, and values calculated on the way, that nothing after uses: seldom so in right "
    + "solutions",
  reward: "The reward model's word. Step score: what its rule makes of a step's tokens, here named after 'rule'. A step "
    + "below the threshold is called wrong. How often such a word was right was counted on held-out solutions; among others "
    + "wrong ones may be rarer, or more frequent",
  familiarity: "Whether the text is like those that the checkpoint was made for; where it is not, the reward has no say",
};
const MINUS = "\u2212";
const SIGNALS = [
  ["raw", "reward"],
  ["standardised", "standardised"],
  ["discounted", "with what follows"],
  ["credit", "rise and fall"],
  ["logprob", "log-probability"],
];
const SUMMED = new Set(["credit", "logprob"]);
const MARKS = new Map([["\n", "\u21b5"], ["\r", "CR"], ["\0", "NUL"], ["\t", "\u21e5"], ["\u00ad", "SHY"], ["\u200b", "ZWSP"],
  ["\u200c", "ZWNJ"], ["\u200d", "ZWJ"], ["\u2060", "WJ"], ["\ufeff", "BOM"], ["\u00a0", "NBSP"]]);

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function number(value, digits = 3) {
  if (typeof value !== "number") return "no signal";
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? MINUS : "+") + text;
}

/** The visible name of a character that has no shape of its own, or null. */
function markOf(character) {
  if (MARKS.has(character)) return MARKS.get(character);
  const code = character.codePointAt(0);
  const hidden = code < 32 || code === 127 || (code >= 0x80 && code < 0xa0) || (code >= 0x200e && code <= 0x200f)
    || (code >= 0x202a && code <= 0x202e) || (code >= 0x2061 && code <= 0x206f) || (code >= 0xd800 && code <= 0xdfff);
  return hidden ? "U+" + code.toString(16).toUpperCase().padStart(4, "0") : null;
}

/** Pieces of the text in order: each with its tokens (several where they share characters), or with none. */
function toPieces(length, tokens) {
  const clamp = (value) => Math.max(0, Math.min(length, value));
  const spans = tokens.map((token, index) => ({ start: clamp(token.start), end: clamp(token.end), tokens: [index] }));
  spans.sort((a, b) => a.start - b.start || a.end - b.end);
  const pieces = [];
  let position = 0;
  for (const span of spans) {
    const last = pieces[pieces.length - 1];
    const twinOfEmpty = last && last.tokens.length && last.start === span.start && last.end === span.end;
    if (last && last.tokens.length && (span.start < last.end || twinOfEmpty)) {
      last.end = Math.max(last.end, span.end);
      last.tokens.push(...span.tokens);
    } else {
      if (span.start > position) pieces.push({ start: position, end: span.start, tokens: [] });
      pieces.push(span);
    }
    position = Math.max(position, span.end);
  }
  if (position < length) pieces.push({ start: position, end: length, tokens: [] });
  return pieces;
}

/** Rows: one for each step with the white space after it; text between steps has rows of its own. */
function toRows(chars, steps) {
  const cuts = new Map([[0, null]]);
  steps.forEach((step, index) => {
    if (step.start === 0 || index === 0 && !chars.slice(0, step.start).join("").trim()) cuts.set(0, index);
    else cuts.set(step.start, index);
    const next = index + 1 < steps.length ? steps[index + 1].start : chars.length;
    if (!chars.slice(step.end, next).join("").trim()) return;
    const newline = chars.indexOf("\n", step.end);
    const cut = newline >= 0 && newline < next && !chars.slice(step.end, newline).join("").trim() ? newline + 1 : step.end;
    if (!cuts.has(cut)) cuts.set(cut, null);
  });
  const starts = [...cuts.keys()].sort((a, b) => a - b);
  return starts.map((start, i) => ({
    start, end: i + 1 < starts.length ? starts[i + 1] : chars.length, step: cuts.get(start),
    continues: start > 0 && chars[start - 1] !== "\n",
  }));
}

function pieceValue(piece, tokens, view) {
  const values = piece.tokens.map((index) => tokens[index][view]);
  if (values.some((value) => typeof value !== "number")) return null;
  const sum = values.reduce((a, b) => a + b, 0);
  return SUMMED.has(view) ? sum : sum / values.length;
}

/** The data with another discount: each token's standardised reward and what follows it, as the server adds them up; from
 * a token without a number on backwards there is none. Its scale grows as the server's does. */
function withGamma(data, gamma) {
  if (gamma === data.gamma) return data;
  let sum = 0;
  const tokens = data.trace.tokens.map((token) => ({ ...token }));
  for (const token of tokens.slice().reverse()) {
    sum = (typeof token.standardised === "number" ? token.standardised : NaN) + gamma * sum;
    token.discounted = Number.isFinite(sum) ? sum : null;
  }
  const discounted = Math.round(10 * data.ranges.standardised * Math.sqrt(1 / Math.max(1 - gamma, 0.01))) / 10;
  return { ...data, gamma, ranges: { ...data.ranges, discounted }, trace: { ...data.trace, tokens } };
}

/** Whether the page around `node` is dark. */
function isDark(node) {
  const probe = element("span");
  probe.style.cssText = "color: var(--st-background-color, #fff); display: none";
  node.append(probe);
  const parts = (getComputedStyle(probe).color.match(/[\d.]+/g) || [255, 255, 255]).slice(0, 3).map(Number);
  probe.remove();
  return 0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2] < 128;
}

function rgb(channels) {
  return "rgb(" + channels.join(", ") + ")";
}

/** How far a value is on its way to full colour, from 0 to 1. The fixed scale bends: at its mark the colour is half,
 * at three times the mark three quarters, and it never ends; a trace's own scale is straight up to its largest value. */
function shareOf(value, scale) {
  const size = Math.abs(value) / scale.mark;
  return scale.own ? Math.min(1, size) : size / (1 + size);
}

/** The colour of a value; where it means little only its size is drawn, in grey. */
function colourOf(value, scale, muted) {
  const { blue, orange, grey } = PALETTES[scale.theme];
  return tint(muted ? grey : value > 0 ? blue : orange, shareOf(value, scale), scale.theme);
}

/** The colour at a share of the way from the paper to an end. On dark paper faint tints are lifted: the eye sees a
 * tenth of the way to white paper's ends, and hardly one to those of dark paper. */
function tint(end, share, theme) {
  const lifted = theme === "dark" ? share ** 0.6 : share;
  return rgb(PALETTES[theme].paper.map((channel, i) => Math.round(channel + (end[i] - channel) * lifted)));
}

/** The colours of the legend's bar at even places, from the lower end to the upper one. */
function barColours(theme, muted) {
  const { blue, orange, grey } = PALETTES[theme];
  const shares = [1, 0.75, 0.5, 0.25, 0.1, 0];
  const side = (end) => shares.map((share) => [share, tint(end, share, theme)]);
  const lower = side(muted ? grey : orange).map(([share, colour]) => [0.5 - share / 2, colour]);
  const upper = side(muted ? grey : blue).map(([share, colour]) => [0.5 + share / 2, colour]);
  return [...lower, ...upper.reverse().slice(1)];
}

/** The scale of what is shown: its mark, whether it is the trace's own, and the theme. */
function scaleOf(data, pieces, theme) {
  const own = data.scale === "trace";
  const sizes = pieces.map((piece) => piece.tokens.length ? Math.abs(pieceValue(piece, data.trace.tokens, data.view) || 0) : 0);
  const largest = Math.max(0, ...sizes);
  return { own, theme, mark: (own && largest > 0 ? largest : data.ranges[data.view]) / data.strength };
}

/** Fills `parent` with the characters [start, end): plain runs, marked characters, false equations underlined. */
function writeText(parent, chars, start, end, wrong) {
  let run = "";
  let runWrong = false;
  const flush = () => {
    if (!run) return;
    parent.append(runWrong ? element("span", "wrong", run) : document.createTextNode(run));
    run = "";
  };
  for (let i = start; i < end; i += 1) {
    const isWrong = wrong.some((span) => span.start <= i && i < span.end);
    const mark = markOf(chars[i]);
    if (isWrong !== runWrong || mark) flush();
    runWrong = isWrong;
    if (!mark) { run += chars[i]; continue; }
    const node = element("span", mark.length > 1 ? "mark shapeless" : "mark", chars[i]);
    node.dataset.mark = mark;
    parent.append(node);
  }
  flush();
}

function paintToken(node, piece, data, scale) {
  const value = pieceValue(piece, data.trace.tokens, data.view);
  node.className = value === null || data.no_signal ? "tok none" : "tok";
  node.style.backgroundColor = value === null || data.no_signal ? rgb(PALETTES[scale.theme].paper)
    : colourOf(value, scale, data.muted);
  if (piece.tokens.includes(data.picked)) node.classList.add("picked");
  if (piece.start === piece.end) { node.classList.add("mark"); node.dataset.mark = "end"; }
}

/** Whether the verdict names the step of a row; no step is marked where the model cannot judge the text. */
function isNamed(row, data) {
  return row.step !== null && row.step === data.verdict.step && !data.muted;
}

function stepLabel(row, data) {
  const label = element("div", "margin");
  if (row.step === null) return label;
  const step = data.trace.steps[row.step];
  const called = step.role === "answer" ? "Answer" : step.name[0].toUpperCase() + step.name.slice(1);
  label.append(element("span", "name", called));
  if (step.role !== "answer" && step.name !== "step " + (row.step + 1)) label.append(element("span", "place", "no. " + (row.step + 1)));
  if (!data.bare) label.append(element("span", "score", number(step.score, 2)));
  if (isNamed(row, data)) {
    label.append(element("span", "badge", data.verdict.by === "arithmetic" ? "false equation" : "first error"));
  }
  if (row.continues) label.append(element("span", "continues", "\u2937 same line"));
  return label;
}

function buildRow(row, pieces, chars, data, scale) {
  const node = element("div", "row");
  const text = element("div", "text");
  if (row.step !== null) node.dataset.step = row.step;
  if (isNamed(row, data)) node.classList.add("first-error");
  const wrong = data.trace.arithmetic || [];
  pieces.forEach((piece, index) => {
    const start = Math.max(piece.start, row.start);
    const end = Math.min(piece.end, row.end);
    const empty = piece.start === piece.end && piece.start >= row.start
      && (piece.start < row.end || (piece.start === row.end && row.end === chars.length));
    if (start >= end && !empty) return;
    if (!piece.tokens.length || data.bare) { writeText(text, chars, start, end, wrong); return; }
    const token = element("span");
    token.dataset.piece = index;
    token.tabIndex = -1;
    paintToken(token, piece, data, scale);
    writeText(token, chars, start, end, wrong);
    text.append(token);
  });
  node.append(stepLabel(row, data), text);
  return node;
}

function buildPaper(data, chars, pieces, scale) {
  const paper = element("div", "paper");
  paper.setAttribute("role", "group");
  paper.setAttribute("aria-label", data.bare ? "The text" : "Tokens. Arrow keys, Home and End move; up and down move by step.");
  for (const row of toRows(chars, data.trace.steps)) {
    if (row.end > row.start || chars.length === row.start) paper.append(buildRow(row, pieces, chars, data, scale));
  }
  return paper;
}

function buildHead(data) {
  const head = element("div", "head");
  if (data.title) head.append(element("div", "title", data.title));
  const verdict = element("div", "verdict " + data.tone);
  verdict.append(element("strong", "headline", data.verdict.headline));
  for (const finding of data.verdict.findings) {
    const line = element("div", "finding", finding.says);
    line.dataset.by = finding.by;
    line.title = FINDINGS[finding.by];
    verdict.append(line);
  }
  head.append(verdict);
  if (data.problem) head.append(buildProblem(data));
  return head;
}

/** The problem's text with the quantities marked that the solution never uses. */
function buildProblem(data) {
  const box = element("div", "stated");
  const chars = Array.from(data.problem);
  let position = 0;
  for (const one of data.trace.quantities) {
    if (one.uses || one.start < position || one.end > chars.length) continue;
    writeText(box, chars, position, one.start, []);
    const mark = element("span", "odd");
    mark.title = "never used";
    writeText(mark, chars, one.start, one.end, []);
    box.append(mark);
    position = one.end;
  }
  writeText(box, chars, position, chars.length, []);
  return box;
}

function buildLegend(data, scale) {
  const legend = element("div", "legend");
  const name = SIGNALS.find(([key]) => key === data.view)[1];
  const shown = data.view === "discounted" ? name + " (gamma " + data.gamma + ")" : name;
  const what = element("div");
  what.append(element("div", "view-name", shown), element("div", "view-meaning", HOVERS[data.view] + "."));
  legend.append(what);
  const box = element("div", "scale");
  const bar = element("div", "bar");
  const stops = barColours(scale.theme, data.muted).map(([place, colour]) => colour + " " + 100 * place + "%");
  bar.style.backgroundImage = "linear-gradient(to right, " + stops.join(", ") + ")";
  const ticks = element("div", "ticks");
  const digits = scale.mark >= 10 ? 1 : 2;
  const marks = scale.own ? [-1, 0, 1] : [-3, -1, 0, 1, 3];
  for (const times of marks) {
    const value = times * scale.mark;
    const tick = element("span", "", value ? number(value, digits).replace(/\.?0+$/, "") : "0");
    tick.style.left = 50 + 50 * Math.sign(times) * shareOf(value, scale) + "%";
    ticks.append(tick);
  }
  box.append(bar, ticks);
  legend.append(box);
  const zero = scale.theme === "dark" ? "Dark" : "White";
  const notes = [data.muted ? "Grey: the size of the reward, whose sign means nothing here."
    : "Orange: unlike the expert. " + zero + ": exactly zero. Blue: like the expert.",
  scale.own ? "Full colour: this solution's largest value; not to be compared with other solutions."
    : "The same scale for every solution; it has no end, larger values stay apart."];
  if (data.no_signal || data.trace.tokens.some((token) => typeof token[data.view] !== "number")) {
    notes.push("Hatched: no signal.");
  }
  legend.append(element("div", "meaning", notes.join(" ")));
  return legend;
}

/** Something folded away: open again after a change of view where it was opened. */
function fold(summary, drawn, memory) {
  memory.open = memory.open || {};
  const box = element("details", "folded");
  box.open = Boolean(memory.open[summary]);
  box.addEventListener("toggle", () => { memory.open[summary] = box.open; });
  box.append(element("summary", "", summary), ...drawn);
  return box;
}

function buildTable(piece, data) {
  const table = element("table");
  const shown = piece.tokens.slice(0, 6).map((index) => data.trace.tokens[index]);
  const line = (name, values, className, means) => {
    const row = element("tr", className);
    const head = element("th", "", name);
    if (means) head.title = means;
    row.append(head, ...values.map((value) => element("td", "", value)));
    table.append(row);
  };
  line("token id", shown.map((token) => (token.id === undefined || token.id === null ? "not recorded" : String(token.id))));
  for (const [key, name] of SIGNALS) {
    line(name, shown.map((token) => number(token[key])), key === data.view ? "current" : "", HOVERS[key]);
  }
  return table;
}

function fillTip(tip, piece, chars, data) {
  const text = element("div", "tip-text");
  writeText(text, chars, piece.start, piece.end, []);
  if (piece.start === piece.end) text.textContent = "end of the text";
  const place = "characters " + piece.start + "\u2013" + piece.end;
  tip.replaceChildren(text, element("div", "tip-place", place), buildTable(piece, data));
  if (piece.tokens.length > 1) {
    const how = SUMMED.has(data.view) ? "sum" : "mean";
    tip.append(element("div", "tip-place", piece.tokens.length + " tokens share these characters; colour: their " + how));
  }
}

function showTip(tip, anchor) {
  if (tip.showPopover && !tip.matches(":popover-open")) tip.showPopover();
  tip.classList.add("open");
  const at = anchor.getClientRects()[0] || anchor.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const below = at.bottom + 6 + size.height <= window.innerHeight;
  tip.style.left = Math.max(8, Math.min(at.left, window.innerWidth - size.width - 8)) + "px";
  tip.style.top = (below ? at.bottom + 6 : Math.max(8, at.top - size.height - 6)) + "px";
}

function hideTip(tip) {
  if (tip.hidePopover && tip.matches(":popover-open")) tip.hidePopover();
  tip.classList.remove("open");
}

function moveFrom(tokens, index, key) {
  if (key === "Home") return 0;
  if (key === "End") return tokens.length - 1;
  if (key === "ArrowRight") return Math.min(tokens.length - 1, index + 1);
  if (key === "ArrowLeft") return Math.max(0, index - 1);
  const rows = tokens.map((token) => token.closest(".row"));
  if (key === "ArrowDown") return Math.max(index, rows.findIndex((row, i) => i > index && row !== rows[index]));
  if (key === "ArrowUp") {
    const first = rows.indexOf(rows[index]);
    return first < index ? first : Math.max(0, rows.indexOf(rows[Math.max(0, first - 1)]));
  }
  return -1;
}

/** Roving focus, the details of the token under the pointer or the focus, and the choice of one by click or Enter. */
function listen(paper, tip, pieces, chars, data, remembered, pick) {
  const tokens = [...paper.querySelectorAll(".tok")];
  if (!tokens.length) return;
  const start = Math.min(remembered.index, tokens.length - 1);
  tokens[start].tabIndex = 0;
  const show = (token) => { fillTip(tip, pieces[Number(token.dataset.piece)], chars, data); showTip(tip, token); };
  const tokenOf = (event) => event.target.closest(".tok");
  paper.addEventListener("pointerover", (event) => { const token = tokenOf(event); if (token) show(token); else hideTip(tip); });
  const picked = (token) => { if (token && pick) pick(pieces[Number(token.dataset.piece)].tokens[0]); };
  if (pick) paper.classList.add("pickable");
  paper.addEventListener("click", (event) => picked(tokenOf(event)));
  paper.addEventListener("pointerleave", () => hideTip(tip));
  paper.addEventListener("focusout", () => hideTip(tip));
  paper.addEventListener("focusin", (event) => {
    const token = tokenOf(event);
    if (!token) return;
    tokens[remembered.index] && (tokens[remembered.index].tabIndex = -1);
    remembered.index = tokens.indexOf(token);
    token.tabIndex = 0;
    token.setAttribute("aria-describedby", tip.id);
    show(token);
  });
  paper.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { hideTip(tip); return; }
    if (event.key === "Enter") { picked(tokenOf(event)); return; }
    const token = tokenOf(event);
    const next = token ? moveFrom(tokens, tokens.indexOf(token), event.key) : -1;
    if (next < 0) return;
    event.preventDefault();
    tokens[next].focus();
  });
}

const remembered = new WeakMap();
let tipCount = 0;

/** Where the colours are chosen: view, scale, strength and, in the view that has one, the discount. `choose` is called
 * with what changed, and whether it is still being moved. */
function buildControls(settings, choose) {
  const box = element("div", "controls");
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "Colours");
  const buttons = (name, label, options) => {
    const group = element("div", "choice");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", label);
    for (const [key, words] of options) {
      const button = element("button", "", words);
      button.type = "button";
      button.dataset[name] = key;
      button.title = HOVERS[key];
      button.addEventListener("click", () => choose({ [name]: key }));
      group.append(button);
    }
    box.append(group);
  };
  buttons("view", "View", SIGNALS.slice(0, 4));
  buttons("scale", "Scale", [["fixed", "fixed scale"], ["trace", "this solution's scale"]]);
  const slider = (name, words, range, changed) => {
    const label = element("label", name, words + " ");
    const input = element("input");
    Object.assign(input, { type: "range", ...range });
    for (const kind of ["input", "change"]) {
      input.addEventListener(kind, () => choose(changed(Number(input.value)), kind === "input"));
    }
    label.append(input);
    box.append(label);
  };
  slider("strength", "Colour strength", { min: -2, max: 3, step: 1 }, (value) => ({ strength: 2 ** value }));
  slider("gamma", "Discount (gamma)", { min: 0, max: 1, step: 0.01 }, (value) => ({ gamma: value }));
  box.querySelector(".gamma").title = "How much a token counts in those before it: 0 not at all, 1 fully";
  box.querySelector(".gamma").append(element("span", "value"));
  showChoice(box, settings);
  return box;
}

/** Shows in the controls what is chosen. */
function showChoice(box, settings) {
  for (const button of box.querySelectorAll("button")) {
    const name = button.dataset.view ? "view" : "scale";
    button.setAttribute("aria-pressed", String(button.dataset[name] === settings[name]));
  }
  const strength = box.querySelector(".strength input");
  strength.value = Math.log2(settings.strength);
  strength.setAttribute("aria-valuetext", "\u00d7" + settings.strength.toFixed(2));
  const gamma = box.querySelector(".gamma");
  gamma.hidden = settings.view !== "discounted";
  gamma.querySelector("input").value = settings.gamma;
  gamma.querySelector(".value").textContent = settings.gamma.toFixed(2);
}

/** The heatmap with its own controls, in a page that is told of a change of view, and of the discount when it is let go,
 * by `tell(name, value)`. Every change is painted here at once; traces beside each other follow each other's, so that they stay on one scale. */
function renderInteractive(root, data, tell, pick) {
  const memory = remembered.get(root) || { index: 0 };
  remembered.set(root, memory);
  const before = memory.data || {};
  const kept = (window.irlLensColours = window.irlLensColours || {}); // outlives a drawing that the page replaces
  memory.chosen = memory.chosen || {};
  for (const name of ["view", "strength", "scale", "gamma"]) {
    const echo = name === "gamma" && data.gamma === memory.told; // it may be moved on already
    if (echo) delete memory.told;
    else if (before[name] !== data[name]) memory.chosen[name] = data[name]; // what the page did not change stays as chosen
  }
  if (!memory.controls) Object.assign(memory.chosen, kept);
  Object.assign(memory, { data, pick });
  const paint = () => {
    memory.holder.hidden = Boolean(memory.data.muted);
    showChoice(memory.controls, memory.chosen);
    renderHeatmap(root, { ...withGamma(memory.data, memory.chosen.gamma), ...memory.chosen }, memory.pick);
  };
  if (!memory.controls) {
    const choose = (change, moving) => {
      const { view, gamma, ...colours } = change;
      Object.assign(kept, colours);
      window.dispatchEvent(new CustomEvent("irl-lens-colours", { detail: change }));
      if (view) tell("view", view);
      if (gamma === undefined || moving) return;
      memory.told = gamma;
      tell("gamma", gamma);
    };
    memory.controls = buildControls(memory.chosen, choose);
    memory.holder = data.compact ? fold("Choose the colours", [memory.controls], memory) : memory.controls;
    root.append(memory.holder);
    window.addEventListener("irl-lens-colours", (event) => {
      if (!root.isConnected) return;
      Object.assign(memory.chosen, event.detail);
      paint();
    });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTimeout(paint, 200));
  }
  paint();
}

/** Draws `data` into `root`, replacing what was there; `pick(token)`, where given, is called for a token that is chosen. */
function renderHeatmap(root, data, pick) {
  const memory = remembered.get(root) || { index: 0 };
  remembered.set(root, memory);
  const hadFocus = root.activeElement || (root.contains(document.activeElement) ? document.activeElement : null);
  const chars = Array.from(data.trace.text);
  const pieces = toPieces(chars.length, data.trace.tokens);
  const theme = isDark(root) ? "dark" : "light";
  const scale = scaleOf(data, pieces, theme);
  const body = element("div", "hm");
  body.dataset.theme = theme;
  body.dataset.view = data.view;
  const tip = element("div", "tip");
  tip.id = "tip-" + (tipCount += 1);
  tip.setAttribute("role", "tooltip");
  tip.setAttribute("popover", "manual");
  const paper = buildPaper(data, chars, pieces, scale);
  const legend = [buildLegend(data, scale)];
  if (data.caption) legend.push(fold("Where these numbers come from", [element("div", "caption", data.caption)], memory));
  const drawn = [buildHead(data), paper, ...legend];
  if (data.compact) { // the trace first, and all of it in sight
    drawn.splice(0, drawn.length, paper, buildHead(data), fold("What the colours mean", legend, memory));
  }
  if (data.muted) {
    body.classList.add("muted");
    const coloured = fold("Its rewards, in grey: the model cannot judge this text", [paper, legend[0]], memory);
    const plain = [buildPaper({ ...data, bare: true }, chars, pieces, scale), coloured];
    drawn.splice(0, drawn.length, ...(data.compact ? [...plain, buildHead(data)] : [buildHead(data), ...plain]), ...legend.slice(1));
  }
  body.append(...drawn, pictureButton(body, data.file || "solution"), tip);
  const refocus = hadFocus && hadFocus.classList.contains("tok");
  for (const old of [...root.children]) if (old.classList.contains("hm")) old.remove();
  if (data.compact) root.prepend(body);
  else root.append(body);
  listen(paper, tip, pieces, chars, data, memory, pick);
  if (refocus) { const token = paper.querySelector('.tok[tabindex="0"]'); if (token) token.focus({ preventScroll: true }); }
}
