"use strict";
// What the map and the page of a symbol share: data, colours, time axis, canvas and words.
const drawing = (() => {
  const { root, $ } = page;
  const data = JSON.parse($("#panel-data").textContent);
  const UNKNOWN = 255, NO_BAR = 254, RIGHT = 8; // codes of a regime; pixels right of an axis
  const WORDS = ["train", "validation", "test"], SHORT = ["train", "val", "test"];

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
  const placeOf = (one, regime) => (one.labels.length > 1 ? regime / (one.labels.length - 1) : 0.5);
  const colourOf = (one, regime) => `rgb(${shade(placeOf(one, regime)).join(",")})`;
  const css = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();

  // A canvas in CSS pixels, as sharp as the screen.
  function pen(place, height) {
    const canvas = place.querySelector("canvas");
    const width = place.clientWidth, ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
    const draw = canvas.getContext("2d");
    draw.scale(ratio, ratio);
    draw.font = '11px system-ui, "DejaVu Sans", Arial, sans-serif';
    draw.textBaseline = "middle";
    return { draw, width, ratio };
  }
  function dashes(draw, x, from, to) {
    for (let y = from; y < to; y += 7) draw.fillRect(x - 0.5, y, 1, 4);
  }

  // The time axis: a column a day, ticks at round dates.
  const date = (day) => new Date(86400e3 * day).toISOString().slice(0, 10);
  function columnOf(day, days) { // first of the rising days that is not before
    let low = 0, high = days.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (days[middle] < day) low = middle + 1; else high = middle;
    }
    return low;
  }
  const DAYS = [1, 7], MONTHS = [1, 3, 6, 12, 24, 60, 120, 240], MONTH = 30.44;
  function roundDates(first, last, most) { // the finest that are at most so many
    const step = DAYS.find((n) => (last - first) / n < most);
    if (step) return Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, k) => first + k * step);
    const months = MONTHS.find((n) => (last - first) / MONTH / n < most * (n < 12 ? 1 : 1.5)) ?? MONTHS.at(-1);
    const start = new Date(86400e3 * first), found = [];
    let month = 12 * start.getUTCFullYear() + start.getUTCMonth();
    for (month = Math.ceil(month / months) * months; ; month += months) {
      const day = Date.UTC(Math.floor(month / 12), month % 12, 1) / 86400e3;
      if (day > last) return found;
      if (day >= first) found.push(day);
    }
  }
  function timeAxis(draw, days, left, top, room) {
    const dates = roundDates(days[0], days.at(-1), room / 72);
    const letters = dates.every((day) => date(day).endsWith("-01-01")) ? 4
      : dates.every((day) => date(day).endsWith("-01")) ? 7 : 10;
    draw.fillStyle = css("grey");
    draw.textAlign = "left";
    let free = 0;
    for (const day of dates) {
      const x = columnOf(day, days) / days.length * room, text = date(day).slice(0, letters);
      const width = draw.measureText(text).width;
      if (x < free || x + 3 + width > room) continue;
      draw.fillRect(left + x, top, 1, 4);
      draw.fillText(text, left + x + 3, top + 11);
      free = x + width + 10;
    }
  }

  // A regime in words.
  function rank(one, regime) {
    const n = one.labels.length;
    if (n < 2) return "single regime";
    if (regime === n - 1) return `most turbulent of ${n}`;
    return regime === 0 ? `calmest of ${n}` : `${regime + 1} of ${n}`;
  }
  const part = (one, d) =>
    WORDS.filter((_, k) => one.parts[k] >= 0 && d >= one.parts[k]).at(-1) ?? "before train";
  function inWords(one, regime, d) { // of day d, after the symbol's name
    const words = [date(data.days[d])];
    if (regime === NO_BAR) words.push("no bar");
    else if (regime === UNKNOWN) words.push("regime unknown", part(one, d));
    else words.push(one.labels[regime], rank(one, regime), part(one, d));
    return words.join("  ·  ");
  }

  const clamp = (value, most) => Math.max(0, Math.min(value, most));
  return {
    data, unpack, shade, colourOf, css, pen, dashes, date, timeAxis, inWords, clamp,
    UNKNOWN, NO_BAR, RIGHT, WORDS, SHORT,
  };
})();
