// The heatmap as a PNG: what the browser has laid out is painted again on a canvas, line by line. Nothing is sent.

function paintBox(context, node, origin, scale) {
  const style = getComputedStyle(node);
  for (const box of node.getClientRects()) {
    const [x, y] = [box.left - origin.left, box.top - origin.top];
    if (node.classList.contains("bar")) context.fillStyle = barGradient(context, x, box.width, node);
    else context.fillStyle = style.backgroundColor;
    context.fillRect(x, y, box.width, box.height);
    const width = parseFloat(style.borderTopWidth);
    if (width > 0 && style.borderTopStyle !== "none") {
      context.strokeStyle = style.borderTopColor;
      context.lineWidth = width;
      context.strokeRect(x + width / 2, y + width / 2, box.width - width, box.height - width);
    }
  }
}

function barGradient(context, x, width, node) {
  const gradient = context.createLinearGradient(x, 0, x + width, 0);
  const colours = barColours(node.closest(".hm").dataset.theme, node.closest(".muted"));
  for (const [place, colour] of colours) gradient.addColorStop(place, colour);
  return gradient;
}

/** The lines that a text node is broken into: text with the rectangle it fills. */
function linesOf(textNode) {
  const range = document.createRange();
  const lines = [];
  let offset = 0;
  for (const character of textNode.data) {
    range.setStart(textNode, offset);
    range.setEnd(textNode, offset + character.length);
    offset += character.length;
    const box = range.getClientRects()[0];
    if (!box || !box.width) continue;
    const last = lines[lines.length - 1];
    if (last && Math.abs(last.top - box.top) < 2) {
      last.text += character;
      last.left = Math.min(last.left, box.left);
      last.right = Math.max(last.right, box.right);
    } else lines.push({ text: character, left: box.left, right: box.right, top: box.top, bottom: box.bottom });
  }
  return lines;
}

function paintText(context, textNode, origin) {
  const parent = textNode.parentElement;
  const style = getComputedStyle(parent);
  if (parent.classList.contains("mark")) return;
  context.font = style.fontStyle + " " + style.fontWeight + " " + style.fontSize + " " + style.fontFamily;
  context.fillStyle = style.color;
  context.textBaseline = "middle";
  for (const line of linesOf(textNode)) {
    const text = style.textTransform === "uppercase" ? line.text.toUpperCase() : line.text;
    const [x, y] = [line.left - origin.left, (line.top + line.bottom) / 2 - origin.top];
    context.fillText(text, x, y);
    if (parent.classList.contains("wrong")) {
      context.strokeStyle = style.textDecorationColor;
      wave(context, x, line.right - origin.left, line.bottom - origin.top);
    }
  }
}

function wave(context, left, right, y) {
  context.lineWidth = 1.2;
  context.beginPath();
  for (let x = left; x <= right; x += 1) context.lineTo(x, y - 1 + Math.sin((x - left) * 1.1) * 1.4);
  context.stroke();
}

function paintMark(context, node, origin) {
  const box = node.getClientRects()[0];
  if (!box) return;
  const style = getComputedStyle(node, "::before");
  context.font = style.fontSize + " " + style.fontFamily;
  context.fillStyle = style.color;
  context.textBaseline = "middle";
  context.fillText(node.dataset.mark, box.left - origin.left + 1, (box.top + box.bottom) / 2 - origin.top);
}

function backgroundOf(node) {
  for (let at = node; at; at = at.parentElement || (at.getRootNode && at.getRootNode().host)) {
    const colour = getComputedStyle(at).backgroundColor;
    if (colour && colour !== "rgba(0, 0, 0, 0)" && colour !== "transparent") return colour;
  }
  return "rgb(255, 255, 255)";
}

function paintPicture(body) {
  const scale = 2;
  const margin = 16;
  const box = body.getBoundingClientRect();
  const tools = body.querySelector(".tools").getBoundingClientRect();
  const canvas = document.createElement("canvas");
  canvas.width = Math.ceil((box.width + 2 * margin) * scale);
  canvas.height = Math.min(16000, Math.ceil((tools.top - box.top + 2 * margin) * scale));
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.fillStyle = backgroundOf(body);
  context.fillRect(0, 0, canvas.width, canvas.height);
  const origin = { left: box.left - margin, top: box.top - margin };
  const walker = document.createTreeWalker(body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const holder = node.nodeType === Node.TEXT_NODE ? node.parentElement : node;
    if (holder.closest(".tip, .tools")) continue;
    if (node.nodeType === Node.TEXT_NODE) paintText(context, node, origin);
    else { paintBox(context, node, origin); if (node.dataset.mark) paintMark(context, node, origin); }
  }
  return canvas;
}

function pictureButton(body, name) {
  const tools = element("div", "tools");
  const button = element("button", "picture", "Save as PNG");
  const report = element("span", "report");
  button.type = "button";
  button.addEventListener("click", () => {
    const canvas = paintPicture(body);
    canvas.toBlob((blob) => {
      if (!blob) { report.textContent = "This solution is too tall for one picture; use the HTML export."; return; }
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = name + ".png";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }, "image/png");
  });
  tools.append(button, report);
  return tools;
}
