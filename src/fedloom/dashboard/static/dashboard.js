// The page of one run: opens its events, keeps what they say, and draws what changed.
import { $, bytes, figure, fill, make, span } from "./elements.js";
import { bars, lines, svg } from "./charts.js";
import { open } from "./asking.js";
import { names, refresh } from "./clients.js";

let view = null, run = null, source = null, due = false, resized = false;
let changed = new Set();

const act = (action, client = null) => open(action, run, () => view, () => names(run), client);

function watch(name) {
  source?.close();
  [run, view] = [name, null];
  document.title = `${name} · FedLoom`;
  fill($("title"), name);
  source = new EventSource(`/api/runs/${encodeURIComponent(name)}/events`);
  source.addEventListener("all", (event) => { view = JSON.parse(event.data); draw(Object.keys(view)); });
  source.addEventListener("delta", (event) => draw(apply(JSON.parse(event.data))));
  source.onerror = () => { fill($("status"), "the dashboard does not answer"); $("status").classList.remove("live"); };
}

function apply({ set, rows, gone }) {
  Object.assign(view, set);
  for (const [section, news] of Object.entries(rows)) {
    for (const key of gone[section]) delete view[section][key];
    Object.assign(view[section], news);
  }
  return [...Object.keys(set), ...Object.keys(rows)];
}

function draw(sections) {
  sections.forEach((each) => changed.add(each));
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    const now = changed;
    changed = new Set();
    summary();
    if (now.has("rounds") || now.has("lines")) curves();
    if (now.has("rounds")) rounds();
    if (now.has("alerts") || now.has("alert_counts")) alerts();
    if (now.has("similarity")) shares();
    if (now.has("run") || now.has("states") || now.has("excluded")) refresh(run, act);
    document.documentElement.dataset.records = view.run.records;
    document.documentElement.dataset.read = view.file.read;
  });
}

function status() {
  const { run: about, file } = view;
  if (file.read < 1 && !file.problem) return ["reading", `reading the journal: ${Math.floor(100 * file.read)}%`];
  if (file.driven && about.paused) return ["paused", "paused"];
  if (about.end === "run_finished") return ["finished", "finished"];
  if (file.driven) return ["live", "in progress"];
  return about.end ? ["stopped", "stopped"] : ["idle", "not in progress"];
}

function summary() {
  const { run: about, now, totals, states, file, asked, excluded } = view;
  const [kind, words] = status();
  fill($("status"), words);
  $("status").classList.toggle("live", kind === "live");
  const when = about.started ? `, began ${about.started.slice(0, 16).replace("T", " ")} UTC` : "";
  fill($("facts"), `${about.method ?? ""} · ${about.base ?? ""} · ${about.task ?? ""}${when}`);
  $("problem").hidden = !file.problem;
  fill($("problem"), file.problem ?? "");
  if (asked.length) fill($("said"), `Waiting for the end of the round: ${asked.join(", ")}.`);
  else if ($("said").textContent.startsWith("Waiting")) fill($("said"), "");
  tiles(about, file.driven ? now : null, totals);
  fill($("states"), ...Object.entries(states).filter(([, count]) => count).map(([state, count]) =>
    make("span", { class: `state-${state}` }, make("b", {}, count), ` ${state}`)));
  const possible = { pause: file.driven && !about.paused, continue: file.driven && about.paused, stop: file.driven,
    rollback: about.latest > 0, exclude: about.clients > 0, readmit: Object.keys(excluded).length > 0 };
  document.querySelectorAll("[data-action]").forEach((button) => { button.disabled = !possible[button.dataset.action]; });
}

function tiles(about, now, totals) {
  const last = view.rounds[about.latest] ?? {};
  const shown = [
    [`${about.latest} of ${about.planned ?? "?"}`, "rounds committed"],
    [figure(last.loss), "pooled loss after them"],
    now && [`${now.answered} of ${now.participants}`, `answered in round ${now.round}`],
    now && [span(now.seconds_left), "left of this round, about"],
    now && [span(now.run_seconds_left), "left of the run, about"],
    [bytes(totals.bytes_up), "from clients"],
    [bytes(totals.bytes_down), "to clients"],
    totals.peak_memory_bytes && [bytes(totals.peak_memory_bytes), "peak memory of the run"],
    totals.epsilon !== null && [figure(totals.epsilon), `epsilon spent, most: ${totals.epsilon_client}`],
    totals.release && [figure(totals.release.epsilon), "epsilon spent, of every client"],
    last.gate && [last.gate, "the gate, last round"],
  ];
  fill($("tiles"), ...shown.filter(Boolean).map(([value, words]) => make("div", { class: "tile" }, make("b", {}, value), make("span", {}, words))));
}

const byRound = () => Object.entries(view.rounds).map(([number, row]) => [Number(number), row]).sort((one, other) => one[0] - other[0]);

function curves() {
  const rows = byRound();
  const few = Object.keys(view.lines).length === view.run.clients;
  const band = few ? [] : rows.filter(([, row]) => row.low !== null).map(([at, row]) => [at, row.low, row.high]);
  const ones = Object.entries(view.lines).map(([name, points], index) => ({ name, kind: `one c${index}`, points }));
  const pooled = { name: "pooled", kind: "pooled", points: rows.map(([at, row]) => [at, row.loss]) };
  lines($("loss-chart"), "Held-out loss by round; the table of rounds has its numbers", [...ones, pooled], band);
  fill($("loss-note"), few ? "By round, pooled and of each client." : "By round: pooled, the range of 80% of the clients, the lowest and highest three.");
  fill($("loss-legend"), ...[pooled, ...ones].map(({ name, kind }) => make("span", {},
    svg("svg", { viewBox: "0 0 28 10", "aria-hidden": "true" }, svg("path", { class: kind, d: "M0 5H28" })), name)));
  const scored = rows.filter(([, row]) => row.score !== null);
  fill($("score-title"), scored.length ? `Pooled ${scored[0][1].score_name.replace("rougeL", "ROUGE-L")}` : "Training loss");
  const points = scored.length ? scored.map(([at, row]) => [at, row.score]) : rows.map(([at, row]) => [at, row.training_loss]);
  lines($("score-chart"), `${$("score-title").textContent} by round`, [{ name: "pooled", kind: "pooled", points }]);
  bars($("bytes-chart"), "Megabytes up and down by round", rows.filter(([at]) => at > 0).map(([at, row]) => [at, (row.bytes_up + row.bytes_down) / 1e6]));
}

function rounds() {
  const heads = ["Round", "Loss", "10%", "90%", "Score", "Training loss", "Asked", "Sent", "Refused", "Gone", "Left out", "Gate", "Seconds", "Up", "Down"];
  const line = ([at, row]) => make("tr", {}, make("th", { scope: "row" }, row.committed || at === 0 ? at : `${at} (in progress)`),
    ...[row.loss, row.low, row.high, row.score, row.training_loss].map((value) => make("td", { class: "figure" }, figure(value))),
    ...[row.participants, row.contributed, row.refused, row.gone, row.dropped].map((value) => make("td", { class: "figure" }, value)),
    make("td", {}, row.gate ?? "–"), make("td", { class: "figure" }, figure(row.seconds)),
    make("td", { class: "figure" }, bytes(row.bytes_up)), make("td", { class: "figure" }, bytes(row.bytes_down)));
  const plain = (word) => make("th", { scope: "col", class: word === "Round" || word === "Gate" ? null : "figure" }, word);
  fill($("rounds"), make("thead", {}, make("tr", {}, ...heads.map(plain))), make("tbody", {}, ...byRound().reverse().map(line)));
}

function alerts() {
  const list = $("alerts");
  const known = new Map([...list.children].map((each) => [each.dataset.number, each]));
  for (const [number, node] of known) if (!(number in view.alerts)) node.remove();
  for (const [number, alert] of Object.entries(view.alerts)) {
    if (known.has(number)) continue;
    const where = [alert.round !== null ? `round ${alert.round}` : null, alert.client].filter(Boolean).join(", ");
    list.prepend(make("li", { "data-number": number }, make("b", {}, alert.kind.replaceAll("_", " ")),
      ` ${where}${alert.reason ? `: ${alert.reason}` : ""} `, make("span", { class: "soft" }, (alert.time ?? "").slice(11, 19))));
  }
  const counts = Object.entries(view.alert_counts).map(([kind, count]) => `${count} ${kind.replaceAll("_", " ")}`);
  fill($("alert-counts"), counts.length ? `So far: ${counts.join(", ")}.` : "Nothing out of the ordinary so far.");
}

function shares() {
  const found = view.similarity;
  $("mixing").hidden = !found;
  if (!found) return;
  fill($("mixing-note"), found.too_many ? `${found.too_many} clients in round ${found.round}: see fedloom report.` : `Round ${found.round}: how much each client (column) weighs in what a client (row) gets from the others.`);
  const names = found.clients ?? [];
  fill($("shares"), make("thead", {}, make("tr", {}, make("th", {}, ""), ...names.map((name) => make("th", { scope: "col", class: "figure" }, name)))),
    make("tbody", {}, ...names.map((name, row) => make("tr", {}, make("th", { scope: "row" }, name),
      ...found.shares[row].map((share) => make("td", { class: "figure" }, `${Math.round(100 * share)}%`))))));
}

async function begin() {
  const answer = await fetch("/api/runs");
  if (!answer.ok) { fill($("status"), await answer.text()); return; }
  const runs = await answer.json();
  fill($("run"), ...runs.map((name) => make("option", { value: name }, name)));
  $("runs").hidden = runs.length < 2;
  $("run").addEventListener("change", () => watch($("run").value));
  document.querySelectorAll("[data-action]").forEach((button) => button.addEventListener("click", () => act(button.dataset.action)));
  addEventListener("resize", () => { if (view && !resized) { resized = true; setTimeout(() => { resized = false; curves(); }, 150); } });
  watch(runs[0]);
}
begin();
