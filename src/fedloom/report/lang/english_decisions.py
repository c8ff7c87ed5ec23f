"""The first part of the report in English: for those who decide."""

from __future__ import annotations

DECISIONS: dict[str, str] = {
    "part.decisions": "At a glance, for decisions",
    "tile.loss": "held-out loss",
    "tile.base": "base {value} ({change})",
    "tile.money": "cost",
    "tile.money.whole": "at the prices given",
    "tile.money.partly": "some prices are missing",
    "tile.traffic": "traffic",
    "tile.split": "{up} up, {down} down",
    "tile.time": "time",
    "tile.time.resumed": "time since the last resume",
    "tile.time.rounds": "{time} in rounds",
    "tile.memory": "peak memory",
    "learned": "What was learned",
    "learned.unknown": "Nothing can be said yet: the model was not measured both before and after on rows held out.",
    "learned.fell": "On {rows} rows that nobody trained on, the loss fell from {before} to {after}.",
    "learned.likely": (
        "In other words: per {per}, the tuned model finds the true answer {factor} times as probable as the base "
        "model did."
    ),
    "learned.nothing": "On {rows} rows that nobody trained on, the loss did not fall: {before} before, {after} after.",
    "learned.others": (
        "Before and after were not measured by the same clients, so the two losses are not of the same rows."
    ),
    "answers": "Before and after",
    "answers.before": "base model",
    "answers.after": "federated model",
    "answers.after.of": "federated model of {client}",
    "answers.empty": "(an empty answer)",
    "gain": "Gain over training alone",
    "gain.unmeasured": (
        "Not measured. With evaluation.baselines = true, each client is also trained alone, with the same steps, "
        "and stands here beside the federation."
    ),
    "gain.who": "{count} of {all} clients have a lower loss with the federation than alone.",
    "gain.without": "No gain for: {clients}.",
    "gain.chart": "Gain over training alone, by client",
    "gain.chart.says": (
        "Loss alone less loss with the federation, on the client's held-out rows. Above 0 (blue, to the right) "
        "the federation is better, below 0 (orange, to the left) training alone."
    ),
    "gain.alone": "loss alone",
    "gain.federated": "loss federated",
    "gain.difference": "gain",
    "cost": "Cost",
    "cost.says": (
        "Of all clients together, attempts that did not count and measurements included. Hours are those in which "
        "clients were busy; where the journal lacks them, those of training. The server's own machine is not in it."
    ),
    "cost.what": "what",
    "cost.amount": "amount",
    "cost.money": "money",
    "cost.hours": "client-hours",
    "cost.energy": "energy (hours × watts)",
    "cost.traffic": "traffic",
    "cost.total": "all that has a price",
    "cost.unpriced": (
        "No prices were given, so nothing is said in energy or money. {option} takes a file with a table {table}."
    ),
    "cost.missing": "Not in these sums, because {table} does not have it: {names}.",
    "further": "Is a further round worth it?",
    "further.unmeasured": (
        "Nothing can be said: the held-out loss was not measured after two rounds or more by the same clients."
    ),
    "further.last": "The last measured round ({round}) lowered the held-out loss by {gain}, to {loss}.",
    "further.rose": "The last measured round ({round}) raised the held-out loss by {gain}, to {loss}.",
    "further.few": (
        "No extrapolation: gains of {count} rounds are known, and fewer than {least} say nothing about the next."
    ),
    "further.worse": (
        "No extrapolation: in at least one of the last {window} measured rounds the loss did not fall. Look at "
        "the curve before more rounds are paid for."
    ),
    "further.steady": (
        "No extrapolation: the gains of the last {window} measured rounds do not shrink steadily. More rounds may "
        "gain more, but these figures cannot say how much."
    ),
    "further.next": "The next round may lower the loss by {gain}.",
    "further.all": "All further rounds together, however many, may lower it by {gain}.",
    "further.assumption": (
        "Assumption: each round gains a fixed share of the round before, here {percent}%, fitted to at most the "
        "last {window} gains. The range is what leaving out any one of them makes of it. Overfitting and other "
        "data are not foreseen."
    ),
    "further.cost": (
        "By the mean of the last {count} measured rounds, one round takes {hours} of clients' time and {bytes} of "
        "traffic."
    ),
    "further.money": "At the prices given that is {money} a round.",
    "further.price": "The next {step} of lower loss then costs {money}.",
    "further.gain": "gain of a round",
    "further.hours": "client-hours",
    "further.traffic": "traffic",
    "further.per.step": "per {step} of loss",
    "further.chart": "Gain of each round",
    "further.chart.says": (
        "By how much a round lowered the loss of all clients' held-out rows; below 0 it rose. The table has what "
        "a round cost."
    ),
    "promise": "Privacy",
    "promise.none": "No noise was added, so there is no formal promise of privacy.",
    "promise.client": "Of each client as a whole: epsilon {epsilon} at delta {delta} has been spent.",
    "promise.example": (
        "Of each training example: at most epsilon {epsilon} at delta {delta} has been spent, most by {client}."
    ),
    "promise.meaning": (
        "In other words: whether one of them was in the data changes nobody's odds by more than a factor of "
        "{factor}, but for a chance of delta."
    ),
    "promise.weak": "An epsilon of {epsilon} is large: the formal promise then says next to nothing.",
    "promise.masked": "Secure aggregation was on: the server saw sums of updates, not those of single clients.",
    "promise.open": "Secure aggregation was off: the server saw each client's update.",
    "incidents": "Out of the ordinary",
    "incidents.none": "Nothing: no dropouts, refused contributions, rollbacks or repairs are in the journal.",
    "incidents.count": "{what}: {count}",
    "incidents.what": "what",
    "incidents.said": "reason and details",
    "incidents.quoted": "Reasons and details are quoted from the journal.",
    "event.refused": "contribution refused",
    "event.client_refused": "client refused",
    "event.dropout": "dropped out",
    "event.asked_again": "asked again",
    "event.stopped_early": "stopped early",
    "event.repaired": "journal repaired",
    "event.resumed": "resumed",
    "event.left_out": "left out",
    "event.rolled_back": "rolled back",
    "event.replanned": "planned anew",
    "event.pieces_made_anew": "pieces made anew",
    "event.continued": "went on after a stop",
    "event.late": "not waited for",
    "event.late_dropped": "late answer dropped",
    "event.continued_as": "continued by another run",
    "event.readmitted": "let in again",
    "event.excluded": "shut out",
    "event.budget": "another budget",
    "event.gate": "gate",
    "event.robust": "robust aggregation",
    "event.control": "control request",
    "reproduce": "How to reproduce it",
    "reproduce.says": (
        "With the same versions, number of threads and kind of machine, the command ends with the same digest."
    ),
    "reproduce.noise": (
        "Privacy noise is drawn anew each time, so the command gives a run of the same kind, not the same digest."
    ),
    "reproduce.command": "command",
    "reproduce.seed": "seed",
    "reproduce.digest": "digest of the result",
    "reproduce.journal": "The journal of the run is a chain: each record carries the digest of the one before.",
}
