"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const one = (selector) => document.querySelector(selector);

// ---- films: every one of them shows the same share of its length

const films = all("canvas.film").map((canvas) => {
  const data = JSON.parse(one(`[data-film-data="${canvas.dataset.film}"]`).textContent);
  const strip = new Image();
  strip.src = data.uri;
  return { canvas, strip, ...data, moment: one(`[data-moment="${canvas.dataset.film}"]`) };
});
const slider = one("#progress");
const play = one("#play");
const LENGTH = 7000; // ms
const REST = 1500; // ms at the end, before it begins again
let playing = false;
let clock = 0; // ms since the films began
let before = null;

function show(share) {
  for (const film of films) {
    const frame = Math.min(film.frames - 1, Math.floor(share * film.frames));
    const { width, height } = film.canvas;
    const pen = film.canvas.getContext("2d");
    pen.clearRect(0, 0, width, height);
    if (film.strip.complete) pen.drawImage(film.strip, 0, frame * height, width, height, 0, 0, width, height);
    film.moment.textContent = film.captions[frame];
  }
}
function seek(share) {
  clock = share * LENGTH;
  slider.value = Math.round(share * 1000);
  show(share);
}
function tick(now) {
  if (!playing) return;
  clock += before === null ? 0 : now - before;
  before = now;
  if (clock > LENGTH + REST) clock = 0;
  const share = Math.min(1, clock / LENGTH);
  slider.value = Math.round(share * 1000);
  show(share);
  requestAnimationFrame(tick);
}
function setPlaying(on) {
  playing = on;
  before = null;
  play.textContent = on ? "Pause" : "Play";
  if (on) requestAnimationFrame(tick);
}
if (films.length) {
  const most = Math.max(...films.map((film) => film.frames));
  const step = (by) => {
    setPlaying(false);
    const frame = Math.min(most - 1, Math.floor((slider.value / 1000) * most)) + by;
    seek(Math.min(most - 1, Math.max(0, frame)) === most - 1 ? 1 : (Math.max(0, frame) + 0.5) / most);
  };
  play.addEventListener("click", () => {
    if (!playing && clock >= LENGTH) seek(0);
    setPlaying(!playing);
  });
  slider.addEventListener("input", () => {
    setPlaying(false);
    seek(slider.value / 1000);
  });
  one("#back").addEventListener("click", () => step(-1));
  one("#forth").addEventListener("click", () => step(1));
  for (const film of films) film.strip.addEventListener("load", () => show(slider.value / 1000));
  show(1);
  // They start by themselves when they come into view, once, and only for those who do not mind motion.
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
    const watch = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      watch.disconnect();
      seek(0);
      setPlaying(true);
    }, { threshold: 0.5 });
    watch.observe(films[0].canvas);
  }
}

// ---- which half is known

const halves = all('input[name="half"]');
const showHalf = () => {
  const known = halves.find((radio) => radio.checked).value;
  for (const element of all("[data-half]")) element.hidden = element.dataset.half !== known;
};
for (const radio of halves) radio.addEventListener("change", showHalf);
if (halves.length) showHalf(); // a browser may remember what was chosen before

// ---- which families are shown

for (const button of all("[data-toggle]")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", shown);
    for (const element of all(`[data-family="${button.dataset.toggle}"]`)) element.hidden = !shown;
  });
}

// ---- samples: of one class, guided; and one of them close up

const closer = one("#closer");
const made = (name, properties) => Object.assign(document.createElement(name), properties);

for (const figure of all("[data-drawn]")) {
  const { name, drawings } = JSON.parse(one(`[data-drawings="${figure.dataset.drawn}"]`).textContent);
  const sheets = all(".sheet", figure);
  if (closer) sheets.forEach((sheet, i) => sheet.append(buttons(sheet.querySelector("img"), name, drawings[i])));
  const [label, guidance] = ["select", "input"].map((control) => figure.querySelector(control));
  const choose = () => {
    const strength = guidance ? JSON.parse(guidance.dataset.values)[guidance.value] : null;
    if (guidance) {
      guidance.nextElementSibling.textContent = strength;
      guidance.setAttribute("aria-valuetext", strength);
    }
    const is = (drawing) => String(drawing.label ?? "") === (label?.value ?? "") && drawing.guidance === strength;
    sheets.forEach((sheet, i) => { sheet.hidden = !is(drawings[i]); });
  };
  for (const control of [label, guidance]) control?.addEventListener("input", choose);
  choose(); // a browser may remember what was chosen before
}

/** A button over each image of a sheet: Tab comes to one of them, the arrows go from one to the next. */
function buttons(sheet, name, drawing) {
  const group = made("div", { className: "pick", role: "group", ariaLabel: `samples of ${name}; arrow keys move` });
  group.style.setProperty("--columns", drawing.columns);
  for (let i = 0; i < drawing.count; i++) {
    const button = made("button", { type: "button", ariaLabel: `sample ${i + 1}, closer`, tabIndex: i ? -1 : 0 });
    button.addEventListener("click", () => enlarge(sheet, name, drawing, i, button));
    group.append(button);
  }
  group.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -drawing.columns, ArrowDown: drawing.columns }[event.key];
    if (!by) return;
    event.preventDefault();
    const here = document.activeElement;
    const next = group.children[[...group.children].indexOf(here) + by];
    if (!next) return;
    here.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  return group;
}

async function enlarge(sheet, name, drawing, i, button) {
  const nearest = made("img", { src: drawing.nearest });
  await nearest.decode();
  one("#closer-title").textContent = `Sample ${i + 1} of ${name}${drawing.chosen && `: ${drawing.chosen}`}`;
  for (const [id, picture] of [["#closer-sample", sheet], ["#closer-nearest", nearest]]) crop(one(id), picture, drawing, i);
  for (const canvas of all("canvas", closer)) canvas.className = sheet.className;
  one("#closer-scores").hidden = !drawing.scores.length;
  one("#closer-scores tbody").replaceChildren(...drawing.scores.map((by) => {
    const row = made("tr", {});
    row.append(made("th", { scope: "row", textContent: by.name + (by.name === name ? " (drew it)" : "") }));
    row.append(made("td", { textContent: by.scores[i] }), made("td", { textContent: `${by.odder[i]} %` }));
    return row;
  }));
  closer.addEventListener("close", () => button.focus(), { once: true });
  closer.showModal();
}
/** The image of this number, alone. */
function crop(canvas, sheet, { columns, count, gap }, i) {
  const across = (sheet.naturalWidth + gap) / columns;
  const down = (sheet.naturalHeight + gap) / Math.ceil(count / columns);
  [canvas.width, canvas.height] = [across - gap, down - gap];
  canvas.getContext("2d").drawImage(sheet, -(i % columns) * across, -Math.floor(i / columns) * down);
}
closer?.addEventListener("click", (event) => { if (event.target === closer) closer.close(); }); // beside it

// ---- real or drawn?

if (one("#quiz-data")) {
  const pool = JSON.parse(one("#quiz-data").textContent);
  const picture = one("#quiz-image");
  const score = {}; // by family: how many were asked, and how many were told
  let asked = null;
  const pick = (among) => among[Math.floor(among.length * Math.random())];
  const ask = () => {
    const drawn = pick(pool.filter((one) => one.family !== "real"));
    const real = pick(pool.filter((one) => one.family === "real" && one.task === drawn.task));
    asked = pick([real, drawn]); // as often real as drawn, of each task
    picture.src = asked.uri;
    picture.className = asked.kind;
  };
  for (const button of all("[data-answer]")) {
    button.addEventListener("click", () => {
      const right = (asked.family === "real") === (button.dataset.answer === "real");
      const whose = asked.family === "real" ? "It is real." : `It was drawn by ${asked.name}.`;
      one("#quiz-verdict").textContent = `${right ? "Right." : "Wrong."} ${whose}`;
      const tally = (score[asked.family] ??= { asked: 0, told: 0 });
      tally.asked += 1;
      tally.told += right;
      const said = ([family, { asked, told }]) => `${family} ${told} of ${asked}`;
      one("#quiz-score").textContent = `You were right about: ${Object.entries(score).map(said).join(", ")}.`;
      ask();
    });
  }
  ask();
}

// ---- the table: sorted by a click on a column's head, the best of each column marked

const table = one("#table");
const heads = all("thead th", table);
const valueOf = (row, column) => {
  const text = row.children[column].dataset.value ?? null;
  if (heads[column].dataset.better === undefined) return text; // a word, also if it looks like a number
  return text === null || !Number.isFinite(Number(text)) ? null : Number(text);
};
function sort(column, ascending) {
  const rows = all("tbody tr", table);
  rows.sort((a, b) => {
    const [x, y] = [valueOf(a, column), valueOf(b, column)];
    if (x === null || y === null) return (x === null) - (y === null); // what was not measured, or is not finite, comes last
    const order = typeof x === "string" ? x.localeCompare(y) : x - y;
    return ascending ? order : -order;
  });
  table.tBodies[0].append(...rows);
  heads.forEach((head, i) => head.setAttribute("aria-sort", i !== column ? "none" : ascending ? "ascending" : "descending"));
}
heads.forEach((head, column) => {
  const better = Number(head.dataset.better || 0);
  head.querySelector("button").addEventListener("click", () => {
    const sorted = head.getAttribute("aria-sort");
    sort(column, sorted === "none" ? better <= 0 : sorted === "descending"); // the best first
  });
  const measured = all("tbody tr", table).filter((row) => valueOf(row, column) !== null);
  if (better && head.dataset.marks !== undefined && measured.length > 1) {
    const best = Math.max(...measured.map((row) => better * valueOf(row, column)));
    for (const row of measured) if (better * valueOf(row, column) === best) row.children[column].classList.add("best");
  }
});
