"use strict";
// The map of regimes, the share below it, and the table of symbols.
const panel = (() => {
  const { $, $$, sortable, filterable } = page;
  const { data, shade, css, pen, dashes, date, timeAxis, inWords, clamp, UNKNOWN, NO_BAR, RIGHT } = drawing;
  const NAMED = 11, MONTH = 30; // pixels of a row that has room for a name; days of a large step
  const { symbols, days } = data, nDays = days.length;
  const mapped = symbols.filter((one) => one.row >= 0).sort((a, b) => a.row - b.row);
  const map = $("#map"), share = $("#share"), readout = $("#readout");
  const address = (name) => `#${encodeURIComponent(name)}`;
  let regimes = new Uint8Array(0); // of all symbols of the map, day by day
  let open = () => {}; // opens the page of a symbol, by its address

  // The order of the rows.
  const by = (key) => data.similar
    .map((row) => [key(mapped[row]) ?? -Infinity, row])
    .sort(([a], [b]) => b - a || 0)
    .map(([, row]) => row);
  const compared = (a, b) => mapped[a].name.localeCompare(mapped[b].name, "en", { numeric: true });
  const orders = {
    similar: () => data.similar,
    name: () => mapped.map((one) => one.row).sort(compared),
    gain: () => by((one) => one.gain),
    now: () => by((one) => one.place),
  };
  let order = data.similar;

  // The map: one row of pixels a symbol, then stretched to the height of a row.
  const rowHeight = clamp(Math.floor(600 / Math.max(mapped.length, 1)), 20) || 1;
  let gutter = 44; // pixels left of the map
  function drawMap() {
    const height = rowHeight * order.length, { draw, width, ratio } = pen(map, height);
    const longest = Math.max(...mapped.map((one) => draw.measureText(one.name).width));
    gutter = rowHeight < NAMED ? 44 : Math.min(Math.max(44, 8 + longest), width / 4);
    const room = width - gutter - RIGHT;
    draw.imageSmoothingEnabled = false;
    draw.drawImage(pixels(Math.round(room * ratio)), gutter, 0, room, height);
    draw.fillStyle = css("paper");
    if (rowHeight > 5) order.forEach((_, i) => i && draw.fillRect(gutter, i * rowHeight - 0.5, room, 1));
    order.forEach((row, i) => {
      draw.fillStyle = css("ink");
      for (const at of mapped[row].parts.slice(1)) {
        if (at > 0) draw.fillRect(gutter + at / nDays * room - 0.5, i * rowHeight, 1, rowHeight);
      }
      if (rowHeight >= NAMED) label(draw, mapped[row].name, i);
    });
    nameParts(draw, room);
  }
  function pixels(columns) { // a column has the mean place of its days
    const canvas = document.createElement("canvas");
    canvas.width = columns;
    canvas.height = order.length;
    const draw = canvas.getContext("2d"), image = draw.createImageData(columns, order.length);
    const grey = css("faint").match(/\w\w/g).map((digits) => parseInt(digits, 16));
    order.forEach((row, i) => {
      const scale = mapped[row].labels.length - 1;
      for (let x = 0; x < columns; x++) {
        const [from, to] = daysOf(x, columns);
        let sum = 0, known = 0, unknown = 0;
        for (let d = from; d < to; d++) {
          const regime = regimes[row * nDays + d];
          if (regime === UNKNOWN) unknown++;
          else if (regime !== NO_BAR) { known++; sum += scale > 0 ? regime / scale : 0.5; }
        }
        if (known + unknown === 0) continue;
        image.data.set([...(known ? shade(sum / known) : grey), 255], 4 * (i * columns + x));
      }
    });
    draw.putImageData(image, 0, 0);
    return canvas;
  }
  function daysOf(x, columns) {
    const from = Math.floor(x * nDays / columns);
    return [from, Math.max(from + 1, Math.floor((x + 1) * nDays / columns))];
  }
  function label(draw, name, i) {
    let text = name;
    while (text.length > 1 && draw.measureText(text).width > gutter - 6) text = `${text.slice(0, -2)}…`;
    draw.fillStyle = css("grey");
    draw.textAlign = "right";
    draw.fillText(text, gutter - 5, (i + 0.5) * rowHeight);
  }

  // Columns where most symbols begin a part; -1 if there is none.
  const shared = [0, 1, 2].map((k) => {
    const counts = new Map();
    for (const one of mapped) counts.set(one.parts[k], (counts.get(one.parts[k]) ?? 0) + 1);
    const [at, count] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? [-1, 0];
    return 2 * count > mapped.length ? at : -1;
  });
  function nameParts(draw, room) {
    const ends = [...shared.slice(1), nDays];
    $("#parts").replaceChildren(...shared.flatMap((at, k) => {
      const free = (ends[k] - at) / nDays * room;
      const text = [drawing.WORDS[k], drawing.SHORT[k]].find((word) => draw.measureText(word).width + 8 < free);
      if (at < 0 || !text) return [];
      const span = document.createElement("span");
      span.textContent = text;
      span.style.left = `${gutter + at / nDays * room + 2}px`;
      return [span];
    }));
  }

  const shares = data.scaled.map((n, d) => (n ? data.turbulent[d] / n : null));
  function drawShare() {
    const high = 96, { draw, width } = pen(share, high + 28), room = width - gutter - RIGHT;
    const top = Math.max(...shares, 0) > 0.5 ? 1 : 0.5, y = (value) => 6 + (1 - value / top) * (high - 6);
    draw.textAlign = "right";
    for (const value of [0, top / 2, top]) {
      draw.fillStyle = css(value ? "hair" : "faint");
      draw.fillRect(gutter, y(value), room, 1);
      draw.fillStyle = css("grey");
      draw.fillText(`${100 * value} %`, gutter - 5, y(value));
    }
    const columns = Math.round(room);
    draw.fillStyle = `rgb(${shade(1).join(",")})`;
    draw.beginPath();
    draw.moveTo(gutter, high);
    for (let x = 0; x < columns; x++) {
      const known = shares.slice(...daysOf(x, columns)).filter((value) => value !== null);
      const mean = known.length ? known.reduce((a, b) => a + b, 0) / known.length : 0;
      for (const edge of [x, x + 1]) draw.lineTo(gutter + edge * room / columns, y(mean));
    }
    draw.lineTo(gutter + room, high);
    draw.fill();
    draw.fillStyle = css("ink");
    for (const at of shared.slice(1)) if (at > 0) dashes(draw, gutter + at / nDays * room, 6, high);
    timeAxis(draw, days, gutter, high, room);
  }

  // The day and symbol under the pointer or the keys, in words.
  let cursor = null;
  const cross = [map, map, share].map((place) => {
    const line = document.createElement("div");
    line.className = "cross";
    line.hidden = true;
    place?.append(line);
    return line;
  });
  function show(at) {
    cursor = at;
    cross.forEach((line, k) => { line.hidden = !at || (k === 1 && at.i === undefined); });
    readout.replaceChildren("\u00a0");
    if (!at) return;
    const room = map.clientWidth - gutter - RIGHT, x = `${gutter + (at.d + 0.5) / nDays * room}px`;
    const y = `${at.i * rowHeight + (rowHeight >> 1)}px`;
    Object.assign(cross[0].style, { left: x, top: 0, width: "1px", height: "100%" });
    Object.assign(cross[1].style, { left: `${gutter}px`, top: y, width: `${room}px`, height: "1px" });
    Object.assign(cross[2].style, { left: x, top: "6px", width: "1px", height: "90px" });
    const percent = Math.round(100 * shares[at.d]), n = data.scaled[at.d];
    const weather = n ? `  ·  ${percent} % of ${n} symbols in their most turbulent regime` : "";
    if (at.i === undefined) { readout.replaceChildren(date(days[at.d]), weather); return; }
    const one = mapped[order[at.i]], link = document.createElement("a");
    link.textContent = one.name;
    link.href = address(one.name);
    readout.replaceChildren(link, `  ·  ${inWords(one, regimes[one.row * nDays + at.d], at.d)}${weather}`);
  }
  function under(event) {
    const box = map.getBoundingClientRect(), room = box.width - gutter - RIGHT;
    const d = clamp(Math.floor((event.clientX - box.left - gutter) / room * nDays), nDays - 1);
    return { d, i: clamp(Math.floor((event.clientY - box.top) / rowHeight), order.length - 1) };
  }
  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  function press(event) {
    const [along, down] = MOVES[event.key] ?? [];
    if (along !== undefined) {
      const { d, i } = cursor ?? { d: nDays - 1, i: 0 }, step = cursor ? 1 : 0;
      const wide = step * (event.shiftKey ? MONTH : 1);
      show({ d: clamp(d + wide * along, nDays - 1), i: clamp((i ?? 0) + step * down, order.length - 1) });
    } else if (event.key === "Enter" && cursor) open(address(mapped[order[cursor.i]].name));
    else return;
    event.preventDefault();
  }
  if (map) {
    for (const event of ["pointermove", "pointerdown"]) {
      map.addEventListener(event, (at) => show(under(at)));
      share.addEventListener(event, (at) => show({ d: under(at).d }));
    }
    for (const place of [map, share]) { // what a finger shows stays, with its link
      place.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") show(null); });
    }
    map.addEventListener("click", (event) => {
      if (event.pointerType !== "touch") open(address(mapped[order[under(event).i]].name));
    });
    map.addEventListener("keydown", press);
    for (const button of $$("#order button")) button.addEventListener("click", () => {
      for (const other of $$("#order button")) other.setAttribute("aria-pressed", String(other === button));
      order = orders[button.dataset.order]();
      drawMap();
    });
  }

  const now = $("#now"), promoted = $("#promoted");
  const chosen = (row) =>
    (!now.value || row.dataset.now === now.value) && (!promoted.checked || row.matches(".in"));
  sortable($("#symbols"));
  filterable($("#symbols"), "symbols", chosen, now, promoted);

  function draw() { // nothing while the panel is hidden
    if (!map?.clientWidth) return;
    drawMap();
    drawShare();
    show(null);
  }
  async function start(opens) {
    open = opens;
    regimes = await drawing.unpack(data.regimes);
  }
  const rowOf = (one) => regimes.subarray(one.row * nDays, (one.row + 1) * nDays);
  return { draw, start, rowOf, mapped, rowHeight, order: () => order, gutter: () => gutter };
})();
