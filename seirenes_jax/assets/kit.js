// The kit's small parts. Text enters the page through text nodes only: no markup is ever parsed here.
"use strict";
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(key, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const el = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
const draw = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

const trim = (text) => text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");
function short(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return trim((value / 1e9).toFixed(1)) + "G";
  if (size >= 1e6) return trim((value / 1e6).toFixed(1)) + "M";
  if (size >= 1e4) return trim((value / 1e3).toFixed(1)) + "k";
  if (size >= 100 || size === 0) return trim(value.toFixed(1));
  if (size < 1e-3) return value.toExponential(1);
  return trim(value.toPrecision(3));
}
const formats = {
  percent: (value) => (100 * value).toFixed(1) + "%",
  share: (value) => String(Math.round(100 * value)),
  points: (value) => (value > 0 ? "+" : value < 0 ? "\u2212" : "") + Math.abs(100 * value).toFixed(1),
  number: short,
  whole: (value) => Math.round(value).toLocaleString("en"),
  seconds: (value) => {
    if (value < 100) return trim(value.toPrecision(3)) + " s";
    const minutes = Math.floor(Math.round(value) / 60), rest = Math.round(value) % 60;
    const two = (n) => String(n).padStart(2, "0");
    return minutes < 60 ? `${minutes}:${two(rest)} min`
      : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(rest)} h`;
  },
};
function shown(value, format) {
  if (value === null || value === undefined) return "\u2013";
  return typeof value === "number" ? formats[format === "text" || format === "code" ? "number" : format](value) : String(value);
}

const makers = {};  // kind of part -> function(part) -> node
const make = (part) => makers[part.kind](part);

makers.Prose = (part) => el("p", {class: "prose"}, part.text);
makers.Listing = (part) => el("pre", {class: "panel"}, part.text);
makers.Grid = (part) => el("div", {class: "grid"}, ...part.parts.map(make));
makers.Fold = (part) => {
  const fold = el("details", {}, el("summary", {}, part.title));
  fold.addEventListener("toggle", () => fold.append(...part.parts.map(make)), {once: true});
  return fold;
};
makers.Facts = (part) => el("div", {class: "facts"}, ...part.items.map(([label, value, aside]) =>
  el("div", {class: "panel fact"}, el("div", {class: "label"}, label),
    el("div", {class: "value"}, value), el("div", {class: "aside"}, aside))));

makers.Table = (part) => {
  const body = el("tbody");
  const number = part.columns.map(([, format]) => format !== "text" && format !== "code");
  const rows = part.rows.map((cells, index) => {
    const inner = part.inner.includes(index);
    return {cells, node: el("tr", {class: inner ? "inner" : null}, ...cells.map((value, at) => {
      const format = part.columns[at][1];
      const tone = format !== "points" || !value ? "" : value > 0 ? " good" : " bad";
      return el("td", {class: (number[at] ? "number" : format) + tone}, shown(value, format));
    }))};
  });
  const heads = part.columns.map(([name], at) => el("th", {scope: "col", class: number[at] ? "number" : null},
    part.sortable ? el("button", {type: "button", click: () => sort(at)}, name) : name));
  function sort(at) {
    const down = heads[at].getAttribute("aria-sort") === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[at].setAttribute("aria-sort", down ? "descending" : "ascending");
    const known = (row) => row.cells[at] !== null;
    const order = [...rows].sort((a, b) => {
      if (!known(a) || !known(b)) return known(b) - known(a);  // what is unknown stands last
      const [x, y] = [a.cells[at], b.cells[at]];
      const way = typeof x === "number" && typeof y === "number" ? x - y
        : String(x).localeCompare(String(y), "en", {numeric: true});
      return down ? -way : way;
    });
    body.append(...order.map((row) => row.node));
  }
  body.append(...rows.map((row) => row.node));
  return el("div", {class: "panel scroll"}, el("table", {},
    part.title ? el("caption", {}, part.title) : null, el("thead", {}, el("tr", {}, ...heads)), body));
};

makers.Heat = (part) => {
  const known = part.values.flat().filter((value) => value !== null);
  const low = part.low === null ? Math.min(...known) : part.low;
  const high = part.high === null ? Math.max(...known) : part.high;
  const rows = part.rows.map((name, i) => el("tr", {}, el("th", {scope: "row"}, name),
    ...part.columns.map((column, j) => {
      const value = part.values[i][j];
      const link = (part.links[i] || [])[j] || null, text = shown(value, part.format);
      if (!link && value === null && part.links.length) return el("td");  // no such cell
      const cell = el("td", {title: link ? link[1] : `${name}, ${column}`},
        link ? el("a", {href: "#" + link[0]}, text) : text);
      if (value !== null) {
        const share = Math.max(0, Math.min(1, (value - low) / (high - low || 1)));
        cell.style.background = `color-mix(in srgb, var(--c0) ${Math.round(6 + 74 * share)}%, var(--panel))`;
        if (share > 0.6) cell.style.color = "var(--panel)";
      }
      return cell;
    })));
  return el("figure", {class: "panel heat scroll"}, el("figcaption", {}, part.title, el("small", {}, part.note)),
    el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, part.corner),
      ...part.columns.map((column) => el("th", {scope: "col"}, column)))), el("tbody", {}, ...rows)));
};

function start() {
  const page = JSON.parse(document.getElementById("page").textContent);
  const main = document.querySelector("main");
  const named = page.sections.map((section, index) => [section, `s${index}`]);
  main.append(el("header", {}, el("h1", {}, page.title), el("p", {}, page.subtitle),
    el("nav", {}, ...named.filter(([section]) => section.title).map(([section, id]) =>
      el("a", {href: "#" + id}, section.title)))));
  for (const [section, id] of named)
    main.append(el("section", {id}, section.title ? el("h2", {}, section.title) : null,
      section.note ? el("p", {class: "note"}, section.note) : null,
      el("div", {class: "stack"}, ...section.parts.map(make))));
}
document.addEventListener("DOMContentLoaded", start);
