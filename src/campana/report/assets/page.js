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
    drawAll();
    let waiting = 0;
    let width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth === width) return;
      width = innerWidth;
      clearTimeout(waiting);
      waiting = setTimeout(drawAll, 120);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
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
      if (only && arm.name !== only) continue;
      const all = item.answers[arm.name] || [];
      for (const given of all) list.append(answer(arm, given, all.length > 1));
    }
    box.append(ask, list);
    return box;
  }

  function answer(arm, given, severalSeeds) {
    const box = make("div", "given");
    const top = make("div", "top");
    const who = make("span", "who");
    const dot = make("i");
    dot.style.background = arm.color;
    who.append(dot, make("span", "", arm.short));
    if (severalSeeds) who.append(make("small", "", `seed ${given.seeds.join(", ")}`));
    const grade = given.score === null ? "none" : given.score >= 0.5 ? "high" : "low";
    top.append(who, make("span", `score ${grade}`, given.score === null ? "unscored" : given.score.toFixed(2)));
    box.append(top);
    given.turns.forEach((turn, place) => {
      if (given.turns.length > 1) box.append(make("div", "role", `turn ${place + 1}`));
      box.append(make("div", "text", turn));
    });
    box.append(make("div", "why", given.reason + (given.finish === "length" ? " · cut at the most tokens" : "")));
    return box;
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
