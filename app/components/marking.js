// The steps of a solution as plain text, in which words can be marked. Text reaches the page as text nodes only.
// Offsets count code points. Keys and fingers select as they do anywhere; a button takes what is selected.

const ROW = "display: flex; gap: 0.6rem; padding: 0.15rem 0; line-height: 1.45; font-size: 0.95rem;";
const NAME = "flex: 0 0 5.5rem; opacity: 0.85; user-select: none;";
const WORDS = "white-space: pre-wrap; overflow-wrap: anywhere; min-width: 0;";
const MARK = "background: #ffd9a8; color: #14171c; border-radius: 2px;";
const BUTTON = "font: inherit; color: inherit; background: transparent; border: 1px solid #8a919c; border-radius: 8px;"
  + "padding: 0.3rem 0.75rem; min-height: 2rem; margin-top: 0.3rem; cursor: pointer;";

function styled(tag, style, text) {
  const node = document.createElement(tag);
  node.style.cssText = style;
  if (text !== undefined) node.textContent = text;
  return node;
}

/** The number of code points of a step before a place in it. */
function before(words, node, offset) {
  const range = document.createRange();
  range.selectNodeContents(words);
  range.setEnd(node, offset);
  return Array.from(range.toString()).length;
}

/** What is selected, as [start, end) of the whole text: within the step where the selection begins; null for nothing. */
function selected(root) {
  const selection = document.getSelection();
  if (!selection || !selection.rangeCount || selection.isCollapsed) return null;
  const range = selection.getRangeAt(0);
  const words = [...root.querySelectorAll("[data-start]")].find((one) => range.intersectsNode(one));
  if (!words) return null;
  const chars = Array.from(words.textContent);
  const first = Number(words.dataset.start);
  let start = words.contains(range.startContainer) ? before(words, range.startContainer, range.startOffset) : 0;
  let end = words.contains(range.endContainer) ? before(words, range.endContainer, range.endOffset) : chars.length;
  while (start < end && !chars[start].trim()) start += 1;
  while (end > start && !chars[end - 1].trim()) end -= 1;
  return start < end ? [first + start, first + end] : null;
}

function rowOf(step, chars, marked) {
  const row = styled("div", ROW);
  const words = styled("span", WORDS);
  words.dataset.start = step.start;
  const cut = (from, to) => chars.slice(Math.max(from, step.start), Math.min(to, step.end)).join("");
  if (marked && marked[0] < step.end && marked[1] > step.start) {
    const here = styled("mark", MARK, cut(marked[0], marked[1]));
    words.append(cut(step.start, marked[0]), here, cut(marked[1], step.end));
  } else words.append(cut(step.start, step.end));
  row.append(styled("span", NAME, step.name), words);
  return row;
}

export default function (component) {
  const { parentElement, data, setTriggerValue } = component;
  const chars = Array.from(data.text);
  const box = styled("div", "");
  box.className = "irl-lens-marking";
  for (const step of data.steps) box.append(rowOf(step, chars, data.marked));
  const button = styled("button", BUTTON, "Mark the selected words as wrong");
  button.type = "button";
  let kept = null;
  const look = () => {
    kept = selected(box);
    button.disabled = !kept;
    button.style.opacity = kept ? "1" : "0.6";
  };
  button.addEventListener("mousedown", (event) => event.preventDefault()); // the selection stays
  button.addEventListener("click", () => { if (kept) setTriggerValue("marked", kept); });
  box.append(button);
  for (const old of [...parentElement.querySelectorAll(".irl-lens-marking")]) old.remove();
  parentElement.append(box);
  look();
  document.addEventListener("selectionchange", look);
  return () => document.removeEventListener("selectionchange", look);
}
