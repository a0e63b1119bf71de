"use strict";

// STUDY comes from explorer-data.js (bigrec_lib/study/explorer.py says what is in it). Titles and
// texts are put on the page as text and never as markup.

const GROUPS = ["the rarest fifth", "the second fifth", "the third fifth", "the fourth fifth",
                "the most popular fifth"];
const WEIGHTS = {
  "popularity": "popularity in the samples learnt",
  "popularity-all": "popularity in all training data",
  "collaborative": "the scores of a conventional model",
};
const FURTHER = ["grounding", "unseen", "compared", "cheaper", "last"]; // kinds of methods
const CHOSEN = "chosen on validation";
const K = STUDY.k;
const $ = (id) => document.getElementById(id);
const state = { dataset: 0, seed: 0, method: "bigrec", weights: "", step: 0, example: 0 };

// ------------------------------------------------------------------------------- the numbers

const ARRAYS = { B: Uint8Array, H: Uint16Array, I: Uint32Array, d: Float64Array };
const kept = new Map();

function unpacked(text) {
  if (!kept.has(text)) {
    const bytes = Uint8Array.from(atob(text.slice(1)), (letter) => letter.charCodeAt(0));
    kept.set(text, new ARRAYS[text[0]](bytes.buffer));
  }
  return kept.get(text);
}

const hr = (rank) => (rank < K ? 1 : 0);
const ndcg = (rank) => (rank < K ? 1 / Math.log2(rank + 2) : 0);
const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

function data() {
  return STUDY.datasets[state.dataset];
}

function seed() {
  return data().seeds[state.seed];
}

function explored() { // D̂ and W are published for one seed
  return seed().seed === data().again.seed;
}

function kindsOfWeights() {
  return Object.keys(data().again.gammas);
}

function weightsOf(method) { // what a method injects into BIGRec: null for another method
  if (method === "bigrec") return "";
  const injected = method.startsWith("bigrec+") ? method.slice(7) : null;
  return kindsOfWeights().includes(injected) ? injected : null;
}

function live() { // whether γ moves what is shown
  return explored() && weightsOf(state.method) !== null;
}

function published(method, example) { // rank and ties of the truth
  const pair = seed().ranks[method];
  return pair && { rank: unpacked(pair[0])[example], ties: unpacked(pair[1])[example] };
}

function atGamma(example, step) { // the same at a γ, counted over the whole catalogue
  const of = data().again.examples[example].weights[state.weights];
  const now = (steps) => steps[Math.min(step, steps.length - 1)]; // one: it is always that
  return { rank: now(unpacked(of.rank)), ties: now(unpacked(of.ties)) };
}

function pullsOf(example) { // log(1 + W) of the contenders
  const { pulls, examples } = data().again, of = examples[example];
  if (!(state.weights in pulls)) return unpacked(of.weights[state.weights].pulls);
  const shared = unpacked(pulls[state.weights]); // the same for everybody, by title
  return Array.from(unpacked(of.titles), (title) => shared[title]);
}

const effective = (place) => place.rank + place.ties / 2;
const isHit = (example) => hr(effective(published(state.method, example))) === 1;

// The first K at a γ: log D̂ - γ log(1 + W) in fp64, as method/reweighting.py has it. Contenders
// are in the order of the catalogue and the sort is stable, so ties fall as they do there.
function firstAt(example, step) {
  const of = data().again.examples[example];
  const titles = unpacked(of.titles), logs = unpacked(of.logs), pulls = pullsOf(example);
  const gamma = STUDY.gammas[step];
  const rows = Array.from(titles, (title, i) => {
    const hat = Math.exp(logs[i]), key = logs[i] - gamma * pulls[i];
    return { title, key, hat, distance: of.low + hat * (of.high - of.low),
             weight: Math.expm1(pulls[i]), pulled: Math.exp(key) };
  });
  return rows.sort((a, b) => (a.key === b.key ? 0 : a.key - b.key)).slice(0, K);
}

function metricsAt(step, examples) {
  const places = examples.map((example) => effective(atGamma(example, step)));
  return { hr: mean(places.map(hr)), ndcg: mean(places.map(ndcg)) };
}

// ------------------------------------------------------------------------------- the filters

function matches(example, outcome = $("outcome").value) {
  const row = data().examples[example];
  const count = unpacked(data().counts)[row.target];
  const group = unpacked(data().groups)[row.target];
  const share = row.continuity === 0 ? "none" : row.continuity < 0.5 ? "some" : "most";
  const wanted = (id, value) => $(id).value === "" || $(id).value === value;
  return (outcome === "" || (outcome === "hit") === isHit(example))
    && wanted("popularity", String(group))
    && wanted("cold", count ? "warm" : "cold")
    && wanted("continuity", share)
    && holds(example, $("sought").value);
}

function holds(example, sought) { // whether history, truth and beams have all words sought
  const { target, history } = data().examples[example];
  const titles = [target, ...history].map((title) => data().titles[title]);
  const texts = seed().beams[example].map(([text]) => text);
  const all = [...titles, ...texts].join("\n").toLowerCase();
  return sought.toLowerCase().split(/\s+/).every((word) => all.includes(word));
}

function matching(outcome) {
  return data().examples.map((_, example) => example)
    .filter((example) => matches(example, outcome));
}

function pick(examples, nothing) { // one of them at random, with the outcome no longer filtered
  if (!examples.length) {
    $("status").textContent = nothing;
    return;
  }
  const others = examples.filter((example) => example !== state.example);
  const from = others.length ? others : examples;
  const cleared = $("outcome").value !== "";
  $("outcome").value = "";
  state.example = from[Math.floor(Math.random() * from.length)];
  show();
  if (cleared) $("status").textContent += " The filter by outcome was taken off.";
}

function collapsed() { // those for whom the LLM wrote what it wrote most often
  const often = unpacked(seed().often), examples = matching("");
  const most = Math.max(...examples.map((example) => often[example]));
  return most > 1 ? examples.filter((example) => often[example] === most) : [];
}

// ------------------------------------------------------------------------------- elements

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function words(text) { // a title or another text: as it is, in its own direction
  const made = element("bdi", text);
  made.dir = "auto";
  return made;
}

function titleCell(title, ...tags) {
  const cell = element("td", "", "text");
  cell.append(words(data().titles[title]), ...tags.map((tag) => element("span", tag, "tag")));
  return cell;
}

function row(className, ...cells) {
  const made = element("tr", "", className);
  made.append(...cells.map((cell) => (cell instanceof Node ? cell : element("td", cell))));
  return made;
}

function header(text) {
  const made = element("th", text);
  made.scope = "row";
  return made;
}

function fill(select, options, chosen) { // options: pairs of value and text
  $(select).replaceChildren(...options.map(([value, text]) => {
    const made = element("option", text);
    made.value = value;
    return made;
  }));
  $(select).value = String(chosen);
}

const grouped = (count) => count.toLocaleString("en");

function small(number) { // D̂, W and D̃, which may be tiny
  if (number === 0) return "0";
  return number < 0.0001 ? number.toExponential(2) : number.toFixed(4);
}

function placeSentence(place) {
  const stand = place.rank === 1 ? "title stands" : "titles stand";
  const tie = place.ties ? `, and ${grouped(place.ties)} tie with it` : "";
  return `${grouped(place.rank)} ${stand} before the truth${tie}`;
}

function placeText(place) {
  return grouped(place.rank) + (place.ties ? ` + ${grouped(place.ties)} tied` : "");
}

// ------------------------------------------------------------------------------- the page

function show() {
  showChoices();
  showExample();
  showBeams();
  showList();
  showRanks();
  remember();
}

function showChoices() {
  const of = data(), found = matching();
  fill("dataset", STUDY.datasets.map((each, i) => [i, each.name]), state.dataset);
  fill("seed", of.seeds.map((each, i) => [i, each.seed]), state.seed);
  fill("method", of.methods.filter(([name]) => seed().ranks[name]), state.method);
  const listed = found.includes(state.example) ? found : [state.example, ...found];
  fill("example", listed.map((example) => {
    const { number, target } = of.examples[example];
    return [example, `${number}: \u2068${of.titles[target]}\u2069`];
  }), state.example);
  const at = found.indexOf(state.example);
  $("previous").disabled = $("next").disabled = found.length < 2;
  $("status").textContent = !found.length
    ? "No example matches: choose “any” somewhere."
    : `${found.length} of ${of.examples.length} examples match`
      + (at < 0 ? "; this is another one." : `; this is number ${at + 1}.`);
  $("drawn").textContent = of.examples.length === of.n_test
    ? `All ${grouped(of.n_test)} test examples are here.`
    : `Here are the ${of.examples.length} that were drawn first, at random, of `
      + `${grouped(of.n_test)} test examples.`;
}

function showExample() {
  const of = data(), example = of.examples[state.example];
  $("history").replaceChildren(...example.history.map((title) => {
    const item = element("li");
    item.append(words(of.titles[title]));
    return item;
  }));
  $("then").textContent = `Then user ${example.user} ${of.words}`;
  $("truth").textContent = of.titles[example.target];
  const count = unpacked(of.counts)[example.target];
  $("truth-facts").textContent =
    `${count ? `${grouped(count)} times in training` : "Never in training (cold)"}; among `
    + `${GROUPS[unpacked(of.groups)[example.target]]} of titles; `
    + `${Math.round(100 * example.continuity)} % of its words are in the history.`;
  $("prompt").textContent = of.prompt[0] + example.prompt + of.prompt[1];
}

function showBeams() {
  const exact = explored() && data().again.examples[state.example].low === 0;
  $("beams").replaceChildren(...seed().beams[state.example].map(([text, score], beam) => {
    const cell = element("td", "", "text");
    cell.append(words(text));
    if (beam === 0) cell.append(element("span", exact ? "grounded: a title" : "grounded", "tag"));
    return row("", header(beam + 1), cell, score.toFixed(4));
  }));
  const often = unpacked(seed().often)[state.example];
  $("often").textContent = often === 1
    ? `Of the ${grouped(data().n_test)} test examples no other has this first text.`
    : `The same first text was written for ${grouped(often)} of the ${grouped(data().n_test)} `
      + "test examples.";
}

function showList() {
  const label = new Map(data().methods).get(state.method);
  $("live").hidden = $("formula").hidden = !live();
  if (live()) {
    const kinds = kindsOfWeights().map((name) => [name, WEIGHTS[name] ?? name]);
    fill("weights", kinds, state.weights);
    $("gamma").max = STUDY.gammas.length - 1;
    $("gamma").value = state.step;
    $("chosen").textContent = `γ = ${data().again.gammas[state.weights]}, ${CHOSEN}`;
    $("list-title").textContent = "The first 20 titles of BIGRec";
    showGamma();
    return;
  }
  $("list-title").textContent = `The first 20 titles of ${label}`;
  const shown = seed().lists[state.method];
  const place = published(state.method, state.example);
  const why = weightsOf(state.method) === null || explored() ? ""
    : ` Distances, and γ, are published for seed ${data().again.seed}.`;
  $("place").textContent = `${placeSentence(place)}.${why}`;
  if (!shown) {
    $("list-head").replaceChildren();
    $("titles").replaceChildren(row("", element("td", "Its lists are not part of this page.", "text")));
    return;
  }
  heads(["", "Title"]);
  const all = unpacked(shown), width = all.length / data().examples.length;
  const titles = [...all.slice(state.example * width, (state.example + 1) * width)];
  $("titles").replaceChildren(...titles.map((title, place) =>
    row(rowClass(title), header(place + 1), titleCell(title, ...tags(title)))));
}

function showGamma() { // what follows γ
  const gamma = STUDY.gammas[state.step];
  $("gamma-value").textContent = gamma;
  $("gamma").setAttribute("aria-valuetext", `γ = ${gamma}`);
  const now = atGamma(state.example, state.step), plain = atGamma(state.example, 0);
  $("place").textContent = placeSentence(now)
    + (state.step ? `; at γ = 0, ${placeText(plain)}.` : ".");
  heads(["", "Title", "D", "D̂, scaled", "W", "D̃, adjusted", "at γ = 0"]);
  const before = firstAt(state.example, 0).map((each) => each.title);
  $("titles").replaceChildren(...firstAt(state.example, state.step).map((each, place) => {
    const was = before.indexOf(each.title);
    return row(rowClass(each.title), header(place + 1),
      titleCell(each.title, ...tags(each.title)), each.distance.toFixed(4),
      element("td", small(each.hat), "hat"), small(each.weight), small(each.pulled),
      element("td", was < 0 ? `after ${K}` : String(was + 1), "was"));
  }));
  showMetrics();
}

function heads(names) {
  const classes = { 1: "text", 3: "hat", 6: "was" };
  const cells = names.map((name, i) => {
    const made = element(name ? "th" : "td", name, classes[i]);
    if (name) made.scope = "col";
    return made;
  });
  $("list-head").replaceChildren(row("", ...cells));
}

function rowClass(title) {
  return title === data().examples[state.example].target ? "true" : "";
}

function tags(title) {
  const { target, history } = data().examples[state.example];
  const known = { truth: title === target, "in history": history.includes(title) };
  return Object.keys(known).filter((tag) => known[tag]);
}

function showMetrics() { // of the examples that the filters let through
  const examples = matching(), best = data().again.gammas[state.weights];
  const chosen = STUDY.gammas.indexOf(best);
  $("metric-of").textContent = `mean of ${examples.length} examples`;
  const steps = [...new Set([state.step, 0, chosen])];
  $("metrics").replaceChildren(...steps.map((step) => {
    const name = `γ = ${STUDY.gammas[step]}` + (step === chosen ? `, ${CHOSEN}` : "");
    const at = examples.length ? metricsAt(step, examples) : { hr: NaN, ndcg: NaN };
    const text = (value) => (Number.isNaN(value) ? "–" : value.toFixed(4));
    return row("", header(name), text(at.hr), text(at.ndcg));
  }));
  drawCurve(examples, chosen);
}

function drawCurve(examples, chosen) {
  const last = STUDY.gammas.length - 1;
  const values = examples.length ? STUDY.gammas.map((_, i) => metricsAt(i, examples).ndcg) : [];
  const top = Math.max(...values, 1e-9);
  const x = (step) => 6 + (308 * step) / last, y = (value) => 74 - (60 * value) / top;
  const node = (name, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };
  const line = (step, className) =>
    node("path", { d: `M${x(step)} 12V74`, class: className });
  const label = (step, text, anchor) =>
    node("text", { x: x(step), y: 87, "text-anchor": anchor }, text);
  const one = STUDY.gammas.indexOf(1);
  const parts = [node("path", { d: "M6 74H314", class: "axis" }), label(0, "γ = 0", "start"),
                 label(last, STUDY.gammas[last], "end"), line(chosen, "best"),
                 node("text", { x: 6, y: 9 }, `NDCG@20, up to ${top.toFixed(4)}`)];
  if (one > 0) parts.push(label(one, "1", "middle"));
  if (values.length) {
    const points = values.map((value, i) => `${x(i).toFixed(1)} ${y(value).toFixed(1)}`);
    parts.push(node("path", { d: `M${points.join("L")}` }),
               node("circle", { cx: x(state.step), cy: y(values[state.step]), r: 4 }));
  }
  $("curve").replaceChildren(...parts);
  $("curve").setAttribute("aria-label",
    `NDCG@20 over γ, from 0 to ${STUDY.gammas[last]}; ${STUDY.gammas[chosen]} was ${CHOSEN}`);
}

function showRanks() {
  const of = data();
  $("candidates").textContent = grouped(of.candidates);
  const rows = { ranks: [], "further-ranks": [] };
  for (const [name, label, kind] of of.methods) {
    const place = published(name, state.example);
    const table = FURTHER.includes(kind) ? "further-ranks" : "ranks";
    if (place) rows[table].push(rankRow(name, label, place));
  }
  for (const [id, made] of Object.entries(rows)) $(id).replaceChildren(...made);
  $("further").hidden = !rows["further-ranks"].length;
}

function rankRow(name, label, place) {
  const bar = element("span", "", "bar"), cell = element("td", "", "bars");
  bar.style.width = `${(100 * Math.log1p(effective(place))) / Math.log(data().candidates)}%`;
  cell.append(bar);
  const hit = hr(effective(place)) ? "hit" : "", chosen = name === state.method ? "chosen" : "";
  return row(`${hit} ${chosen}`.trim(), header(label), placeText(place), cell);
}

// ------------------------------------------------------------------------------- what is chosen

function stepOf(gamma) {
  return Math.max(0, STUDY.gammas.indexOf(gamma));
}

function chooseMethod(method) {
  state.method = seed().ranks[method] ? method : data().methods[0][0];
  const injected = weightsOf(state.method);
  if (injected) state.weights = injected;
  if (!kindsOfWeights().includes(state.weights)) state.weights = kindsOfWeights()[0];
  state.step = injected ? stepOf(data().again.gammas[injected]) : 0;
}

function chooseDataset(number) {
  state.dataset = number;
  const main = data().seeds.findIndex((each) => each.seed === data().again.seed);
  state.seed = Math.max(0, main);
  state.example = 0;
  chooseMethod(state.method);
}

function remember() { // the address says what is shown, to be passed on
  const shown = { data: data().name, seed: seed().seed, method: state.method,
                  example: data().examples[state.example].number };
  if (live()) Object.assign(shown, { weights: state.weights, gamma: STUDY.gammas[state.step] });
  history.replaceState(null, "", `#${new URLSearchParams(shown)}`);
}

function recall() { // what the address asks for, as far as it is there
  const asked = new URLSearchParams(location.hash.slice(1));
  const position = (list, test) => Math.max(0, list.findIndex(test));
  chooseDataset(position(STUDY.datasets, (each) => each.name === asked.get("data")));
  if (asked.has("seed")) {
    state.seed = position(data().seeds, (each) => String(each.seed) === asked.get("seed"));
  }
  chooseMethod(asked.get("method") ?? "bigrec");
  const wanted = asked.get("example");
  state.example = position(data().examples, (each) => String(each.number) === wanted);
  if (kindsOfWeights().includes(asked.get("weights"))) state.weights = asked.get("weights");
  if (asked.has("gamma")) state.step = stepOf(Number(asked.get("gamma")));
}

function on(id, event, act) {
  $(id).addEventListener(event, () => {
    act($(id).value);
    show();
  });
}

function move(by) {
  const found = matching(), at = found.indexOf(state.example);
  const to = at < 0 ? 0 : (at + by + found.length) % found.length;
  if (found.length) state.example = found[to];
}

on("dataset", "change", (value) => chooseDataset(Number(value)));
on("seed", "change", (value) => { state.seed = Number(value); chooseMethod(state.method); });
on("method", "change", chooseMethod);
on("example", "change", (value) => { state.example = Number(value); });
on("weights", "change", (value) => { state.weights = value; });
on("zero", "click", () => { state.step = 0; });
on("chosen", "click", () => { state.step = stepOf(data().again.gammas[state.weights]); });
on("previous", "click", () => move(-1));
on("next", "click", () => move(1));
for (const id of ["outcome", "popularity", "cold", "continuity", "sought"]) {
  on(id, "input", () => {
    const found = matching();
    if (found.length && !found.includes(state.example)) state.example = found[0];
  });
}
$("gamma").addEventListener("input", () => {
  state.step = Number($("gamma").value);
  showGamma();
});
$("gamma").addEventListener("change", remember);
$("hit").addEventListener("click", () =>
  pick(matching("hit"), "This method hits none of these examples."));
$("miss").addEventListener("click", () =>
  pick(matching("miss"), "This method misses none of these examples."));
$("collapse").addEventListener("click", () =>
  pick(collapsed(), "No first text was written twice for these examples."));
$("controls").addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => { recall(); show(); });

// Light and dark: as on the pages of the site, and kept with theirs.
const root = document.documentElement;

function keptTheme() {
  try { return localStorage.getItem("theme"); } catch { return null; }
}

function setTheme(theme) {
  root.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
}

$("theme").addEventListener("click", () => {
  setTheme(root.dataset.theme === "dark" ? "light" : "dark");
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept */ }
});
setTheme(keptTheme()
  ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
recall();
show();
