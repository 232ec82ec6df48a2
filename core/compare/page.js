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

for (const radio of all('input[name="half"]')) {
  radio.addEventListener("change", () => {
    for (const element of all("[data-half]")) element.hidden = element.dataset.half !== radio.value;
  });
}

// ---- which families are shown

for (const button of all("[data-toggle]")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", shown);
    for (const element of all(`[data-family="${button.dataset.toggle}"]`)) element.hidden = !shown;
  });
}

// ---- real or drawn?

if (one("#quiz-data")) {
  const pool = JSON.parse(one("#quiz-data").textContent);
  const picture = one("#quiz-image");
  const titles = Object.fromEntries(all("[data-toggle]").map((button) => [button.dataset.toggle, button.textContent]));
  const score = {}; // by family: how many were asked, and how many were told
  let asked = null;
  const ask = () => {
    const kinds = [pool.filter((one) => one.family === "real"), pool.filter((one) => one.family !== "real")];
    const among = kinds[Math.floor(2 * Math.random())]; // as often real as drawn
    asked = among[Math.floor(among.length * Math.random())];
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
      const said = ([family, { asked, told }]) => `${titles[family] ?? family} ${told} of ${asked}`;
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
  const task = heads.findIndex((other) => other.textContent.trim() === "task");
  const measured = all("tbody tr", table).filter((row) => valueOf(row, column) !== null);
  const comparable = task < 0 || ["ms/sample", "evaluations"].includes(head.textContent.trim());
  if (better && comparable && measured.length > 1) {
    const best = Math.max(...measured.map((row) => better * valueOf(row, column)));
    for (const row of measured) if (better * valueOf(row, column) === best) row.children[column].classList.add("best");
  }
});
