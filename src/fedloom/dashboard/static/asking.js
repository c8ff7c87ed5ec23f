// The dialog in front of everything that changes a run. One dialog is one wish: its id is made when it opens.
import { $, fill, make } from "./elements.js";

const WORDS = {
  pause: ["Pause the run?", "No further round begins until it is resumed; the round in progress is finished first."],
  continue: ["Resume the run?", "The paused run goes on with the next round."],
  stop: ["Stop after this round?", "The run ends with its final evaluation, adapter and report."],
  rollback: ["Roll back?", "Later rounds are moved away, not deleted; what was spent of privacy stays spent."],
  exclude: ["Exclude a client?", "It is not drawn any more, until it is readmitted. What it gave so far stays."],
  readmit: ["Readmit a client?", "It may be drawn again."],
};
let wish = null;

const fresh = () => `page-${[...crypto.getRandomValues(new Uint8Array(12))].map((each) => each.toString(16).padStart(2, "0")).join("")}`;

// view(): what the page shows.  clients(): the names to choose from.
export async function open(action, run, view, clients, chosen = null) {
  const [title, text] = WORDS[action];
  const latest = view().run.latest;
  wish = { action, run, view, seen: latest, id: fresh() };
  fill($("dialog-title"), title);
  fill($("dialog-text"), `${text} The last committed round is ${latest}.`);
  const about = action === "exclude" || action === "readmit";
  $("dialog-client-label").hidden = !about;
  $("dialog-to-label").hidden = action !== "rollback";
  $("dialog-reason-label").hidden = !["exclude", "rollback", "stop"].includes(action);
  $("dialog-reason").value = "";
  $("dialog-error").hidden = true;
  $("dialog-yes").disabled = false;
  $("dialog-to").max = Math.max(0, latest - 1);
  $("dialog-to").value = Math.max(0, latest - 1);
  if (about) {
    const names = chosen ? [chosen] : action === "readmit" ? Object.keys(view().excluded) : await clients();
    fill($("dialog-client"), ...names.map((name) => make("option", { value: name }, name)));
  }
  $("dialog").showModal();
}

async function confirm() {
  const { action, run, seen, id } = wish;
  const body = { id, action, seen };
  if (!$("dialog-client-label").hidden) body.client = $("dialog-client").value;
  if (!$("dialog-to-label").hidden) body.to = $("dialog-to").valueAsNumber;
  if (!$("dialog-reason-label").hidden && $("dialog-reason").value.trim()) body.reason = $("dialog-reason").value.trim();
  $("dialog-yes").disabled = true;
  const [ok, said] = await send(run, body);
  if (ok) {
    fill($("said"), said);
    $("dialog").close();
    return;
  }
  fill($("dialog-error"), said);
  $("dialog-error").hidden = false;
  // What is confirmed now is a new wish, of what the page shows now.
  wish = { ...wish, id: fresh(), seen: wish.view().run.latest };
  fill($("dialog-text"), `${WORDS[action][1]} The last committed round is ${wish.seen}.`);
  $("dialog-yes").disabled = false;
}

async function send(run, body) {
  try {
    const answer = await fetch(`/api/runs/${encodeURIComponent(run)}/requests`, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    const text = await answer.text();
    if (!answer.ok) return [false, text.startsWith("{") ? JSON.parse(text).error : text];
    const what = body.client ? `${body.action} ${body.client}` : body.action;
    return [true, JSON.parse(text).done ? `Done: ${what}.` : `Asked: ${what}. The run does it when the round that it is in is committed.`];
  } catch {
    return [false, "The dashboard does not answer: is `fedloom dashboard` still running? Nothing is known to have been asked."];
  }
}

$("dialog-yes").addEventListener("click", confirm);
$("dialog-no").addEventListener("click", () => $("dialog").close());
$("dialog").querySelector("form").addEventListener("submit", (event) => { event.preventDefault(); if (!$("dialog-yes").disabled) confirm(); });
