// Lines over steps, with interval bands or stacked as areas; drawn as SVG at the width at hand.
const DASHES = ["", "", "", "", "7 3", "7 3", "2 3", "2 3"];
const colour = (series) => `var(--c${series.color % 8})`;
const dash = (series) => DASHES[series.color % 8];

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((unit) => unit * power >= raw * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + 1e-9 * step; at++) found.push(at * step);
  return found;
}

function runningMean(values, width) {
  const half = Math.floor(width / 2);
  return values.map((value, at) => {
    if (value === null) return null;
    const near = values.slice(Math.max(0, at - half), at + half + 1).filter((v) => v !== null);
    return near.reduce((sum, v) => sum + v, 0) / near.length;
  });
}

function path(xs, ys) {  // breaks where a value is unknown
  let text = "", pen = false;
  xs.forEach((x, at) => {
    if (ys[at] === null) { pen = false; return; }
    text += `${pen ? "L" : "M"}${x.toFixed(1)} ${ys[at].toFixed(1)}`;
    pen = true;
  });
  return text;
}
function band(xs, lows, highs) {
  const at = xs.map((_, i) => i).filter((i) => lows[i] !== null && highs[i] !== null);
  if (!at.length) return "";
  const point = (ys) => (i) => `${xs[i].toFixed(1)} ${ys[i].toFixed(1)}`;
  return "M" + at.map(point(highs)).join("L") + "L" + at.reverse().map(point(lows)).join("L") + "Z";
}

function stack(series) {  // each series' floor and ceiling, from below
  let floor = series.length ? series[0].y.map(() => 0) : [];
  return series.map((one) => {
    const low = floor, high = one.y.map((value, at) => low[at] + (value || 0));
    floor = high;
    return {...one, low, high};
  });
}

function span(part, series) {
  if (part.range) return part.range;
  const all = series.flatMap((s) => [...s.y, ...(s.low || []), ...(s.high || [])]).filter((v) => v !== null);
  let low = Math.min(...all), high = Math.max(...all);
  if (part.stacked || (low > 0 && low < 0.4 * high)) low = 0;
  if (!all.length || low === high) return all.length ? [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2] : [0, 1];
  const air = (high - low) * 0.06;
  return [low === 0 ? 0 : low - air, high + air];
}

makers.Lines = (part) => {
  const hidden = new Set();
  const box = el("div", {}), tip = el("div", {class: "tip", hidden: true});
  const xs = [...new Set(part.series.flatMap((s) => s.x))].sort((a, b) => a - b);
  let cursor = null, drawn = {};

  const legend = el("div", {class: "legend"}, ...part.series.map((series) => el("button", {
    type: "button", "aria-pressed": "true",
    click: (event) => {
      hidden.has(series.name) ? hidden.delete(series.name) : hidden.add(series.name);
      event.currentTarget.setAttribute("aria-pressed", String(!hidden.has(series.name)));
      paint();
    }},
    draw("svg", {viewBox: "0 0 22 10", "aria-hidden": "true"}, part.stacked
      ? draw("rect", {x: 4, width: 12, height: 10, rx: 2, fill: colour(series)})
      : draw("path", {d: "M0 5H22", stroke: colour(series), "stroke-width": 2.5, "stroke-dasharray": dash(series)})),
    series.name)));

  function paint() {
    const width = Math.max(260, box.clientWidth), height = part.height;
    let series = part.series.filter((one) => !hidden.has(one.name));
    if (part.stacked) series = stack(series);
    const [low, high] = span(part, series);
    const edge = {left: 46, right: 12, top: 6, bottom: 34};
    const [first, last] = xs.length > 1 ? [xs[0], xs[xs.length - 1]] : [xs[0] - 1, xs[0] + 1];
    const X = (x) => edge.left + (x - first) / (last - first) * (width - edge.left - edge.right);
    const Y = (y) => height - edge.bottom - (y - low) / (high - low) * (height - edge.top - edge.bottom);
    const up = (ys) => ys.map((y) => (y === null ? null : Y(y)));
    const label = part.format === "percent" ? (v) => Math.round(100 * v) + "%" : short;
    const hair = draw("path", {class: "hair", d: ""}), dots = draw("g");
    const root = draw("svg", {viewBox: `0 0 ${width} ${height}`, height, tabindex: 0, role: "img",
      "aria-label": `${part.title}: ${part.series.map((s) => s.name).join(", ")}`,
      pointermove: (event) => aim(event.clientX), pointerleave: () => point(null), keydown: keys,
      blur: () => point(null)});
    for (const y of ticks(low, high, 5)) root.append(
      draw("path", {class: "rule", d: `M${edge.left} ${Y(y)}H${width - edge.right}`}),
      draw("text", {x: edge.left - 8, y: Y(y) + 4, "text-anchor": "end"}, label(y)));
    root.append(draw("path", {class: "base", d: `M${edge.left} ${height - edge.bottom}H${width - edge.right}`}));
    for (const x of ticks(first, last, Math.max(2, Math.floor(width / 90)))) {
      if (Number.isInteger(x)) root.append(
        draw("text", {x: X(x), y: height - edge.bottom + 16, "text-anchor": "middle"}, short(x)));
    }
    root.append(draw("text", {x: width - edge.right, y: height - 3, "text-anchor": "end"}, part.x_label));
    for (const one of series) {
      const at = one.x.map(X), ink = colour(one);
      if (one.low && one.high) root.append(draw("path", {d: band(at, up(one.low), up(one.high)), fill: ink,
        opacity: part.stacked ? 0.82 : 0.18}));
      if (part.stacked) continue;
      if (part.smooth > 1) root.append(draw("path", {d: path(at, up(one.y)), fill: "none", stroke: ink, opacity: 0.22}));
      const ys = up(part.smooth > 1 ? runningMean(one.y, part.smooth) : one.y);
      root.append(draw("path", {d: path(at, ys), fill: "none", stroke: ink, "stroke-width": 2,
        "stroke-linejoin": "round", "stroke-dasharray": dash(one)}));
      if (one.x.length <= 40) at.forEach((x, i) => ys[i] !== null && root.append(draw("circle", {cx: x, cy: ys[i], r: 2.6, fill: ink})));
    }
    root.append(hair, dots);
    drawn = {X, Y, series, hair, dots, height, edge, width, root};
    box.replaceChildren(root);
  }

  function aim(clientX) {
    const frame = drawn.root.getBoundingClientRect();
    const at = (clientX - frame.left) * drawn.width / frame.width;
    let best = 0;
    xs.forEach((x, i) => { if (Math.abs(drawn.X(x) - at) < Math.abs(drawn.X(xs[best]) - at)) best = i; });
    point(best);
  }
  function keys(event) {
    const way = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!way) return;
    event.preventDefault();
    point(Math.max(0, Math.min(xs.length - 1, (cursor === null ? xs.length - (way > 0 ? 1 : 0) : cursor) + way)));
  }
  function point(at) {
    cursor = at;
    drawn.dots.replaceChildren();
    tip.hidden = at === null;
    drawn.hair.setAttribute("d", at === null ? "" : `M${drawn.X(xs[at])} ${drawn.edge.top}V${drawn.height - drawn.edge.bottom}`);
    if (at === null) return;
    const lines = [];
    for (const one of part.stacked ? [...drawn.series].reverse() : drawn.series) {
      const i = one.x.indexOf(xs[at]);
      if (i < 0 || one.y[i] === null) continue;
      const key = el("i");
      key.style.background = colour(one);
      const around = one.low && one.high && !part.stacked && one.low[i] !== null
        ? ` [${shown(one.low[i], part.format)}, ${shown(one.high[i], part.format)}]` : "";
      lines.push(el("div", {}, key, el("span", {}, one.name), el("span", {}, shown(one.y[i], part.format) + around)));
      if (!part.stacked) drawn.dots.append(draw("circle", {cx: drawn.X(xs[at]), cy: drawn.Y(one.y[i]), r: 3.5, fill: colour(one)}));
    }
    tip.replaceChildren(el("b", {}, `${part.x_label} ${short(xs[at])}`), ...lines);
    const x = drawn.X(xs[at]) / drawn.width * box.clientWidth;
    const room = box.offsetLeft + box.clientWidth - tip.offsetWidth;
    tip.style.left = Math.max(0, x > box.clientWidth / 2 ? box.offsetLeft + x - tip.offsetWidth - 14
      : Math.min(room, box.offsetLeft + x + 14)) + "px";
    tip.style.top = box.offsetTop + 16 + "px";
  }
  new ResizeObserver(() => paint()).observe(box);
  return el("figure", {class: "panel"}, el("figcaption", {}, part.title, part.note ? el("small", {}, part.note) : null),
    box, part.series.length > 1 ? legend : null, tip);
};
