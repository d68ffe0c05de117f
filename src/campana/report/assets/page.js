"use strict";
// The page's own script: unpacks the data, draws the charts with plotly, lists the prompts. Texts from outside are only ever set as text.
(() => {
  const NARROW = 560, PAGE = 24, PRINT_WIDTH = 680;

  async function unpacked(id) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  function make(tag, css, text) {
    const element = document.createElement(tag);
    if (css) element.className = css;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  // ---- charts

  let figures = {};
  const unitOf = (place) => place.dataset.chart;

  function themed(layout, width, forPrint) {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const [soft, line] = forPrint ? ["#444", "#ddd"] : [color("--soft"), color("--line")];
    const axis = (given) => given && {
      ...given, gridcolor: line, linecolor: line, tickfont: { size: 11.5 }, ticks: "", title: { ...given.title, font: { size: 12 }, standoff: 8 },
    };
    const themedLayout = {
      ...layout, width, autosize: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: soft, size: 12, family: getComputedStyle(document.body).fontFamily },
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis), dragmode: false,
      shapes: (layout.shapes || []).map((shape) => ({ ...shape, line: { ...shape.line, color: line } })),
    };
    if (width < NARROW) themedLayout.margin = { ...layout.margin, l: 40, r: 8 };
    return themedLayout;
  }

  function draw(place, width, forPrint) {
    const figure = figures[unitOf(place)];
    if (!figure || !window.Plotly) return;
    const wide = width || place.clientWidth;
    if (!wide) return;
    const data = figure.data.map((trace) => (wide < NARROW && trace.mode === "markers+text" ? { ...trace, mode: "markers" } : trace));
    const layout = { ...themed(structuredClone(figure.layout), wide, forPrint), height: parseInt(place.style.height, 10) };
    window.Plotly.react(place, structuredClone(data), layout, { displayModeBar: false, responsive: false, scrollZoom: false, doubleClick: false });
  }

  const places = () => [...document.querySelectorAll(".chart")];
  const drawAll = () => places().forEach((place) => draw(place));

  async function charts(data) {
    figures = data.figures;
    if (!document.getElementById("plotly")) return;
    const script = document.createElement("script");
    script.textContent = await unpacked("plotly");
    document.head.append(script);
    const drawn = new Map();
    const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => {
      if (drawn.get(target) === target.clientWidth) return;
      drawn.set(target, target.clientWidth);
      draw(target);
    }));
    places().forEach((place) => sizes.observe(place));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
    const folded = [...document.querySelectorAll("details:not([open])")];
    addEventListener("beforeprint", () => folded.forEach((details) => { details.open = true; }));
    addEventListener("afterprint", () => folded.forEach((details) => { details.open = false; }));
    addEventListener("beforeprint", () => places().forEach((place) => draw(place, place.closest(".pair") ? PRINT_WIDTH / 2 - 10 : PRINT_WIDTH, true)));
    addEventListener("afterprint", drawAll);
    document.querySelectorAll(".switch button").forEach((button) => button.addEventListener("click", () => {
      const group = button.parentElement;
      group.querySelectorAll("button").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      const place = document.querySelector(`.chart[data-chart^="${group.dataset.for}/"]`);
      place.dataset.chart = `${group.dataset.for}/${button.dataset.unit}`;
      draw(place);
    }));
  }

  // ---- prompts and answers

  function answersOf(item, arm) {
    return Object.entries(item.answers).filter(([name]) => !arm || name === arm).flatMap(([, given]) => given);
  }

  const kept = {
    "": () => true,
    low: (item, arm) => answersOf(item, arm).some((given) => given.score !== null && given.score < 0.5),
    high: (item, arm) => answersOf(item, arm).some((given) => given.score !== null && given.score >= 0.5),
    unscored: (item, arm) => answersOf(item, arm).some((given) => given.score === null),
    cut: (item, arm) => answersOf(item, arm).some((given) => given.finish === "length"),
    differ: (item) => new Set(Object.values(item.answers).map((given) => JSON.stringify(given.map((one) => one.score)))).size > 1,
  };

  function card(item, arms, only) {
    const box = make("article", "card");
    const ask = make("div", "ask");
    ask.append(make("div", "meta", `${item.category} · ${item.id}`));
    for (const message of item.messages) {
      if (item.messages.length > 1) ask.append(make("div", "role", message.role));
      ask.append(make("div", "text", message.content));
    }
    if (item.reference !== null) {
      const reference = make("div", "ref");
      reference.append(make("div", "role", "reference"), make("div", "text", item.reference));
      ask.append(reference);
    }
    const list = make("div", "answers");
    for (const arm of arms) {
      const all = item.answers[arm.name] || [];
      if (all.length && (!only || arm.name === only)) list.append(answersOfArm(arm, all));
    }
    box.append(ask, list);
    return box;
  }

  const written = (score) => (score === null ? "unscored" : score.toFixed(2));
  const grade = (score) => (score === null ? "none" : score >= 0.5 ? "high" : "low");

  function answersOfArm(arm, all) {
    const box = make("div", "given");
    const top = make("div", "top");
    const who = make("span", "who");
    const dot = make("i");
    dot.style.background = arm.color;
    who.append(dot, make("span", "", arm.short));
    const scored = all.map((given) => given.score).filter((score) => score !== null);
    const mean = scored.length ? scored.reduce((sum, score) => sum + score, 0) / scored.length : null;
    top.append(who, make("span", `score ${grade(mean)}`, written(mean)));
    const body = make("div");
    box.append(top);
    if (all.length > 1) box.append(seedButtons(all, (given) => body.replaceChildren(...answer(given))));
    body.append(...answer(all[0]));
    box.append(body);
    return box;
  }

  function seedButtons(all, show) {
    const group = make("div", "seeds");
    all.forEach((given, place) => {
      const button = make("button", "", `seed ${given.seeds.join(", ")}: ${written(given.score)}`);
      button.type = "button";
      button.setAttribute("aria-pressed", String(place === 0));
      button.addEventListener("click", () => {
        [...group.children].forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
        show(given);
      });
      group.append(button);
    });
    return group;
  }

  function answer(given) {
    const parts = [];
    given.turns.forEach((turn, place) => {
      if (given.turns.length > 1) parts.push(make("div", "role", `turn ${place + 1}`));
      parts.push(turn.trim() ? make("div", "text", turn) : make("div", "role", turn ? "only white space" : "an empty answer"));
    });
    const why = make("div", "why", given.reason);
    if (given.finish === "length") why.append(make("span", "tag", "cut"));
    parts.push(why);
    return parts;
  }

  function prompts(data) {
    const form = document.getElementById("controls");
    if (!form) return;
    const [cards, more] = [document.getElementById("cards"), document.getElementById("more")];
    const texts = data.items.map((item) =>
      [item.id, item.reference || "", ...item.messages.map((message) => message.content), ...answersOf(item).flatMap((given) => given.turns)].join("\n").toLowerCase());
    let [found, shown, only] = [[], 0, ""];

    function grow() {
      const end = Math.min(found.length, shown + PAGE);
      const batch = document.createDocumentFragment();
      for (; shown < end; shown += 1) batch.append(card(data.items[found[shown]], data.arms, only));
      cards.append(batch);
    }

    function filter() {
      const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
      const category = form.elements.category.value;
      only = form.elements.arm.value;
      const keep = kept[form.elements.score.value];
      found = [];
      data.items.forEach((item, place) => {
        if ((!category || item.category === category) && keep(item, only) && words.every((word) => texts[place].includes(word))) found.push(place);
      });
      form.elements.found.value = `${found.length} of ${data.items.length}`;
      cards.replaceChildren();
      shown = 0;
      grow();
    }

    let waiting = 0;
    form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 80); });
    form.addEventListener("submit", (event) => event.preventDefault());
    new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) grow(); }, { rootMargin: "800px" }).observe(more);
    filter();
  }

  async function start() {
    if (!window.DecompressionStream) {
      places().forEach((place) => place.classList.add("off"));
      return;
    }
    const data = JSON.parse(await unpacked("page-data"));
    prompts(data);
    await charts(data);
    document.documentElement.dataset.ready = "yes";
  }
  start();
})();
