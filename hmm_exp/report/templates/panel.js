"use strict";
// The map of regimes, the share below it, the table's filter, and the page of a symbol.
(() => {
  const { root, $, $$, sortable, filterable, onTheme } = page;
  const data = JSON.parse($("#panel-data").textContent);
  const symbols = data.symbols, days = data.days, nDays = days.length;
  const UNKNOWN = 255, NO_BAR = 254, MISSING = 65535, RIGHT = 8, NAMED = 11;
  const WORDS = ["train", "validation", "test"], SHORT = ["train", "val", "test"];
  const mapped = symbols.filter((one) => one.row >= 0).sort((a, b) => a.row - b.row);
  let regimes = new Uint8Array(0); // of all symbols of the map, day by day

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // Colours: of the scale from calm (0) to turbulent (1), and of the theme.
  const ramp = data.ramp.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const shades = Array.from({ length: 256 }, (_, i) => {
    const place = (i / 255) * (ramp.length - 1), k = Math.min(Math.floor(place), ramp.length - 2);
    return ramp[k].map((c, j) => Math.round(c + (place - k) * (ramp[k + 1][j] - c)));
  });
  const shade = (place) => shades[Math.round(255 * place)];
  const css = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const rgb = (hex) => {
    const wide = hex.length === 4 ? hex.replace(/[^#]/g, "$&$&") : hex;
    return [1, 3, 5].map((at) => parseInt(wide.slice(at, at + 2), 16));
  };
  const placeOf = (one, regime) => (one.labels.length > 1 ? regime / (one.labels.length - 1) : 0.5);
  const colourOf = (one, regime) => `rgb(${shade(placeOf(one, regime)).join(",")})`;

  // Days and the ticks of a time axis.
  const date = (day) => new Date(86400e3 * day).toISOString().slice(0, 10);
  const columnOf = (day, list = days) => { // first of the rising days that is not before
    let low = 0, high = list.length;
    while (low < high) { const middle = (low + high) >> 1; if (list[middle] < day) low = middle + 1; else high = middle; }
    return low;
  };
  const STEPS = [[1, 10], [7, 10], [30, 7], [91, 7], [182, 7], [365, 4], [730, 4], [1826, 4], [3652, 4], [7305, 4]];
  function ticks(list, room) { // columns and texts, at least 56 pixels apart
    const span = list.at(-1) - list[0] + 1;
    const [step, letters] = STEPS.find(([step, letters]) => span / step * (letters > 4 ? 72 : 48) < room) ?? STEPS.at(-1);
    const found = [];
    const add = (day) => {
      const at = columnOf(day, list), x = at / list.length * room;
      if (day >= list[0] && at < list.length && x >= (found.at(-1)?.x ?? -99) + 44 && x < room - 16) found.push({ x, text: date(day).slice(0, letters) });
    };
    if (step < 30) for (let day = list[0]; day <= list.at(-1); day += step) add(day);
    else {
      const months = Math.max(1, Math.round(step / 30.44)), first = new Date(86400e3 * list[0]);
      const start = first.getUTCFullYear() * 12 + first.getUTCMonth();
      for (let m = Math.ceil(start / months) * months; m <= start + span / 28; m += months) add(Date.UTC(Math.floor(m / 12), m % 12, 1) / 86400e3);
    }
    return found;
  }

  // A canvas in CSS pixels, as sharp as the screen.
  function pen(place, height) {
    const canvas = place.querySelector("canvas"), width = place.clientWidth, ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
    const draw = canvas.getContext("2d");
    draw.scale(ratio, ratio);
    draw.font = '11px system-ui, "DejaVu Sans", Arial, sans-serif';
    draw.textBaseline = "middle";
    return { draw, width, ratio };
  }
  function timeAxis(draw, list, left, top, room) {
    draw.fillStyle = css("grey"); draw.textAlign = "left";
    for (const { x, text } of ticks(list, room)) {
      draw.fillRect(left + x, top, 1, 4);
      draw.fillText(text, Math.min(left + x + 3, left + room - draw.measureText(text).width), top + 11);
    }
  }

  // The map: one row of pixels a symbol, then stretched to the height of a row.
  const rowHeight = Math.max(1, Math.min(20, Math.floor(600 / Math.max(mapped.length, 1))));
  const orders = {
    similar: () => data.similar,
    name: () => mapped.map((one) => one.row).sort((a, b) => mapped[a].name.localeCompare(mapped[b].name, "en", { numeric: true })),
    gain: () => by((one) => one.gain),
    now: () => by((one) => one.place),
  };
  const by = (key) => data.similar.map((row) => [key(mapped[row]) ?? -Infinity, row])
    .sort(([a], [b]) => b - a || 0).map(([, row]) => row);
  let order = data.similar, gutter = 44, cursor = null;

  function drawMap() {
    const place = $("#map");
    if (!place || !place.clientWidth) return;
    const height = Math.max(rowHeight * order.length, 1);
    const { draw, width, ratio } = pen(place, height);
    const named = rowHeight >= NAMED;
    gutter = named ? Math.min(Math.max(44, 8 + Math.max(...mapped.map((one) => draw.measureText(one.name).width))), width / 4) : 44;
    const room = width - gutter - RIGHT, columns = Math.round(room * ratio);
    const small = document.createElement("canvas");
    small.width = columns; small.height = order.length;
    const image = small.getContext("2d").createImageData(columns, order.length), faint = rgb(css("faint"));
    order.forEach((row, i) => {
      const scale = mapped[row].labels.length - 1;
      for (let x = 0; x < columns; x++) {
        const from = Math.floor(x * nDays / columns), to = Math.max(from + 1, Math.floor((x + 1) * nDays / columns));
        let sum = 0, known = 0, unknown = 0;
        for (let d = from; d < to; d++) {
          const regime = regimes[row * nDays + d];
          if (regime === UNKNOWN) unknown++;
          else if (regime !== NO_BAR) { known++; sum += scale > 0 ? regime / scale : 0.5; }
        }
        if (known + unknown === 0) continue;
        image.data.set([...(known ? shade(sum / known) : faint), 255], 4 * (i * columns + x));
      }
    });
    small.getContext("2d").putImageData(image, 0, 0);
    draw.imageSmoothingEnabled = false;
    draw.drawImage(small, gutter, 0, room, height);
    draw.fillStyle = css("paper");
    if (rowHeight > 5) for (let i = 1; i < order.length; i++) draw.fillRect(gutter, i * rowHeight - 0.5, room, 1);
    order.forEach((row, i) => {
      draw.fillStyle = css("ink");
      for (const at of mapped[row].parts.slice(1)) {
        if (at > 0) draw.fillRect(gutter + at / nDays * room - 0.5, i * rowHeight, 1, rowHeight);
      }
      if (named) label(draw, mapped[row].name, i);
    });
    nameParts(room);
  }
  function label(draw, name, i) {
    let text = name;
    while (text.length > 1 && draw.measureText(text).width > gutter - 6) text = `${text.slice(0, -2)}…`;
    draw.fillStyle = css("grey"); draw.textAlign = "right";
    draw.fillText(text, gutter - 5, (i + 0.5) * rowHeight);
  }

  // Columns where most symbols begin a part.
  const shared = [0, 1, 2].map((k) => {
    const counts = new Map();
    for (const one of mapped) counts.set(one.parts[k], (counts.get(one.parts[k]) ?? 0) + 1);
    const [at, count] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? [-1, 0];
    return at >= 0 && 2 * count > mapped.length ? at : -1;
  });
  function nameParts(room) {
    const strip = $("#parts"), ends = [...shared.slice(1), nDays];
    strip.replaceChildren();
    const draw = $("#map canvas").getContext("2d");
    shared.forEach((at, k) => {
      const left = gutter + at / nDays * room, free = (ends[k] - at) / nDays * room;
      const text = [WORDS[k], SHORT[k]].find((word) => draw.measureText(word).width + 8 < free);
      if (at < 0 || ends[k] < 0 || !text) return;
      const span = document.createElement("span");
      span.textContent = text; span.style.left = `${left + 2}px`;
      strip.append(span);
    });
  }

  const shares = data.scaled.map((n, d) => (n ? data.turbulent[d] / n : null));
  function drawShare() {
    const place = $("#share");
    if (!place || !place.clientWidth) return;
    const high = 96, { draw, width } = pen(place, high + 28), room = width - gutter - RIGHT;
    const top = Math.max(...shares, 0) > 0.5 ? 1 : 0.5, y = (share) => 6 + (1 - share / top) * (high - 6);
    draw.textAlign = "right";
    for (const share of [0, top / 2, top]) {
      draw.fillStyle = css(share ? "hair" : "faint"); draw.fillRect(gutter, y(share), room, 1);
      draw.fillStyle = css("grey"); draw.fillText(`${100 * share} %`, gutter - 5, y(share));
    }
    draw.fillStyle = `rgb(${shade(1).join(",")})`;
    const columns = Math.round(room);
    draw.beginPath(); draw.moveTo(gutter, high);
    for (let x = 0; x < columns; x++) {
      const from = Math.floor(x * nDays / columns), to = Math.max(from + 1, Math.floor((x + 1) * nDays / columns));
      const known = shares.slice(from, to).filter((share) => share !== null);
      const mean = known.length ? known.reduce((a, b) => a + b, 0) / known.length : 0;
      for (const edge of [x, x + 1]) draw.lineTo(gutter + edge * room / columns, y(mean));
    }
    draw.lineTo(gutter + room, high); draw.fill();
    draw.fillStyle = css("ink");
    for (const at of shared.slice(1)) if (at > 0) for (let at_y = 6; at_y < high; at_y += 7) draw.fillRect(gutter + at / nDays * room - 0.5, at_y, 1, 4);
    timeAxis(draw, days, gutter, high, room);
  }

  // The day and symbol under the pointer or the keys, in words.
  const rank = (one, regime) => {
    const n = one.labels.length;
    return n < 2 ? "single regime" : regime === n - 1 ? `most turbulent of ${n}` : regime === 0 ? `calmest of ${n}` : `${regime + 1} of ${n}`;
  };
  const part = (one, d) => WORDS.filter((_, k) => one.parts[k] >= 0 && d >= one.parts[k]).at(-1) ?? "before train";
  function inWords(row, d) {
    const one = mapped[row], regime = regimes[row * nDays + d];
    const words = regime === NO_BAR ? ["no bar"] : regime === UNKNOWN ? ["regime unknown"] : [one.labels[regime], rank(one, regime)];
    if (regime !== NO_BAR) words.push(part(one, d));
    return [one.name, date(days[d]), ...words].join("  ·  ");
  }
  const weather = (d) => (shares[d] === null ? "" : `${Math.round(100 * shares[d])} % of ${data.scaled[d]} symbols in their most turbulent regime`);
  const lines = ["#map", "#map", "#share"].map((place) => {
    const line = document.createElement("div");
    line.className = "cross"; line.hidden = true;
    $(place)?.append(line);
    return line;
  });
  function show(at) {
    cursor = at;
    if (!$("#map")) return;
    for (const line of lines) line.hidden = !at;
    if (!at) { $("#readout").textContent = "\u00a0"; return; }
    const room = $("#map").clientWidth - gutter - RIGHT, x = gutter + (at.d + 0.5) / nDays * room;
    Object.assign(lines[0].style, { left: `${x}px`, top: 0, width: "1px", height: "100%" });
    Object.assign(lines[2].style, { left: `${x}px`, top: "6px", width: "1px", height: "90px" });
    Object.assign(lines[1].style, { left: `${gutter}px`, top: `${at.i * rowHeight + (rowHeight >> 1)}px`, width: `${room}px`, height: "1px" });
    lines[1].hidden = at.i === undefined;
    const words = [at.i === undefined ? date(days[at.d]) : inWords(order[at.i], at.d), weather(at.d)];
    $("#readout").textContent = words.filter(Boolean).join("  ·  ");
  }
  const clamp = (value, most) => Math.max(0, Math.min(value, most));
  function under(event) {
    const box = $("#map").getBoundingClientRect();
    const d = clamp(Math.floor((event.clientX - box.left - gutter) / (box.width - gutter - RIGHT) * nDays), nDays - 1);
    return { d, i: clamp(Math.floor((event.clientY - box.top) / rowHeight), order.length - 1) };
  }
  const address = (name) => `#${encodeURIComponent(name)}`;
  if ($("#map")) {
    const map = $("#map"), share = $("#share");
    map.addEventListener("pointermove", (event) => show(under(event)));
    map.addEventListener("pointerdown", (event) => show(under(event)));
    map.addEventListener("click", (event) => {
      if (event.pointerType !== "touch") go(address(mapped[order[under(event).i]].name));
    });
    share.addEventListener("pointermove", (event) => show({ d: under(event).d }));
    for (const place of [map, share]) place.addEventListener("pointerleave", () => show(null));
    map.addEventListener("blur", () => show(null));
    map.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 30 : 1, { d = nDays - 1, i = 0 } = cursor ?? {};
      const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (move) show({ d: clamp(d + (cursor ? move[0] : 0), nDays - 1), i: clamp(i + (cursor ? move[1] : 0), order.length - 1) });
      else if (event.key === "Enter" && cursor) go(address(mapped[order[i]].name));
      else return;
      event.preventDefault();
    });
    for (const button of $$("#order button")) button.addEventListener("click", () => {
      for (const other of $$("#order button")) other.setAttribute("aria-pressed", String(other === button));
      order = orders[button.dataset.order]();
      drawMap();
    });
  }

  sortable($("#symbols"));
  const now = $("#now"), promoted = $("#promoted");
  const chosen = (row) => (!now.value || row.dataset.now === now.value) && (!promoted.checked || row.matches(".in"));
  filterable($("#symbols"), "symbols", chosen, now, promoted);

  // The page of a symbol.
  const article = $("#symbol"), inside = (selector) => article.querySelector(selector);
  const named = new Map(symbols.map((one, i) => [one.name, i]));
  const title = document.title;
  let details = null, open = null, above = 0, chart = null;
  const element = (tag, text, attributes = {}) => Object.assign(document.createElement(tag), { textContent: text ?? "" }, attributes);

  function fill(i) {
    details ??= JSON.parse($("#symbol-data").textContent);
    const one = symbols[i], about = details[i];
    inside("h1").textContent = one.name;
    inside(".verdict").replaceChildren(...about.verdict.map((line, k) => element("p", line, { className: ["answer", ""][k] ?? "lead" })));
    inside(".facts").replaceChildren(...about.facts.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
    inside("#through-time").hidden = !about.chart;
    inside(".key").replaceChildren(...one.labels.map((text, k) => {
      const key = element("span", text), swatch = element("i", "", { className: "swatch" });
      swatch.style.background = colourOf(one, k);
      key.prepend(swatch);
      return key;
    }));
    fillCells(about);
    inside("#load").hidden = !about.load;
    inside("#load pre").textContent = about.load;
    chart = null;
    if (about.chart) readChart(one, about.chart);
  }

  function fillCells({ heads, cells, winner }) {
    inside("#cells").hidden = !cells.length;
    const head = element("tr");
    head.append(...heads.map((name) => {
      const cell = element("th", "", { scope: "col", ariaSort: "none" });
      if (["K", "BIC", "seconds"].includes(name)) cell.dataset.first = "lowest";
      cell.append(element("button", name, { type: "button" }));
      return cell;
    }));
    const rows = cells.map((texts) => {
      const row = element("tr", "", { className: texts[0] === winner ? "winner" : "" });
      row.append(...texts.map((text, k) => {
        const long = heads[k] === "eligible" || heads[k] === "run";
        const cell = element(k ? "td" : "th", heads[k] === "run" ? text.slice(0, 8) : text, { title: long ? text : "" });
        if (long) cell.className = heads[k] === "run" ? "id" : "why";
        cell.dataset.sort = /^[−+]?[\d.,]+$/.test(text) ? text.replace("−", "-").replaceAll(",", "") : text;
        return cell;
      }));
      return row;
    });
    inside("#cells thead").replaceChildren(head);
    inside("#cells tbody").replaceChildren(...rows);
    sortable(inside("#cells table"));
  }

  async function readChart(one, packed) {
    const bytes = await unpack(packed.steps), steps = new Uint16Array(bytes.buffer);
    const known = regimes.subarray(one.row * nDays, (one.row + 1) * nDays);
    const columns = [];
    known.forEach((regime, d) => { if (regime !== NO_BAR) columns.push(d); });
    let code = 0;
    const closes = Array.from(steps, (step) => {
      code = (code + step) & 0xffff;
      const value = packed.low + code / (MISSING - 1) * (packed.high - packed.low);
      return code === MISSING ? NaN : packed.log ? Math.exp(value) : value;
    });
    chart = { one, columns, closes, days: columns.map((d) => days[d]), regimes: columns.map((d) => known[d]), log: packed.log };
    drawChart();
  }

  function priceTicks(low, high, log) {
    if (log && high > 3 * low) {
      const found = [];
      for (let ten = 10 ** Math.floor(Math.log10(low)); ten <= high; ten *= 10) {
        for (const digit of high > 50 * low ? [1] : [1, 2, 5]) if (ten * digit >= low && ten * digit <= high) found.push(ten * digit);
      }
      if (found.length > 1) return found;
    }
    const rough = (high - low) / 4 || 1, ten = 10 ** Math.floor(Math.log10(rough));
    const step = ten * [1, 2, 5, 10].find((digit) => digit * ten >= rough), found = [];
    for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(k * step);
    return found;
  }
  const short = (value) => value.toLocaleString("en", { maximumSignificantDigits: 5 }).replace("-", "−");

  function drawChart() {
    const place = $("#close");
    if (!chart || !place.clientWidth) return;
    const { one, closes, days: list, log } = chart, high = 280;
    const { draw, width } = pen(place, high + 48);
    const finite = closes.filter(Number.isFinite), low = Math.min(...finite), top = Math.max(...finite);
    const scale = log && top > 3 * low ? Math.log : (value) => value;
    const y = (value) => 8 + (scale(top) - scale(value)) / (scale(top) - scale(low) || 1) * (high - 20);
    const marks = finite.length ? priceTicks(low, top, log) : [];
    const left = Math.max(44, 8 + Math.max(0, ...marks.map((value) => draw.measureText(short(value)).width)));
    const room = width - left - RIGHT, x = (i) => left + (i + 0.5) / list.length * room;
    draw.textAlign = "right";
    for (const value of marks) {
      draw.fillStyle = css("hair"); draw.fillRect(left, y(value), room, 1);
      draw.fillStyle = css("grey"); draw.fillText(short(value), left - 6, y(value));
    }
    const faint = css("faint"), colours = one.labels.map((_, k) => colourOf(one, k));
    draw.lineWidth = 1.6; draw.lineJoin = draw.lineCap = "round";
    for (let i = 0; i < list.length;) {
      let end = i + 1;
      while (end < list.length && chart.regimes[end] === chart.regimes[i]) end++;
      draw.strokeStyle = draw.fillStyle = chart.regimes[i] === UNKNOWN ? faint : colours[chart.regimes[i]];
      draw.fillRect(left + i / list.length * room, high, Math.max((end - i) / list.length * room, 0.5), 14);
      draw.beginPath();
      for (let j = Math.max(i - 1, 0), drawn = false; j < end; j++) {
        if (!Number.isFinite(closes[j]) || (j && list[j] - list[j - 1] > 7)) drawn = false;
        if (Number.isFinite(closes[j])) { drawn ? draw.lineTo(x(j), y(closes[j])) : draw.moveTo(x(j), y(closes[j])); drawn = true; }
      }
      draw.stroke();
      if (list.length === 1 && finite.length) draw.fillRect(x(0) - 2, y(closes[0]) - 2, 4, 4);
      i = end;
    }
    draw.textAlign = "left";
    one.parts.forEach((at, k) => {
      const i = chart.columns.indexOf(at);
      if (i < 0) return;
      draw.fillStyle = css("grey");
      if (i > 0) for (let from = 4; from < high; from += 7) draw.fillRect(left + i / list.length * room, from, 1, 4);
      draw.fillText(SHORT[k], left + i / list.length * room + 4, 8);
    });
    timeAxis(draw, list, left, high + 18, room);
    chart.left = left;
    place.ariaLabel = `Close of ${one.name} from ${date(list[0])} to ${date(list.at(-1))}, coloured by regime`;
  }
  $("#close").addEventListener("pointermove", (event) => {
    if (!chart) return;
    const box = $("#close").getBoundingClientRect(), { one, closes, days: list } = chart;
    const i = clamp(Math.floor((event.clientX - box.left - chart.left) / (box.width - chart.left - RIGHT) * list.length), list.length - 1);
    const price = Number.isFinite(closes[i]) ? short(closes[i]) : "no close";
    $("#close-readout").textContent = [inWords(one.row, chart.columns[i]), price].join("  ·  ");
  });
  $("#close").addEventListener("pointerleave", () => { $("#close-readout").textContent = "\u00a0"; });

  // The address names the symbol, so that the back button works. A sandboxed frame follows no link.
  history.scrollRestoration = "manual";
  window.addEventListener("scroll", () => { if (open === null) above = window.scrollY; }, { passive: true });
  function go(hash) {
    try { history.pushState(null, "", hash); } catch { /* the address stays */ }
    route(hash);
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(link.getAttribute("href"));
  });
  function route(hash) {
    let name = "";
    try { name = decodeURIComponent(hash.slice(1)); } catch { /* not one of ours */ }
    const i = named.get(name) ?? null, before = open;
    open = i;
    if (i !== null) fill(i);
    $("#panel").hidden = i !== null;
    $("#kicker").hidden = i !== null;
    $("#back").hidden = article.hidden = i === null;
    document.title = i === null ? title : `${name} – ${title}`;
    window.scrollTo({ top: i === null ? above : 0, behavior: "instant" });
    if (i !== null) { inside("h1").focus({ preventScroll: true }); drawChart(); }
    else if (before !== null) {
      drawAll();
      document.querySelector(`#symbols a[data-symbol="${before}"]`)?.focus({ preventScroll: true });
    }
  }
  window.addEventListener("popstate", () => route(location.hash));

  function drawAll() { drawMap(); drawShare(); drawChart(); show(null); }
  onTheme(drawAll);
  async function start() {
    regimes = await unpack(data.regimes);
    route(location.hash);
    drawAll();
    let width = root.clientWidth;
    new ResizeObserver(() => { if (root.clientWidth !== width) { width = root.clientWidth; drawAll(); } }).observe(root);
    window.panel = { data, mapped, order: () => order, chart: () => chart, rowHeight, gutter: () => gutter }; // for tests
    root.dataset.ready = "true";
  }
  document.addEventListener("DOMContentLoaded", start);
})();
