"use strict";
// The page of a symbol, its address, and the start of everything.
(() => {
  const { root, $, sortable, onTheme } = page;
  const { data, colourOf, css, pen, dashes, date, timeAxis, inWords, clamp, UNKNOWN, NO_BAR, RIGHT } = drawing;
  const MISSING = 65535, WIDE = 7; // code of a missing close; days of a hole that parts the line
  const article = $("#symbol"), inside = (selector) => article.querySelector(selector);
  let details = null, chart = null; // parsed when the first symbol opens; what is drawn

  function element(tag, text, attributes = {}) {
    return Object.assign(document.createElement(tag), { textContent: text }, attributes);
  }
  function fill(i) {
    details ??= JSON.parse($("#symbol-data").textContent);
    const one = data.symbols[i], about = details[i];
    inside("h1").textContent = one.name;
    inside(".verdict").replaceChildren(...about.verdict.map((line, k) =>
      element("p", line, { className: ["answer", ""][k] ?? "lead" })));
    inside(".facts").replaceChildren(...about.facts.flatMap(([name, text]) =>
      [element("dt", name), element("dd", text)]));
    inside(".key").replaceChildren(...one.labels.map((text, k) => {
      const key = element("span", text), swatch = element("i", "", { className: "swatch" });
      swatch.style.background = colourOf(one, k);
      key.prepend(swatch);
      return key;
    }));
    fillCells(about);
    inside("#load").hidden = !about.load;
    inside("#load pre").textContent = about.load;
    inside("#through-time").hidden = !about.chart;
    chart = null;
    if (about.chart) readChart(one, about.chart);
  }

  const LOWEST = ["K", "BIC", "seconds"];
  function fillCells({ heads, cells, winner }) {
    inside("#cells").hidden = !cells.length;
    const head = element("tr", "");
    head.append(...heads.map((name) => {
      const cell = element("th", "", { scope: "col", ariaSort: "none" });
      if (LOWEST.includes(name)) cell.dataset.first = "lowest";
      cell.append(element("button", name, { type: "button" }));
      return cell;
    }));
    inside("#cells thead").replaceChildren(head);
    inside("#cells tbody").replaceChildren(...cells.map((texts) => {
      const row = element("tr", "", { className: texts[0] === winner ? "winner" : "" });
      row.append(...texts.map((text, k) => cellOf(heads[k], text)));
      return row;
    }));
    sortable(inside("#cells table"));
  }
  function cellOf(head, text) {
    const kind = { run: "id", eligible: "why" }[head] ?? "";
    const cell = element(head === "cell" ? "th" : "td", kind === "id" ? text.slice(0, 8) : text, { className: kind });
    if (kind) cell.title = text;
    cell.dataset.sort = /^[−+]?[\d.,]+$/.test(text) ? text.replace("−", "-").replaceAll(",", "") : text;
    return cell;
  }

  async function readChart(one, packed) {
    const steps = new Uint16Array((await drawing.unpack(packed.steps)).buffer);
    const known = panel.rowOf(one), columns = [...known.keys()].filter((d) => known[d] !== NO_BAR);
    let code = 0;
    const closes = Array.from(steps, (step) => {
      code = (code + step) & MISSING;
      const value = packed.low + code / (MISSING - 1) * (packed.high - packed.low);
      return code === MISSING ? NaN : packed.log ? Math.exp(value) : value;
    });
    const regimes = columns.map((d) => known[d]), days = columns.map((d) => data.days[d]);
    chart = { one, columns, closes, days, regimes, log: packed.log, left: 0 };
    draw();
  }

  function priceTicks(low, high, log) {
    const digits = high > 50 * low ? [1] : [1, 2, 5], found = [];
    if (log) {
      for (let ten = 10 ** Math.floor(Math.log10(low)); ten <= high; ten *= 10) found.push(...digits.map((n) => n * ten));
      const seen = found.filter((value) => value >= low && value <= high);
      if (seen.length > 1) return seen;
    }
    const rough = (high - low) / 4 || 1, ten = 10 ** Math.floor(Math.log10(rough));
    const step = ten * [1, 2, 5, 10].find((n) => n * ten >= rough), first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, k) => (first + k) * step);
  }
  const short = (value) => value.toLocaleString("en", { maximumSignificantDigits: 5 }).replace("-", "−");

  const HIGH = 280, STRIP = 14; // pixels of the prices, and of the regimes below them
  function draw() {
    const place = $("#close");
    if (!chart || !place.clientWidth) return;
    const { one, closes, days, columns } = chart, known = closes.filter(Number.isFinite);
    const low = Math.min(...known), high = Math.max(...known), log = chart.log && high > 3 * low;
    const scale = log ? Math.log : (value) => value;
    const y = (value) => 8 + (scale(high) - scale(value)) / (scale(high) - scale(low) || 1) * (HIGH - 20);
    const ticks = known.length ? priceTicks(low, high, log) : [];
    const paper = pen(place, HIGH + STRIP + 34), pencil = paper.draw;
    const left = Math.max(44, ...ticks.map((value) => 8 + pencil.measureText(short(value)).width));
    const room = paper.width - left - RIGHT, edge = (i) => left + i / days.length * room;
    pencil.textAlign = "right";
    for (const value of ticks) {
      pencil.fillStyle = css("hair");
      pencil.fillRect(left, y(value), room, 1);
      pencil.fillStyle = css("grey");
      pencil.fillText(short(value), left - 6, y(value));
    }
    drawRegimes(pencil, edge, y);
    pencil.textAlign = "left";
    pencil.fillStyle = css("grey");
    one.parts.forEach((at, k) => {
      const i = columns.indexOf(at);
      if (i > 0) dashes(pencil, edge(i), 4, HIGH);
      if (i >= 0) pencil.fillText(drawing.SHORT[k], edge(i) + 4, 8);
    });
    timeAxis(pencil, days, left, HIGH + STRIP + 4, room);
    chart.left = left;
    const span = `${date(days[0])} to ${date(days.at(-1))}`;
    place.ariaLabel = `Close of ${one.name} from ${span}, coloured by regime`;
  }
  function drawRegimes(pencil, edge, y) { // one line and one block a visit
    const { one, closes, days, regimes } = chart, n = days.length, middle = (i) => edge(i + 0.5);
    const colours = one.labels.map((_, k) => colourOf(one, k)), unknown = css("faint");
    pencil.lineWidth = 1.6;
    pencil.lineJoin = pencil.lineCap = "round";
    for (let i = 0, end; i < n; i = end) {
      for (end = i + 1; end < n && regimes[end] === regimes[i];) end++;
      pencil.strokeStyle = pencil.fillStyle = regimes[i] === UNKNOWN ? unknown : colours[regimes[i]];
      pencil.fillRect(edge(i), HIGH, Math.max(edge(end) - edge(i), 0.5), STRIP);
      pencil.beginPath();
      for (let j = Math.max(i - 1, 0), joined = false; j < end; j++) {
        if (j && days[j] - days[j - 1] > WIDE) joined = false;
        if (joined && Number.isFinite(closes[j])) pencil.lineTo(middle(j), y(closes[j]));
        else pencil.moveTo(middle(j), y(closes[j]));
        joined = Number.isFinite(closes[j]);
      }
      pencil.stroke();
      if (n === 1) pencil.fillRect(middle(0) - 2, y(closes[0]) - 2, 4, 4);
    }
  }
  $("#close").addEventListener("pointermove", (event) => {
    if (!chart) return;
    const { one, closes, columns, regimes, left } = chart, box = $("#close").getBoundingClientRect();
    const share = (event.clientX - box.left - left) / (box.width - left - RIGHT);
    const i = clamp(Math.floor(share * columns.length), columns.length - 1);
    const price = Number.isFinite(closes[i]) ? short(closes[i]) : "no close";
    $("#close-readout").textContent = `${inWords(one, regimes[i], columns[i])}  ·  ${price}`;
  });
  $("#close").addEventListener("pointerleave", () => { $("#close-readout").textContent = "\u00a0"; });

  // The address names the symbol, so that the back button works. A sandboxed frame follows no link.
  const numbers = new Map(data.symbols.map((one, i) => [one.name, i])), title = document.title;
  let shown = null, above = 0; // number of the symbol; scroll of the panel
  function go(hash) {
    try { history.pushState(null, "", hash); } catch { /* the address stays */ }
    route(hash);
  }
  function route(hash) {
    let name = "";
    try { name = decodeURIComponent(hash.slice(1)); } catch { /* not one of ours */ }
    const before = shown, i = numbers.get(name) ?? null;
    shown = i;
    if (i !== null) fill(i);
    $("#panel").hidden = $("#kicker").hidden = i !== null;
    article.hidden = $("#back").hidden = i === null;
    document.title = i === null ? title : `${name} – ${title}`;
    window.scrollTo({ top: i === null ? above : 0, behavior: "instant" });
    panel.draw();
    draw();
    const focus = i === null ? $(`#symbols a[data-symbol="${before}"]`) : inside("h1");
    focus?.focus({ preventScroll: true });
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(link.getAttribute("href"));
  });
  window.addEventListener("popstate", () => route(location.hash));
  window.addEventListener("scroll", () => { if (shown === null) above = window.scrollY; }, { passive: true });
  history.scrollRestoration = "manual";

  async function start() {
    await panel.start(go);
    route(location.hash);
    const redraw = () => { panel.draw(); draw(); };
    let width = root.clientWidth;
    new ResizeObserver(() => {
      if (root.clientWidth === width) return;
      width = root.clientWidth;
      redraw();
    }).observe(root);
    onTheme(redraw);
    window.panel = { ...panel, data, chart: () => chart }; // for tests
    root.dataset.ready = "true";
  }
  document.addEventListener("DOMContentLoaded", start);
})();
