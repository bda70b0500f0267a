// Draws the maps of a comparison, and lets a reader move the threshold, sort and look closer.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const BOX = "#00e5ff";
const ON_CARD = 3;  // so many scores; a closer look shows all

// Maps

const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/** The largest 8-connected part of a map at and above a level: its mask, box and size in cells. */
function largestPart(map, level) {
  const { width, height, values } = map;
  const seen = new Uint8Array(values.length);
  let best = null;
  for (let start = 0; start < values.length; start++) {
    if (seen[start] || values[start] < level || map.empty) continue;
    const part = { cells: [start], x0: width, y0: height, x1: 0, y1: 0 };
    seen[start] = 1;
    for (let i = 0; i < part.cells.length; i++) {
      const x = part.cells[i] % width, y = (part.cells[i] - x) / width;
      part.x0 = Math.min(part.x0, x); part.x1 = Math.max(part.x1, x + 1);
      part.y0 = Math.min(part.y0, y); part.y1 = Math.max(part.y1, y + 1);
      for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++) {
        for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) {
          const cell = v * width + u;
          if (!seen[cell] && values[cell] >= level) { seen[cell] = 1; part.cells.push(cell); }
        }
      }
    }
    if (!best || part.cells.length > best.cells.length) best = part;
  }
  return best;
}

/** The map as a small picture of colours, the more opaque the hotter. */
function coloured(map) {
  const canvas = document.createElement("canvas");
  canvas.width = map.width; canvas.height = map.height;
  const image = new ImageData(map.width, map.height);
  map.values.forEach((value, i) => {
    image.data.set([...data.colours[value], Math.round(data.strength * value)], 4 * i);
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function prepared(small) {
  const map = { width: small.width, height: small.height, values: bytes(small.data) };
  map.empty = map.values.every((value) => value === 0);
  map.colours = coloured(map);
  return map;
}

// Drawing

const settings = () => ({
  level: Math.max(1e-9, 255 * byId("threshold").value),
  heat: byId("heat").checked, box: byId("box").checked, outline: byId("outline").checked,
});

function draw(canvas, picture, map, chosen) {
  const pen = canvas.getContext("2d"), { width, height } = canvas;
  pen.drawImage(picture.image, 0, 0, width, height);
  if (map && chosen.heat) pen.drawImage(map.colours, 0, 0, width, height);
  if (chosen.box) truth(pen, picture.entry.shown, width, height);
  if (!map) return null;
  const part = largestPart(map, chosen.level);
  if (!part) return null;
  const sx = width / map.width, sy = height / map.height;
  pen.strokeStyle = BOX;
  pen.lineWidth = Math.max(2, width / 110);
  if (chosen.box) pen.strokeRect(part.x0 * sx, part.y0 * sy, (part.x1 - part.x0) * sx, (part.y1 - part.y0) * sy);
  if (chosen.outline) outline(pen, part, map, sx, sy);
  return part;
}

/** Strokes the true boxes, dashed. */
function truth(pen, shown, width, height) {
  const sx = width / shown.size[1], sy = height / shown.size[0];
  pen.save();
  for (const [colour, dash] of [["#000", []], ["#fff", [width / 40, width / 40]]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = Math.max(1.5, width / 160);
    pen.setLineDash(dash);
    shown.boxes.forEach(([x0, y0, x1, y1]) => pen.strokeRect(x0 * sx, y0 * sy, (x1 - x0) * sx, (y1 - y0) * sy));
  }
  pen.restore();
}

/** Strokes the edges between cells of a part and cells that are not of it. */
function outline(pen, part, map, sx, sy) {
  const inside = new Set(part.cells);
  pen.lineWidth = Math.max(1.5, pen.lineWidth / 2);
  pen.beginPath();
  for (const cell of part.cells) {
    const x = cell % map.width, y = (cell - x) / map.width;
    const edge = (other, x0, y0, x1, y1) => {
      if (!inside.has(other)) { pen.moveTo(x0 * sx, y0 * sy); pen.lineTo(x1 * sx, y1 * sy); }
    };
    edge(x > 0 ? cell - 1 : -1, x, y, x, y + 1);
    edge(x < map.width - 1 ? cell + 1 : -1, x + 1, y, x + 1, y + 1);
    edge(cell - map.width, x, y, x + 1, y);
    edge(cell + map.width, x, y + 1, x + 1, y + 1);
  }
  pen.stroke();
}

// The grid

const number = (value) => (value === null || value === undefined ? "none" : value.toFixed(3));
const short = (label) => label.split(",")[0];

/** What a title leaves out where the model is wrong: what it says, or what is so. */
function mistaken({ target, truth, top }) {
  if (!truth.length || truth.includes(top[0][0])) return "";
  if (truth.includes(target)) return `wrong: the model says ${short(top[0][0])}`;
  return `wrong: it is ${truth.map(short).join(" and ")}`;
}

const drawn = [];

function element(tag, text, parent, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  Object.assign(made, attributes);
  parent?.append(made);
  return made;
}

function addPicture(entry, index) {
  const shown = entry.shown;
  const picture = { entry, image: new Image(), maps: {}, index };
  const section = element("div", "", byId("grid"), { className: "picture" });
  const title = element("p", short(shown.target), section);
  element("small", entry.id, title);
  if (mistaken(shown)) element("strong", mistaken(shown), title);
  const cards = element("div", "", section, { className: "cards" });
  const bare = element("div", "", cards, { className: "card" });
  addCanvas(picture, "", bare);
  element("span", "picture", bare);
  data.methods.forEach((row) => addCard(picture, row.method, cards));
  picture.image.onload = redraw;
  picture.image.src = "data:image/jpeg;base64," + shown.jpeg;
  return picture;
}

function addCard(picture, method, parent) {
  const { shown, outcomes } = picture.entry, outcome = outcomes[method];
  const card = element("button", "", parent, { type: "button", className: "card" });
  if (shown.maps[method]) {
    picture.maps[method] = prepared(shown.maps[method]);
    addCanvas(picture, method, card);
    card.onclick = () => open(picture.index, method);
  } else {
    element("div", outcome.error || "no map", card, { className: "none" });
    card.disabled = true;
  }
  const caption = element("span", method, card);
  const scores = data.metrics.slice(0, ON_CARD).map((m) => `${m.metric.split("(")[0]} ${number(outcome.scores[m.metric])}`);
  if (!outcome.error) scores.forEach((text) => element("small", text, caption));
  card.setAttribute("aria-label", `${method} on ${picture.entry.id}`);
}

function addCanvas(picture, method, parent) {
  const canvas = element("canvas", "", parent);
  [canvas.width, canvas.height] = fitted(picture.entry.shown.size, 320);
  drawn.push({ canvas, picture, method });
}

function fitted([height, width], side) {
  const scale = side / Math.max(height, width);
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

function redraw() {
  const chosen = settings();
  byId("threshold-value").value = Number(byId("threshold").value).toFixed(2);
  for (const { canvas, picture, method } of drawn) {
    if (picture.image.complete) draw(canvas, picture, picture.maps[method], chosen);
  }
  if (byId("detail").open) showDetail();
}

// One map, larger

const place = { picture: 0, method: "" };

function open(picture, method) {
  Object.assign(place, { picture, method });
  byId("detail").showModal();
  showDetail();
}

function showDetail() {
  const picture = pictures[place.picture], { entry } = picture, outcome = entry.outcomes[place.method];
  const canvas = byId("large");
  [canvas.width, canvas.height] = fitted(entry.shown.size, 900);
  const part = draw(canvas, picture, picture.maps[place.method], settings());
  byId("detail-title").textContent = `${place.method}: ${short(entry.shown.target)}`;
  const top = byId("top"), own = byId("own");
  top.replaceChildren(); own.replaceChildren();
  for (const [label, probability] of entry.shown.top) {
    const isTrue = entry.shown.truth.includes(label) ? " (true)" : "";
    const row = element("tr", "", top), cell = element("td", short(label) + isTrue, row);
    element("span", "", cell, { className: "meter" }).style.width = `${100 * probability}%`;
    element("td", `${(100 * probability).toFixed(1)} %`, row);
  }
  const facts = data.metrics.map((m) => [m.metric, number(outcome.scores[m.metric])]);
  facts.push(["seconds", outcome.seconds.toPrecision(3)], ["box", boxText(part, picture, entry)]);
  for (const [key, value] of facts) {
    const row = element("tr", "", own);
    element("td", key, row); element("td", value, row);
  }
}

function boxText(part, picture, entry) {
  if (!part) return "none";
  const map = picture.maps[place.method], [height, width] = entry.shown.size;
  const at = (cell, size, cells) => Math.round((cell * size) / cells);
  const x = [part.x0, part.x1].map((c) => at(c, width, map.width));
  const y = [part.y0, part.y1].map((c) => at(c, height, map.height));
  return `${x[0]} ${y[0]} ${x[1]} ${y[1]}`;
}

/** Goes to the next map there is, of another method or of another picture. */
function step(methods, others) {
  const names = data.methods.map((row) => row.method);
  const around = (i, length) => (i + length) % length;
  let { picture, method } = place;
  for (let tries = 0; tries < Math.max(names.length, pictures.length); tries++) {
    picture = around(picture + others, pictures.length);
    method = names[around(names.indexOf(method) + methods, names.length)];
    if (pictures[picture].maps[method]) break;
  }
  if (pictures[picture].maps[method]) Object.assign(place, { picture, method });
  showDetail();
}

const KEYS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

function onKey(event) {
  const move = KEYS[event.key];
  if (!move) return;
  event.preventDefault();
  if (byId("detail").open) return step(...move);
  const cards = [...document.querySelectorAll("button.card:not([disabled])")];
  const columns = cards.filter((c) => c.offsetTop === cards[0].offsetTop).length;
  const next = cards[cards.indexOf(event.target) + move[0] + columns * move[1]];
  next?.focus();
}

// The table

function sortBy(heading) {
  const headings = [...heading.parentNode.children], column = headings.indexOf(heading);
  const first = heading.dataset.better === "higher" ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = heading.getAttribute("aria-sort") === first ? other : first;
  headings.forEach((h) => h.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", order);
  const body = byId("scores").tBodies[0], sign = order === "ascending" ? 1 : -1;
  const value = (row) => row.cells[column]?.dataset.value ?? "";
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");  // what has no value comes last
    return sign * (column ? x - y : x.localeCompare(y));
  });
  body.append(...rows);
}

document.querySelectorAll("#scores thead th").forEach((heading) => {
  heading.querySelector("button").onclick = () => sortBy(heading);
});

// Start

const pictures = byId("grid") ? data.shown.map(addPicture) : [];
if (pictures.length) {
  const scale = byId("scale").getContext("2d"), ramp = new ImageData(256, 1);
  data.colours.forEach((colour, i) => ramp.data.set([...colour, 255], 4 * i));
  scale.putImageData(ramp, 0, 0);
  byId("controls").oninput = redraw;
  byId("controls").onsubmit = (event) => event.preventDefault();
  byId("grid").onkeydown = onKey;
  byId("detail").onkeydown = onKey;
  byId("close").onclick = () => byId("detail").close();
  byId("previous").onclick = () => step(-1, 0);
  byId("next").onclick = () => step(1, 0);
  redraw();
}
