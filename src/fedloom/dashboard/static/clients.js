// The table of clients, a page of it at a time, sorted and searched by the server.
import { $, bytes, figure, fill, make } from "./elements.js";

const HEADS = [["name", "Client"], ["state", "State"], ["loss", "Loss"], ["contributions", "Sent"], ["dropouts", "Gone"],
  ["refused", "Refused"], ["epsilon", "Epsilon"], ["anomaly", "Anomaly"], ["bytes", "Bytes"]];
const LIMIT = 25;
const page = { sort: "name", descending: false, search: "", offset: 0 };
let asked = { run: null, act: null };
let waiting = false, again = false;

export async function refresh(run = asked.run, act = asked.act) {
  asked = { run, act };
  if (waiting) { again = true; return; }
  waiting = true;
  try {
    const answer = await fetch(`/api/runs/${encodeURIComponent(run)}/clients?${new URLSearchParams({ ...page, limit: LIMIT })}`);
    if (answer.ok && run === asked.run) draw(await answer.json());
  } catch { /* the line of the page's status says that the server is gone */ }
  waiting = false;
  if (again) { again = false; setTimeout(refresh, 800); }
}

export async function names(run) {
  const found = [];
  for (let offset = 0, total = 1; offset < total; offset += 100) {
    const answer = await (await fetch(`/api/runs/${encodeURIComponent(run)}/clients?limit=100&offset=${offset}`)).json();
    total = answer.total;
    found.push(...answer.rows.filter((row) => row.state !== "excluded").map((row) => row.name));
  }
  return found;
}

function draw({ total, offset, rows }) {
  const focused = document.activeElement?.dataset?.key;
  const table = $("clients");
  const empty = (key) => ["epsilon", "anomaly"].includes(key) && rows.every((row) => row[key] === null);
  const heads = HEADS.filter(([key]) => !empty(key));
  fill(table, make("thead", {}, make("tr", {}, ...heads.map(head), make("th", {}, "Ask"))),
    make("tbody", {}, ...rows.map((row) => line(row, heads))));
  fill($("shown"), total ? `${offset + 1} to ${offset + rows.length} of ${total}` : "none");
  $("earlier").disabled = offset === 0;
  $("later").disabled = offset + rows.length >= total;
  if (focused) table.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function head([key, word]) {
  const sorted = page.sort === key ? (page.descending ? "descending" : "ascending") : "none";
  const arrow = { none: "", ascending: " ↑", descending: " ↓" }[sorted];
  const turn = () => { Object.assign(page, { descending: page.sort === key && !page.descending, sort: key, offset: 0 }); refresh(); };
  return make("th", { "aria-sort": sorted, class: key === "name" || key === "state" ? null : "figure" },
    make("button", { "data-key": `sort-${key}`, onclick: turn }, word + arrow));
}

function line(row, heads) {
  const out = row.state === "excluded";
  const cells = heads.slice(1).map(([key]) => {
    if (key === "state") return make("td", { class: `state-${row.state}`, title: row.why }, row.state);
    return make("td", { class: "figure" }, key === "bytes" ? bytes(row.bytes) : figure(row[key]));
  });
  const word = out ? "readmit" : "exclude";
  const ask = make("button", { "data-key": `ask-${row.name}`, "aria-label": `${word} ${row.name}`, onclick: () => asked.act(word, row.name) }, out ? "Readmit" : "Exclude");
  return make("tr", {}, make("th", { scope: "row" }, row.name), ...cells, make("td", {}, ask));
}

$("search").addEventListener("input", () => { Object.assign(page, { search: $("search").value, offset: 0 }); refresh(); });
$("earlier").addEventListener("click", () => { page.offset = Math.max(0, page.offset - LIMIT); refresh(); });
$("later").addEventListener("click", () => { page.offset += LIMIT; refresh(); });
