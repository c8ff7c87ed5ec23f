"""The report in English."""

from __future__ import annotations

from collections.abc import Sequence

from fedloom.report.lang.english_decisions import DECISIONS
from fedloom.report.lang.language import Language
from fedloom.report.units import ENGLISH_CLOCK

FIGURES: dict[str, str] = {
    "part.figures": "All figures, for engineers",
    "header.parts": "Parts of this report",
    "header.model": "{model} ({task})",
    "header.typed": "{task}, {dtype}",
    "header.method": "method {method}",
    "header.rounds.one": "{done} of {count} round",
    "header.rounds.other": "{done} of {count} rounds",
    "header.finished": "finished",
    "header.unfinished": "not finished",
    "header.started": "Started {date}",
    "footer": "Written by {by}. This file fetches nothing from any network.",
    "footer.unknown": "The journal holds records of kinds that this version does not know: {counted}.",
    "task.generation": "generation",
    "task.classification": "classification",
    "task.image-classification": "image-classification",
    "count.client.one": "{count} client",
    "count.client.other": "{count} clients",
    "count.round.one": "{count} round",
    "count.round.other": "{count} rounds",
    "count.event.one": "{count} event",
    "count.event.other": "{count} events",
    "count.thread.one": "{count} thread",
    "count.thread.other": "{count} threads",
    "more": "{count} more",
    "range": "{low} to {high}",
    "client": "client",
    "everyone": "all clients",
    "loss": "loss",
    "round": "round",
    "round.number": "round {round}",
    "time": "time",
    "seconds": "seconds",
    "training": "training",
    "training.loss": "training loss",
    "up": "up",
    "down": "down",
    "digest": "digest",
    "stage.base": "base",
    "stage.alone": "alone",
    "stage.federated": "federated",
    "score.rouge1": "ROUGE-1",
    "score.accuracy": "Accuracy",
    "per.token": "token",
    "per.text": "text",
    "per.image": "image",
    "unit.tokens": "tokens",
    "unit.images": "images",
    "per.second": "{unit}/s",
    "chart.numbers": "The numbers",
    "chart.script": "Charts need JavaScript; their numbers are in the tables.",
    "chart.each": "each client",
    "chart.highest": "{name} (highest)",
    "chart.lowest": "{name} (lowest)",
    "result": "Result",
    "result.loss": "loss {stage}",
    "result.chart": "Held-out loss by client",
    "result.chart.says": "Loss on rows that nobody trained on, in nats per {per}; further left is better.",
    "result.better": "Bold with a star: the better of alone (this client's rows only, same steps) and federated.",
    "result.unfinished": "The run has not finished: federated is the model after round {round}.",
    "result.incomplete": "Not measured by all, {stages}.",
    "result.measured": "{stage}: {count} of {all} clients",
    "personal.whose": "Federated: each client is measured with its own model, as {method} makes no global one.",
    "personal.without": "{clients} took no part: the base model.",
    "gain.than": "{client} ({own}, alone {alone})",
    "gain.not": "Not better than alone, by the loss of its own model: {clients}.",
    "gain.all": "Every client that measured both ({count}) is better than alone, by the loss of its own model.",
    "curves": "Round by round",
    "curves.loss": "Held-out loss by round",
    "curves.loss.says": "Round 0 is the base model.",
    "curves.score": "{score} by round",
    "curves.score.says": "In percent, on rows that nobody trained on; higher is better.",
    "curves.training": "Training loss by round",
    "curves.training.says": "Mean over a client's steps of the round, on its own training rows.",
    "clients": "Clients",
    "clients.facts": "Rank, rows and rounds of each client",
    "client.rank": "rank",
    "client.scaling": "scaling",
    "client.train": "training rows",
    "client.held-out": "held-out rows",
    "client.dropped": "dropped rows",
    "client.rounds": "rounds",
    "client.refused": "refused",
    "client.dropouts": "dropped out",
    "bytes.chart": "Bytes by client",
    "bytes.chart.says": "Over the whole run: up is what the client sent, down what it got.",
    "bytes.up": "bytes up",
    "bytes.down": "bytes down",
    "time.chart": "Training time by client",
    "time.chart.says": "Over the whole run: seconds in which the client trained, without waiting and transfer.",
    "rounds": "Rounds",
    "rounds.asked": "took part",
    "rounds.accepted": "accepted",
    "rounds.uncommitted": "not committed",
    "settings": "Settings",
    "settings.all": "All settings of the experiment",
    "setting": "setting",
    "value": "value",
    "adapter": "adapter",
    "base": "base model",
    "base.digest": "digest of the base",
    "modules": "modules with factors",
    "versions": "versions",
    "threads": "threads",
    "privacy": "Privacy",
    "privacy.spent": "Privacy spent",
    "privacy.client": (
        "The promise is about each client as a whole, and the server keeps it: it clips what each one changed and "
        "adds noise to the sum of a round. Epsilon counts every round."
    ),
    "privacy.shared": (
        "The promise is about each client as a whole, and the clients keep it together: each clips its own change and "
        "adds its share of the noise before it is masked. Epsilon counts every sum that was opened."
    ),
    "privacy.example": (
        "The promise is about each example that a client trains on. Epsilon counts every release since the "
        "client's ledger began."
    ),
    "privacy.bound": "Reckoned by the bound {bound}.",
    "privacy.open": (
        "Measurements on held-out rows, numbers of rows and class names are sent as they are and are not covered."
    ),
    "privacy.canaries": (
        "Canaries: {count} made-up rows are planted at each client for fedloom audit-privacy; a coin decides for "
        "each whether it is trained on, as one of the client's rows, and no measurement on held-out rows has any."
    ),
    "spent.client": "client",
    "spent.round": "round",
    "spent.releases": "releases",
    "spent.sampling-rate": "sampling rate",
    "spent.noise-multiplier": "noise multiplier",
    "spent.norm": "norm",
    "spent.epsilon": "epsilon",
    "spent.delta": "delta",
    "similar": "Who resembles whom",
    "similar.chart": "Cosines between clients' own adapters",
    "similar.chart.says": (
        "1: the same direction, 0: nothing in common, −1: opposite. The tree joins who is alike, the closest first."
    ),
    "similar.shares": "Who weighs how much in whose rest of the world",
    "similar.shares.says": (
        "After round {round}. The rest of the world is the mean of the others; a share is how much one of them "
        "makes up. A row adds up to 100%; below 0, a client pulls away from what the others agree on."
    ),
    "similar.share": "share",
    "similar.joins": "joins",
    "similar.with": "with",
    "similar.mean": "mean cosine",
    "similar.most": "most like",
    "similar.least": "least like",
    "similar.cosine": "cosine",
    "similar.of": "of {client}",
    "similar.from": "most of it from",
    "similar.lender": "{client} from {lender} ({share})",
    "similar.mostly": "Borrows mostly from one other: {clients}.",
    "similar.spread": "No other makes up half of the rest of the world of {clients}.",
    "similar.none": "The others left nothing to borrow for {clients}: there is none, or they cancel out.",
    "heat.middle": "cosine 0",
    "heat.joined": "{left} with {right}: {cosine}",
    "heat.group": "{name} and {count} more",
}


def _joined(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


ENGLISH = Language(
    code="en",
    messages=FIGURES | DECISIONS,
    clock=ENGLISH_CLOCK,
    moment="{year}-{month}-{day} {clock} UTC",
    joined=_joined,
    money_form="{currency} {amount}",
    currencies={},
    between=" ",
)
