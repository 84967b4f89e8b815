"use strict";
// Charts, zoom, and the leaderboard.
(() => {
  const { root, $, $$, sortable, filterable, onTheme } = page;

  const documents = [];
  function recolour(some = documents) {
    const style = getComputedStyle(root);
    for (const doc of some) {
      for (const model of doc.all_models) {
        const roles = model.tags && model.tags[0];
        if (!roles || roles.type !== undefined) continue;
        const pairs = roles instanceof Map ? [...roles] : Object.entries(roles);
        for (const [property, role] of pairs) {
          model[property] = property.endsWith("_color")
            ? style.getPropertyValue(`--${role}`).trim() : role;
        }
      }
    }
  }

  onTheme(() => recolour());

  // Charts are drawn in turn, so that the page stays responsive.
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  async function embed(target, content) {
    const views = await Bokeh.embed.embed_item(content.item, target);
    const view = views.roots ? views.roots[0] : views;
    const doc = view.model.document;
    documents.push(doc);
    recolour([doc]);
    return doc;
  }
  const breath = () => new Promise((go) => setTimeout(go, 0));
  async function embedAll() {
    if ($("#timeline")) {
      const content = read("timeline-data");
      timeline(await embed($("#timeline"), content), content.about);
    }
    for (const target of $$("[data-chart]")) {
      await breath();
      const doc = await embed(target, read(target.dataset.chart));
      if (target.classList.contains("criterion")) criteria.push(doc);
    }
    root.dataset.ready = "true";
  }

  // The timeline holds all bars and draws at most COLUMNS groups of those in view.
  const RIGHT = 8; // pixels right of the panels
  const COLUMNS = 1300, AREAS = 520, UNKNOWN = 255, CERTAIN = 250, DAY = 86400e3;

  function timeline(doc, about) {
    const bars = doc.get_model_by_name("bars").data;
    const time = doc.get_model_by_name("time");
    const price = about.price ? doc.get_model_by_name("price") : null;
    const gain = doc.get_model_by_name("gain"), course = gain && doc.get_model_by_name("course").data;
    const n = bars.t.length, states = about.labels.length;
    const at = (i) => about.start + 1000 * bars.t[i];
    const usual = n > 1 ? median(bars.t) * 1000 : 1;
    const first = (x) => { // first bar at or after x
      let low = 0, high = n;
      while (low < high) { const middle = (low + high) >> 1; if (at(middle) < x) low = middle + 1; else high = middle; }
      return low;
    };

    // Names of the parts above the panels: whole, short, or none, as the width allows.
    const WHOLE = { val: "validation" };
    const panel = [...doc.all_models].find((model) => model.type === "Figure");
    const pen = document.createElement("canvas").getContext("2d");
    function nameParts() {
      const strip = $("#parts"), starts = Object.entries(about.parts);
      strip.replaceChildren();
      if (starts.length < 2) return;
      pen.font = getComputedStyle(strip).font;
      const left = strip.clientWidth - RIGHT - panel.inner_width;
      const x = (t) => left + panel.inner_width * (t - time.start) / (time.end - time.start);
      starts.forEach(([name, start], i) => {
        const from = Math.max(x(start), left);
        const to = Math.min(x(i + 1 < starts.length ? starts[i + 1][1] : about.end), strip.clientWidth - RIGHT);
        const text = [WHOLE[name] ?? name, name].find((word) => pen.measureText(word).width + 8 < to - from);
        if (!text) return;
        const span = document.createElement("span");
        span.textContent = text; span.style.left = `${from + 2}px`;
        strip.append(span);
      });
    }

    function draw() {
      nameParts();
      const from = Math.max(first(time.start) - 1, 0), to = Math.min(first(time.end) + 1, n);
      if (price) drawPrice(from, to);
      drawProbabilities(from, to);
      if (gain) fitGain();
    }

    function fitGain() { // fit the axis to the view, zero included
      let low = 0, high = 0;
      course.x.forEach((x, i) => {
        if (!(x >= time.start && x <= time.end)) return;
        for (const y of [course.static?.[i], course.ewma?.[i]]) {
          if (Number.isFinite(y)) { low = Math.min(low, y); high = Math.max(high, y); }
        }
      });
      const room = 0.05 * (high - low) || 1;
      gain.setv({ start: low - room, end: high + room });
    }

    function drawPrice(from, to) {
      const size = Math.max(1, Math.ceil((to - from) / COLUMNS));
      const hole = Math.max(25 * usual, (time.end - time.start) / 100);
      const lines = Array.from({ length: states + 1 }, () => ({ x: [], y: [] }));
      let low = Infinity, high = -Infinity, last = -1;
      const stroke = (state, x0, y0, x1, y1, joined) => {
        const line = lines[state];
        if (!joined) { line.x.push(NaN, x0); line.y.push(NaN, y0); }
        line.x.push(x1); line.y.push(y1);
      };
      for (let start = from - (from % size); start < to; start += size) {
        const end = Math.min(start + size, n);
        const state = most(start, end);
        if (size === 1) {
          const y = bars.close[start];
          low = Math.min(low, y); high = Math.max(high, y);
          if (start > 0 && at(start) - at(start - 1) < hole) {
            stroke(state, at(start - 1), bars.close[start - 1], at(start), y, state === last);
            last = state;
          } else last = -1;
        } else {
          let bottom = Infinity, top = -Infinity;
          const before = start > 0 && at(start) - at(start - 1) < hole ? start - 1 : start;
          for (let i = before; i < end; i++) {
            bottom = Math.min(bottom, bars.close[i]); top = Math.max(top, bars.close[i]);
          }
          low = Math.min(low, bottom); high = Math.max(high, top);
          const x = at(Math.min(start + (size >> 1), n - 1));
          stroke(state, x, bottom, x, top, false);
        }
      }
      lines.forEach((data, k) => { doc.get_model_by_name(`price${k}`).data = data; });
      const room = 0.05 * (high - low) || 0.1 * Math.abs(high) || 1;
      price.setv(low > 0 && about.log
        ? { start: low * (low / high) ** 0.05, end: high * (high / low) ** 0.05 }
        : { start: low - room, end: high + room });
    }

    function most(start, end) { // the most frequent regime of some bars
      if (end - start === 1) return bars.state[start] === UNKNOWN ? states : bars.state[start];
      const counts = new Array(states + 1).fill(0);
      for (let i = start; i < end; i++) counts[bars.state[i] === UNKNOWN ? states : bars.state[i]]++;
      const known = counts.slice(0, states);
      const best = Math.max(...known);
      return best > 0 ? known.indexOf(best) : states;
    }

    function drawProbabilities(from, to) {
      const size = Math.max(1, Math.ceil((to - from) / AREAS));
      const data = { x: [] };
      for (let k = 0; k <= states; k++) data[`y${k}`] = [];
      for (let start = from - (from % size); start < to; start += size) {
        const end = Math.min(start + size, n), sums = new Array(states).fill(0);
        let seen = 0;
        for (let i = start; i < end; i++) {
          if (bars.p0[i] === UNKNOWN) continue;
          seen++;
          for (let k = 0; k < states; k++) sums[k] += bars[`p${k}`][i];
        }
        const total = sums.reduce((a, b) => a + b, 0) || 1;
        data.x.push(at(start)); data.y0.push(0);
        let height = 0;
        for (let k = 0; k < states; k++) { height += sums[k] / total; data[`y${k + 1}`].push(seen ? height : 0); }
      }
      if (to === n || data.x.length < 2) { // a step area of one point never ends
        data.x.push(at(Math.min(to, n) - 1) + usual);
        for (let k = 0; k <= states; k++) data[`y${k}`].push(data[`y${k}`].at(-1));
      }
      doc.get_model_by_name("probabilities").data = data;
    }

    let asked = 0;
    const soon = () => { cancelAnimationFrame(asked); asked = requestAnimationFrame(() => { draw(); press(); }); };
    time.change.connect(soon);
    new ResizeObserver(soon).observe($("#timeline"));
    panel.properties.inner_width.change.connect(soon);
    const show = (start, end) => time.setv({ start: Math.max(start, about.start), end });
    draw();

    // Buttons for ranges.
    const ranges = { "all": [about.start, about.end] };
    const parts = Object.entries(about.parts);
    if (parts.length > 1) parts.forEach(([name, start], i) => {
      ranges[name] = [start, i + 1 < parts.length ? parts[i + 1][1] : about.end];
    });
    const span = about.end - about.start;
    for (const [name, days] of [["last year", 365], ["last month", 30], ["last week", 7]]) {
      if (days * DAY < 0.7 * span && days * DAY > 20 * usual) ranges[name] = [about.end - days * DAY, about.end];
    }
    const buttons = new Map();
    for (const [name, [start, end]] of Object.entries(ranges)) {
      const button = document.createElement("button");
      button.type = "button"; button.textContent = name;
      button.addEventListener("click", () => show(start, end));
      $("#ranges").append(button); buttons.set(button, [start, end]);
    }
    function press() {
      for (const [button, [start, end]] of buttons) {
        const near = Math.abs(time.start - start) + Math.abs(time.end - end) < 0.002 * (end - start);
        button.setAttribute("aria-pressed", String(near));
      }
    }
    press();

    // The bar under the pointer, in words.
    const whole = (value) => value.toLocaleString("en", { maximumSignificantDigits: 6 });
    window.addEventListener("chart-whole", () => show(about.start, about.end));
    window.addEventListener("chart-gone", () => { $("#readout").textContent = "\u00a0"; });
    window.addEventListener("chart-at", (event) => {
      const i = Math.max(Math.min(first(event.detail + 1) - 1, n - 1), 0);
      const words = [new Date(at(i)).toISOString().slice(0, 16).replace("T", " ") + " UTC"];
      if (price) words.push(whole(bars.close[i]));
      const state = bars.state[i];
      if (state !== UNKNOWN) {
        const share = 100 * bars[`p${state}`][i] / CERTAIN;
        words.push(`${about.labels[state]} ${states > 1 && share > 99 ? "above 99" : Math.round(share)} %`);
      }
      $("#readout").textContent = words.join("  ·  ");
    });
    window.report = { time, doc }; // for tests
  }

  function median(t) {
    const steps = [];
    for (let i = 1; i < t.length; i += Math.ceil(t.length / 2000)) steps.push(t[i] - t[i - 1]);
    return steps.sort((a, b) => a - b)[steps.length >> 1];
  }

  // Criteria: one at a time in all spaces.
  const criteria = [];
  for (const button of $$("#criterion button")) {
    button.addEventListener("click", () => {
      for (const other of $$("#criterion button")) other.setAttribute("aria-pressed", String(other === button));
      for (const doc of criteria) for (const model of doc.all_models) {
        const data = model.data;
        if (model.name && model.name.startsWith("criterion-") && data[button.dataset.name]) {
          model.data = { ...data, y: data[button.dataset.name] };
        }
      }
    });
  }

  const table = $("#leaderboard");
  if (table) {
    const eligible = $("#eligible");
    sortable(table);
    filterable(table, "cells", (row) => !eligible.checked || row.matches(".ok"), eligible);
  }

  // After the first paint.
  requestAnimationFrame(() => setTimeout(embedAll, 0));
})();
