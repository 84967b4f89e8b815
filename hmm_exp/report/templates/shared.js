"use strict";
// What every page does: theme, tables that sort and filter, hints at wide tables.
const page = (() => {
  const root = document.documentElement;
  const $ = (selector) => document.querySelector(selector);
  const $$ = (selector) => [...document.querySelectorAll(selector)];

  // Theme: the system's, until the button is used. A sandboxed frame has no storage.
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const remembered = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  if (remembered()) root.dataset.theme = remembered();
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const listeners = [];
  const recolour = () => listeners.forEach((listener) => listener());
  $("#theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept */ }
    recolour();
  });
  system.addEventListener("change", recolour);

  // A click on a head sorts, best first; a second click reverses; missing values stay last.
  function sortable(table) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    const key = (row, i) => {
      const cell = row.cells[i];
      const text = cell.dataset.sort === undefined ? cell.textContent.trim() : cell.dataset.sort;
      return text === "" ? null : isNaN(text) ? text : Number(text);
    };
    const compare = (a, b) => (typeof a === "number" && typeof b === "number"
      ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
    heads.forEach((head, i) => head.firstElementChild.addEventListener("click", () => {
      const rows = [...body.rows].map((row) => [key(row, i), row]);
      const numeric = rows.some(([value]) => typeof value === "number");
      const first = numeric && head.dataset.first !== "lowest" ? "descending" : "ascending";
      const now = head.getAttribute("aria-sort");
      const next = now === "none" ? first : now === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      rows.sort(([x], [y]) =>
        x === null || y === null ? (x === null) - (y === null) : sign * compare(x, y));
      body.append(...rows.map(([, row]) => row));
    }));
  }

  // Rows that hold all words of the field #filter and pass `also`; #count shows how many.
  function filterable(table, unit, also, ...controls) {
    const rows = [...table.tBodies[0].rows].map((row) => [row, row.textContent.toLowerCase()]);
    const filter = () => {
      const words = $("#filter").value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const [row, text] of rows) {
        row.hidden = !words.every((word) => text.includes(word)) || !also(row);
        shown += !row.hidden;
      }
      $("#count").textContent = shown === rows.length ? `${shown} ${unit}` : `${shown} of ${rows.length} ${unit}`;
    };
    $("#filter").addEventListener("input", filter);
    for (const control of controls) control.addEventListener("change", filter);
    filter();
  }

  // A table or picture that is wider than its place shows that there is more.
  function hint(place) {
    const line = document.createElement("p");
    line.className = "hint";
    place.before(line);
    const look = () => {
      const rest = place.scrollWidth - place.clientWidth;
      line.textContent = rest > 1 ? "scroll sideways for more →" : "";
      place.classList.toggle("more", place.scrollLeft < rest - 1);
      place.tabIndex = rest > 1 ? 0 : -1;
    };
    place.addEventListener("scroll", look, { passive: true });
    new ResizeObserver(look).observe(place);
    look();
  }

  $$(".scroll, .pan").forEach(hint);
  return { root, $, $$, sortable, filterable, onTheme: (listener) => listeners.push(listener) };
})();
