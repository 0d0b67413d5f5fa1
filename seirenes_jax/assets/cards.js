// Cards of texts by step: slider, search, filters, pages. Only the cards of one page stand in the document.
const MARKS = {right: "\u2713", wrong: "\u2717", unreadable: "?", timeout: "\u25f7"};
const PAGE = 8;

function marked(text, terms) {  // text nodes, with what was searched for in <mark>
  if (!terms.length) return [text];
  const low = text.toLowerCase(), found = [];
  if (low.length !== text.length) return [text];  // letters whose lower case is longer: offsets would slip
  let at = 0;
  while (at < text.length) {
    let next = -1, size = 0;
    for (const term of terms) {
      const here = low.indexOf(term, at);
      if (here >= 0 && (next < 0 || here < next)) [next, size] = [here, term.length];
    }
    if (next < 0) break;
    found.push(text.slice(at, next), el("mark", {}, text.slice(next, next + size)));
    at = next + size;
  }
  return [...found, text.slice(at)];
}

const blocks = {
  Words: (block, terms) => [
    el("div", {class: "head"}, el("span", {class: "label"}, block.label),
      ...block.badges.map(([text, tone]) => el("span", {class: `badge ${tone}`}, text))),
    el("div", {class: "words"}, ...marked(block.text, terms))],
  Tries: (block, terms) => {
    const text = el("div", {class: "words try"}), right = block.tries.filter(([verdict]) => verdict === "right").length;
    const chips = block.tries.map(([verdict, words], at) => el("button", {
      type: "button", class: `chip ${verdict}`, title: `try ${at + 1}: ${verdict}`,
      "aria-label": `try ${at + 1}: ${verdict}`, click: () => open(at)}, MARKS[verdict] || "?"));
    function open(at) {
      chips.forEach((chip, i) => chip.setAttribute("aria-pressed", String(i === at)));
      text.replaceChildren(...marked(block.tries[at][1], terms));
    }
    const hit = terms.length ? block.tries.findIndex(([, words]) => terms.some((term) => words.toLowerCase().includes(term))) : -1;
    if (chips.length) open(hit >= 0 ? hit : block.open);
    return [el("div", {class: "head"}, el("span", {class: "label"}, block.label),
      el("span", {class: "share"}, chips.length ? `${right} of ${chips.length}` : "not asked"),
      el("span", {class: "chips"}, ...chips)), chips.length ? text : null];
  },
};

function textOf(card) {  // everything of a card that can be searched, once
  if (card.all === undefined) {
    const words = [card.title, card.aside];
    for (const row of card.rows) for (const cell of row.cells) for (const block of cell) {
      words.push(block.text, ...(block.badges || []).map(([text]) => text));
      for (const [, text] of block.tries || []) words.push(text);
    }
    card.all = words.join("\n").toLowerCase();
  }
  return card.all;
}

makers.Cards = (part) => {
  const steps = [...new Set(part.cards.map((card) => card.step))].sort((a, b) => a - b);
  const state = {at: steps.length - 1, every: !part.stepped, terms: [], filter: null, facet: "", page: 0};
  const wanted = () => [state.filter, state.facet].filter(Boolean);
  const rowFits = (row) => wanted().every((flag) => row.flags.includes(flag));
  const fits = (card) => {
    if (!card.rows.some(rowFits)) return false;
    return state.terms.every((term) => textOf(card).includes(term));
  };

  const list = el("div", {class: "cards"}), count = el("p", {class: "count", "aria-live": "polite"});
  const output = el("output"), pager = el("div", {class: "pager"});
  const strip = draw("svg", {class: "ticks", preserveAspectRatio: "none", "aria-hidden": "true"});
  const slider = el("input", {type: "range", min: 0, max: Math.max(0, steps.length - 1), step: 1, value: state.at,
    "aria-label": "step", input: () => { state.at = Number(slider.value); state.every = all.checked = false; state.page = 0; show(); }});
  const all = el("input", {type: "checkbox", change: () => { state.every = all.checked; state.page = 0; show(); }});
  let wait = 0;
  const search = el("input", {type: "search", placeholder: "Search problems, tries and hints", "aria-label": "search",
    input: () => { clearTimeout(wait); wait = setTimeout(() => {
      state.terms = search.value.toLowerCase().split(/\s+/).filter(Boolean); state.page = 0; find(); }, 120); }});
  const pills = part.filters.map(([flag, label]) => el("button", {type: "button", class: "pill", "aria-pressed": "false",
    "data-flag": flag, click: () => {
      state.filter = state.filter === flag ? null : flag; state.page = 0;
      pills.forEach((pill) => pill.setAttribute("aria-pressed", String(pill.dataset.flag === state.filter)));
      find();
    }}, label));
  const facet = part.facets.length ? el("select", {"aria-label": part.facet_label,
    change: () => { state.facet = facet.value; state.page = 0; find(); }},
    el("option", {value: ""}, part.facet_label), ...part.facets.map(([flag, label]) => el("option", {value: flag}, label))) : null;

  let found = part.cards;
  function find() {  // what fits, at whatever step; the slider only chooses among it
    found = part.cards.filter(fits);
    show();
  }
  function showStrip(byStep) {
    const most = Math.max(1, ...byStep.values());
    strip.setAttribute("viewBox", `0 0 ${steps.length} 22`);
    strip.replaceChildren(...steps.map((step, at) => {
      const tall = (byStep.get(step) || 0) / most * 20;
      return draw("rect", {x: at + 0.1, width: 0.8, y: 22 - tall, height: tall, class: !state.every && at === state.at ? "now" : null});
    }));
  }
  function show() {
    const byStep = new Map();
    for (const card of found) byStep.set(card.step, (byStep.get(card.step) || 0) + 1);
    showStrip(byStep);
    const here = state.every ? found : found.filter((card) => card.step === steps[state.at]);
    const sorted = state.every ? [...here].sort((a, b) => b.step - a.step) : here;
    output.textContent = steps.length ? (state.every ? "every step" : `step ${steps[state.at]}`) : "no steps";
    const away = found.length - here.length;
    count.replaceChildren(`${here.length} of ${part.cards.length} problems shown`, ...(away && !state.every && (wanted().length || state.terms.length)
      ? [`; ${away} more at other steps. `, el("button", {type: "button", click: () => { all.checked = state.every = true; show(); }}, "Show all of them")] : []));
    const pages = Math.max(1, Math.ceil(sorted.length / PAGE));
    list.replaceChildren(...sorted.slice(state.page * PAGE, (state.page + 1) * PAGE).map(cardNode));
    const turn = (by) => { state.page += by; show(); list.scrollIntoView({block: "start"}); };
    pager.replaceChildren(...(pages > 1 ? [
      el("button", {type: "button", disabled: state.page === 0, click: () => turn(-1)}, part.stepped ? "Newer" : "Previous"),
      `page ${state.page + 1} of ${pages}`,
      el("button", {type: "button", disabled: state.page === pages - 1, click: () => turn(1)}, part.stepped ? "Older" : "Next")] : []));
  }
  function cardNode(card) {
    const rows = card.rows.filter((row) => row.always || rowFits(row));
    return el("article", {class: "panel card", "data-step": card.step, id: card.anchor || null},
      el("h3", {}, ...marked(card.title, state.terms), el("span", {}, ...marked(card.aside, state.terms))),
      ...rows.map((row) => el("div", {class: `row ${row.tone}${row.cells.length === 1 ? " one" : ""}`},
        ...row.cells.map((cell) => el("div", {class: "cell"},
          ...cell.flatMap((block) => blocks[block.kind](block, state.terms).filter(Boolean)))))));
  }
  function visit() {  // a link to one card: nothing may hide it, and its page must be open
    const anchor = decodeURIComponent(location.hash.slice(1));
    const card = anchor && part.cards.find((one) => one.anchor === anchor);
    if (!card) return;
    Object.assign(state, {terms: [], filter: null, facet: "", every: true});
    search.value = "";
    all.checked = true;
    if (facet) facet.value = "";
    pills.forEach((pill) => pill.setAttribute("aria-pressed", "false"));
    found = part.cards;
    const sorted = [...found].sort((a, b) => b.step - a.step);
    state.page = Math.floor(sorted.indexOf(card) / PAGE);
    show();
    document.getElementById(anchor).scrollIntoView({block: "start"});
  }
  show();
  window.addEventListener("hashchange", visit);
  setTimeout(visit);  // once the viewer stands in the page
  return el("div", {class: "viewer"}, el("div", {class: "tools"}, search, ...pills, facet,
    part.stepped ? el("div", {class: "stepper"}, output, el("div", {class: "track"}, strip, slider),
      el("label", {}, all, "every step")) : null), count, list, pager);
};
