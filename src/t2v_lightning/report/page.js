
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const { tasks, matrix, colours, families } = data;
const count = tasks.length;
const off = matrix.flatMap((row, i) => row.filter((_, j) => j !== i));
const low = off.reduce((a, b) => Math.min(a, b)), high = off.reduce((a, b) => Math.max(a, b));
const everyone = tasks.map((_, i) => i);
let order = data.order, chosen = data.order[0], matches = new Set(everyone), shown = 10, cell = 0;

const TINY = 9;  // pixels; smaller cells have no room for names

const $ = (id) => document.getElementById(id);

// Names come from files that anybody may have written: they enter the page through here, as text.
function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

const dot = (family) => {
  const node = make("span", { className: "dot" });
  if (families[family]) node.style.background = families[family];
  return node;
};

const scientific = (value) => value.toExponential(2).replace("e+", "e");
function number(value) {
  if (value === null) return "";
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-4)) return scientific(value);
  return Number.isInteger(value) || size >= 100 ? String(Math.round(value)) : value.toPrecision(3);
}
const largest = Math.max(Math.abs(high), Math.abs(low));
const decimals = Math.max(0, 2 - Math.floor(Math.log10(Math.max(largest, 1e-4))));
const isOdd = largest >= 1e6 || (largest > 0 && largest < 1e-4);
const distance = (value) => (isOdd ? scientific(value) : value.toFixed(decimals));
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const items = capital(data.items);  // images or texts
const percent = (value) => (value === null ? "" : (100 * value).toFixed(1) + "%");
const share = (value) => (value - low) / (high - low || 1);
const floorOf = (i) => tasks[i].floor ?? -Infinity;
const isNear = (i, j) => i !== j && matrix[i][j] <= Math.max(floorOf(i), floorOf(j));
const isFaded = (i, j) => !matches.has(i) && !matches.has(j);
const neighbours = (i) => everyone.filter((j) => j !== i).sort((a, b) => matrix[i][a] - matrix[i][b] || a - b);
const arrow = data.symmetric ? " and " : " \u2192 ";

const warned = (i) => tasks[i].warnings.slice(0, 1).map(() => make("span", {
  className: "warned", textContent: "! ", title: tasks[i].warnings.join(" "),
}));

// What a name of the glossary means; "Train accuracy" is explained under "Train".
const terms = [...document.querySelectorAll("#glossary dt")];
const glossary = Object.fromEntries(terms.map((term) => [term.textContent, term.nextElementSibling.textContent]));
const meaning = (name) => glossary[name.endsWith("under noise") ? "Under noise" : name] ?? glossary[name.split(" ")[0]] ?? "";

// --- the matrix ----------------------------------------------------------------------------------------------

const channels = colours.map((colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));

// A pixel for each pair, through which the page shows on the diagonal, and more so where a search leaves both out.
function drawCells() {
  const canvas = $("canvas"), picture = new ImageData(count, count);
  canvas.width = canvas.height = count;
  order.forEach((i, y) => order.forEach((j, x) => {
    if (i === j) return;
    const colour = channels[Math.round(share(matrix[i][j]) * (colours.length - 1))];
    picture.data.set([...colour, isFaded(i, j) ? 50 : 255], 4 * (y * count + x));
  }));
  canvas.getContext("2d").putImageData(picture, 0, 0);
  [...$("numbers").children].forEach((node, k) => {
    node.classList.toggle("faded", isFaded(order[Math.floor(k / count)], order[k % count]));
  });
}

// A dot in each cell that is within the noise, where cells are large enough to see one.
function drawMarks() {
  const canvas = $("marks"), size = Number($("cells").dataset.size);
  const dense = Math.min(size * (devicePixelRatio || 1), 8192 / count);
  canvas.width = canvas.height = Math.round(dense * count);
  if (size < 6) return;
  const context = canvas.getContext("2d");
  order.forEach((i, y) => order.forEach((j, x) => {
    if (!isNear(i, j) || isFaded(i, j)) return;
    context.fillStyle = share(matrix[i][j]) > 0.5 ? "#fff" : "#111";
    context.beginPath();
    context.arc((x + 0.5) * dense, (y + (count <= 12 ? 0.82 : 0.5)) * dense, dense * (count <= 12 ? 0.05 : 0.14), 0, 7);
    context.fill();
  }));
}

function drawMatrix() {
  const label = (i) => {
    const node = make("div", { title: tasks[i].name, onclick: () => choose(i) }, ...warned(i), tasks[i].name);
    node.dataset.task = i;
    return node;
  };
  for (const [place, side] of [["rows", "borderRightColor"], ["columns", "borderTopColor"]]) {
    $(place).replaceChildren(...order.map(label));
    for (const node of $(place).children) node.style[side] = families[tasks[node.dataset.task].family] || "";
  }
  if (count <= 12) {
    $("numbers").style.gridTemplate = `repeat(${count}, 1fr) / repeat(${count}, 1fr)`;
    $("numbers").replaceChildren(...order.flatMap((i) => order.map((j) => make("span", {
      textContent: i === j ? "" : distance(matrix[i][j]),
      className: share(matrix[i][j]) > 0.5 ? "light" : "",
    }))));
  }
  $("cursor").hidden = true;
  drawCells();
  resize(cell);
  mark();
}

// Cells of so many pixels; 0 is as large as the page has room for.
function resize(pixels, room = $("matrix").clientWidth - 20) {
  cell = pixels;
  const names = Math.min(260, room / 3, 7 * Math.max(...tasks.map((task) => task.name.length + 2 * task.warnings.length)) + 16);
  const named = Math.floor(Math.min(64, (room - names) / count));
  const size = pixels || (named < TINY ? Math.max(2, Math.floor(Math.min(TINY - 1, (room - 9) / count))) : named);
  $("frame").classList.toggle("tiny", size < TINY);
  $("cells").style.width = $("cells").style.height = size * count + "px";
  const font = Math.min(13, Math.max(7, size * 0.8)) + "px";
  for (const node of $("rows").children) {
    Object.assign(node.style, { height: size + "px", lineHeight: size + "px", fontSize: font, maxWidth: names + "px" });
  }
  for (const node of $("columns").children) {
    Object.assign(node.style, { width: size + "px", lineHeight: size + "px", fontSize: font, maxHeight: names + "px" });
  }
  $("numbers").style.fontSize = Math.min(13, size * 0.3) + "px";
  $("numbers").hidden = size < 24;
  $("cells").dataset.size = size;
  drawMarks();
}

function point(y, x, left, top) {
  const i = order[y], j = order[x], size = Number($("cells").dataset.size);
  for (const node of $("frame").querySelectorAll(".on")) node.classList.remove("on");
  $("rows").children[y].classList.add("on");
  $("columns").children[x].classList.add("on");
  Object.assign($("cursor"), { hidden: false });
  Object.assign($("cursor").style, {
    left: x * size - 2 + "px", top: y * size - 2 + "px", width: size + 4 + "px", height: size + 4 + "px",
  });
  $("cursor").dataset.pair = `${i},${j}`;
  const tip = $("tip");
  if (i === j) {
    tip.replaceChildren(tasks[i].name);
  } else {
    const rank = neighbours(i).indexOf(j) + 1;
    const near = isNear(i, j) ? ["Within the noise: no further apart than two halves of one task"] : [];
    tip.replaceChildren(
      make("b", { textContent: distance(matrix[i][j]) }),
      tasks[i].name + arrow + tasks[j].name,
      ...[`Neighbour ${rank} of ${count - 1} of the first`, ...near].map((text) => make("i", { textContent: text })),
    );
  }
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(left + 16, innerWidth - box.width - 8)) + "px";
  tip.style.top = (top + 18 + box.height > innerHeight ? top - box.height - 12 : top + 18) + "px";
}

function unpoint() {
  $("tip").hidden = $("cursor").hidden = true;
  for (const node of $("frame").querySelectorAll(".on")) node.classList.remove("on");
  mark();
}

const inside = (value) => Math.max(0, Math.min(count - 1, value));
$("cells").onmousemove = (event) => {
  const box = $("cells").getBoundingClientRect(), size = box.width / count;
  const y = inside(Math.floor((event.clientY - box.top) / size));
  point(y, inside(Math.floor((event.clientX - box.left) / size)), event.clientX, event.clientY);
};
$("cells").onmouseleave = $("cells").onblur = unpoint;
$("cells").onclick = () => choose(Number($("cursor").dataset.pair.split(",")[0]));
const steps = {
  ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -count], End: [0, count],
};
$("cells").onkeydown = (event) => {
  const step = steps[event.key];
  if (event.key === "Enter" && $("cursor").dataset.pair) $("cells").onclick();
  if (event.key === "Escape") unpoint();
  if (!step) return;
  event.preventDefault();
  const [i, j] = ($("cursor").dataset.pair || `${chosen},${chosen}`).split(",").map(Number);
  const y = inside(order.indexOf(i) + step[0]), x = inside(order.indexOf(j) + step[1]);
  point(y, x, 0, 0);
  $("cursor").scrollIntoView({ block: "nearest", inline: "nearest" });
  const box = $("cells").getBoundingClientRect(), size = box.width / count;
  point(y, x, box.left + (x + 1) * size, box.top + (y + 1) * size);
};

const byText = (text) => (a, b) => text(a).localeCompare(text(b), undefined, { numeric: true }) || a - b;
const orders = {
  "by similarity": () => data.order,
  "by name": () => [...everyone].sort(byText((i) => tasks[i].name)),
  "as given": () => everyone,
};
if (Object.keys(families).length) {
  orders["by family"] = () => [...everyone].sort(byText((i) => tasks[i].family));
}
$("order").append(...Object.keys(orders).map((name) => make("option", { textContent: name })));
$("order").onchange = () => { order = orders[$("order").value](); drawMatrix(); };
const larger = (factor) => resize(Math.max(2, Math.min(64, Math.round(Number($("cells").dataset.size) * factor))));
$("larger").onclick = () => larger(1.5);
$("smaller").onclick = () => larger(1 / 1.5);
$("fit").onclick = () => resize(0);
addEventListener("resize", () => { if (!cell) resize(0); });
const PAPER = 640;  // pixels across a sheet of paper
let asked = 0, helped = false;
addEventListener("beforeprint", () => {
  [asked, helped] = [cell, $("help").open];
  $("help").open = true;
  resize(0, PAPER);
});
addEventListener("afterprint", () => { $("help").open = helped; resize(asked); });

// --- the chosen task and its neighbours ----------------------------------------------------------------------

function choose(i) {
  chosen = i;
  shown = 10;
  drawPanel();
  mark();
}

function drawPanel() {
  const task = tasks[chosen];
  $("chosen").textContent = task.name;
  $("warnings").replaceChildren(...task.warnings.map((text) => make("li", { textContent: text })));
  const facts = [
    ["Family", task.family], ["Classes", number(task.classes)], [items, number(task.images)],
    [`Train ${task.measure}`, task.accuracy_text],
    [`Train ${task.measure} under noise`, task.under_noise_text],
    [`Test ${task.test_measure}`, task.test_text],
    ["Norm", number(task.norm)],
    ["Standard error", percent(task.stderr)], ["Noise floor", task.floor === null ? "" : distance(task.floor)],
    ...Object.entries(task.taxon).map(([rank, name]) => [capital(rank), name]),
  ].filter(([, value]) => value !== "");
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => [
    make("dt", { textContent: name, title: meaning(name) }), make("dd", { textContent: value }),
  ]));
  const all = neighbours(chosen);
  $("neighbours").replaceChildren(...all.slice(0, shown).map((j) => make("li", {}, make(
    "button", { onclick: () => choose(j), title: tasks[j].name },
    dot(tasks[j].family),
    make("span", { className: "name" }, ...warned(j), tasks[j].name),
    make("span", {
      className: isNear(chosen, j) ? "number near" : "number",
      textContent: distance(matrix[chosen][j]),
      title: isNear(chosen, j) ? "within the noise" : "",
    }),
    make("meter", { min: Math.min(0, low), max: Math.max(high, 1e-9), value: matrix[chosen][j] }),
  ))));
  $("more").hidden = count - 1 <= 10;
  $("more").textContent = shown > 10 ? "The ten nearest" : `All ${count - 1}`;
}
$("more").onclick = () => { shown = shown > 10 ? 10 : count; drawPanel(); };

// --- table and search ----------------------------------------------------------------------------------------

// a column of what a head reaches on some images or texts; where tasks differ in what they are measured by, cells say so
function measuredColumn(images, measure, value, text) {
  const one = tasks.every((task) => task[measure] === tasks[0][measure]);
  const named = (task) => (one || !task[text] ? "" : task[measure] + " ") + task[text];
  return [`${images} ${one ? tasks[0][measure] : "fit"}`, (i) => tasks[i][value], (i) => named(tasks[i])];
}
const columns = [
  ["Task", (i) => tasks[i].name, (i) => tasks[i].name],
  ["Family", (i) => tasks[i].family, (i) => tasks[i].family],
  ["Classes", (i) => tasks[i].classes, (i) => number(tasks[i].classes)],
  [items, (i) => tasks[i].images, (i) => number(tasks[i].images)],
  measuredColumn("Train", "measure", "accuracy", "accuracy_text"),
  ["Under noise", (i) => tasks[i].under_noise, (i) => tasks[i].under_noise_text],
  measuredColumn("Test", "test_measure", "test", "test_text"),
  ["Norm", (i) => tasks[i].norm, (i) => number(tasks[i].norm)],
  ["Standard error", (i) => tasks[i].stderr, (i) => percent(tasks[i].stderr)],
  ["Noise floor", (i) => tasks[i].floor, (i) => (tasks[i].floor === null ? "" : distance(tasks[i].floor))],
  ["Nearest", (i) => tasks[tasks[i].nearest].name, (i) => tasks[tasks[i].nearest].name],
  ["Distance", (i) => tasks[i].distance, (i) => distance(tasks[i].distance)],
].filter(([, value]) => everyone.some((i) => value(i) !== null && value(i) !== ""));
const isText = ([, value]) => typeof value(0) === "string";
let sorted = { column: -1, sign: 1 };

const rows = everyone.map((i) => {
  const row = make("tr", { tabIndex: -1, onclick: () => choose(i) }, ...columns.map((column, k) => make("td", {
    className: isText(column) ? "" : "number",
  }, ...(k ? [] : warned(i)), column[2](i))));
  row.dataset.task = i;
  return row;
});

// The rows are one stop of the tab key, and the arrow keys go from row to row.
document.querySelector("#table tbody").onkeydown = (event) => {
  const visible = [...event.currentTarget.rows].filter((row) => !row.hidden), at = visible.indexOf(event.target);
  const to = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: visible.length - 1 }[event.key];
  if (event.key === "Enter") event.target.click();
  if (to === undefined) return;
  event.preventDefault();
  visible[to]?.focus();
};

function sortTable(column) {
  sorted = { column, sign: sorted.column === column ? -sorted.sign : 1 };
  const [, value] = columns[column];
  const compare = isText(columns[column]) ? byText(value) : (a, b) => value(a) - value(b) || a - b;
  const unknown = (i) => value(i) === null || value(i) === "";  // these stay at the end
  const places = [...everyone].sort((a, b) => unknown(a) - unknown(b) || sorted.sign * compare(a, b));
  document.querySelector("#table tbody").append(...places.map((i) => rows[i]));
  document.querySelectorAll("#table th").forEach((head, k) => {
    if (k === column) head.setAttribute("aria-sort", sorted.sign > 0 ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  });
}

document.querySelector("#table thead tr").append(...columns.map((column, k) => make(
  "th", { scope: "col", className: isText(column) ? "" : "number" },
  make("button", { textContent: column[0], title: meaning(column[0]), onclick: () => sortTable(k) }),
)));
document.querySelector("#table tbody").append(...rows);

function mark() {
  for (const node of $("frame").querySelectorAll("[data-task]")) {
    node.classList.toggle("dim", !matches.has(Number(node.dataset.task)));
    node.classList.toggle("on", Number(node.dataset.task) === chosen);
  }
  rows.forEach((row, i) => {
    row.hidden = !matches.has(i);
    row.setAttribute("aria-selected", i === chosen);
    row.tabIndex = -1;
  });
  const stop = rows[matches.has(chosen) ? chosen : order.find((i) => matches.has(i))];
  if (stop) stop.tabIndex = 0;
}

$("search").oninput = () => {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (i) => [tasks[i].name, tasks[i].family, ...Object.values(tasks[i].taxon)].join(" ").toLowerCase();
  matches = new Set(everyone.filter((i) => words.every((word) => text(i).includes(word))));
  $("found").textContent = words.length ? `${matches.size} of ${count}` : "";
  $("key-faded").hidden = matches.size === count;
  drawCells();
  drawMarks();
  mark();
};
$("search").onkeydown = (event) => {
  if (event.key === "Enter" && matches.size) choose(order.find((i) => matches.has(i)));
  if (event.key === "Escape") { $("search").value = ""; $("search").oninput(); }
};

// --- downloads -----------------------------------------------------------------------------------------------

const field = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value ?? ""));

function download(name, lines) {
  const text = lines.map((line) => line.map(field).join(",") + "\r\n").join("");
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
const names = tasks.map((task) => task.name);
$("download-distances").onclick = () => download(
  "distances.csv", [["task", ...names], ...matrix.map((row, i) => [names[i], ...row])],
);
$("download-table").onclick = () => download(
  "tasks.csv",
  [
    [...columns.map(([name]) => name), "Warned about"],
    ...everyone.map((i) => [...columns.map(([, value]) => value(i)), tasks[i].warnings.join(" ")]),
  ],
);

// --- start ---------------------------------------------------------------------------------------------------

$("settings").append(...Object.entries(data.settings).map(([name, value]) => make(
  "div", {},
  make("dt", { textContent: name.replaceAll("_", " "), title: meaning(capital(name)) }),
  make("dd", { textContent: value }),
)));
const kinds = Object.keys(families).filter(Boolean);
kinds.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
$("legend").append(...kinds.map((name) => make("span", {}, dot(name), name)));
for (const image of document.querySelectorAll("figure img")) {
  Object.assign(image, { tabIndex: 0, role: "button", title: "Enlarge or shrink" });
  image.onclick = () => [image, image.parentNode].forEach((node) => node.classList.toggle("whole"));
  image.onkeydown = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    image.click();
  };
}
for (const button of document.querySelectorAll(".what")) {
  button.onclick = () => { $("help").open = true; document.querySelector("summary").focus(); $("help").scrollIntoView(); };
}
const ramp = $("ramp").getContext("2d");
colours.forEach((colour, x) => { ramp.fillStyle = colour; ramp.fillRect(x, 0, 1, 1); });
$("low").textContent = distance(low);
$("high").textContent = `${distance(high)} ${data.label}`;
$("note").textContent = (data.symmetric ? "" : "From the task of a row to the task of a column. ") +
  "Point at a cell to read it; choose a task to see its neighbours.";
$("key-near").hidden = !everyone.some((i) => everyone.some((j) => isNear(i, j)));
$("key-warned").hidden = !tasks.some((task) => task.warnings.length);
$("key-faded").hidden = true;
drawMatrix();
choose(chosen);
