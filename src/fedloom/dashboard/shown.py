"""What the page shows of a view, as JSON; small however many clients there are. Pure, but for rows kept in the view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from math import isfinite
from statistics import median
from typing import Any

from fedloom.dashboard.state import ClientState, RoundState, View
from fedloom.evaluation.scores import Scores, pooled

MOST_LINES = 8  # clients with a curve of their own; of more the best and the worst few are drawn
BEST, WORST = 3, 3
MOST_IN_MATRIX = 16  # clients whose shares are shown
LATE_FACTOR = 2.0
STATES = ("training", "late", "contributed", "refused", "gone", "joined", "excluded")
SORTS = ("name", "state", "loss", "contributions", "dropouts", "refused", "epsilon", "anomaly", "bytes")


def shown(view: View, now: datetime) -> dict[str, Any]:
    """The sections of the page; rounds and alerts by their number. now: in UTC, for what is late and left."""
    states = states_of(view, now)
    counts = {state: sum(each == state for each in states.values()) for state in STATES}
    return {
        "run": _run(view),
        "now": _now(view, now),
        "totals": _totals(view),
        "states": counts,
        "rounds": {str(number): _row(view.rounds[number]) for number in sorted(view.rounds)},
        "lines": _lines(view),
        "excluded": dict(sorted(view.excluded.items())),
        "similarity": _similarity(view),
        "alerts": {str(alert["number"]): alert for alert in view.alerts},
        "alert_counts": dict(view.alert_counts),
    }


def states_of(view: View, now: datetime) -> dict[str, str]:
    """client -> one of STATES. Late: half of the round answered, and LATE_FACTOR times what they took is over."""
    round = view.current
    out = {} if round is None else dict.fromkeys(round.participants, "late" if _overdue(round, now) else "training")
    out |= {} if round is None else round.answered
    idle = {name: client.last or "joined" for name, client in view.clients.items()}
    return {name: "excluded" if name in view.excluded else out.get(name, idle[name]) for name in view.clients}


def _overdue(round: RoundState, now: datetime) -> bool:
    if 2 * len(round.answered_at) < max(2, len(round.participants)):
        return False
    began = round.started
    waits = [_seconds(began, at) for at in round.answered_at[: len(round.participants)]]
    return (now - datetime.fromisoformat(str(began))).total_seconds() > max(5.0, LATE_FACTOR * median(waits))


def _seconds(began: str | None, ended: str | None) -> float:
    if not began or not ended:
        return 0.0
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()


def _run(view: View) -> dict[str, Any]:
    end = view.end or {}
    return {
        **{name: view.facts.get(name) for name in ("method", "base", "task")},
        "started": view.facts.get("time"),
        "planned": view.planned_rounds,
        "latest": view.latest,
        "paused": view.paused,
        "end": end.get("kind"),
        "ended": end.get("time"),
        "digest": end.get("digest"),
        "clients": len(view.clients),
        "records": view.records,
        "unknown": view.unknown,
    }


def _now(view: View, now: datetime) -> dict[str, Any] | None:
    """The round in progress, and the seconds left: of this round by the last five, and of all rounds."""
    usual = [each.seconds for _, each in sorted(view.rounds.items()) if each.seconds is not None][-5:]
    each = median(usual) if usual else None
    round, planned = view.current, view.planned_rounds
    if view.end or round is None:
        return None
    elapsed = max(0.0, (now - datetime.fromisoformat(str(round.started))).total_seconds())
    left = None if each is None else max(0.0, each - elapsed)
    whole = None if left is None or each is None or not planned else left + each * max(0, planned - round.number)
    return {
        "round": round.number,
        "started": round.started,
        "participants": len(round.participants),
        "answered": sum(round.answered.get(name, "late") != "late" for name in round.participants),
        "seconds_left": None if left is None else int(left),
        "run_seconds_left": None if whole is None else int(whole),
    }


def _totals(view: View) -> dict[str, Any]:
    spent = [(client.epsilon, client.name) for client in view.clients.values() if client.epsilon is not None]
    epsilon, whose = max(spent, default=(None, None))
    return {
        "bytes_up": view.bytes_up,
        "bytes_down": view.bytes_down,
        "peak_memory_bytes": view.peak_memory_bytes,
        "epsilon": epsilon,
        "epsilon_client": whose,
        "release": view.release,
    }


def _row(round: RoundState) -> dict[str, Any]:
    """One round for the page; reckoned again only where something of it is new."""
    if round.row is None:
        round.row = _made(round)
    return round.row


def _made(round: RoundState) -> dict[str, Any]:
    measured = {name: scores for name, scores in round.measured.items() if scores.label_tokens}
    whole = pooled(measured) if measured else None
    losses = sorted(scores.loss for scores in measured.values() if isfinite(scores.loss))
    answers = list(round.answered.values())
    score_name, score = _score(whole, round)
    return {
        "participants": len(round.participants),
        **{what: answers.count(what) for what in ("contributed", "refused", "gone")},
        "seconds": round.seconds,
        "committed": round.committed,
        "loss": None if whole is None else number(whole.loss),
        "low": number(quantile(losses, 0.1)),
        "middle": number(quantile(losses, 0.5)),
        "high": number(quantile(losses, 0.9)),
        "score": score,
        "score_name": score_name,
        "training_loss": number(_mean(round.training_loss.values())),
        "bytes_up": round.bytes_up,
        "bytes_down": round.bytes_down,
        "gate": round.gate,
        "dropped": len(round.dropped),
    }


def _score(scores: Scores | None, round: RoundState) -> tuple[str | None, float | None]:
    """Name and value, pooled; answers are only generated for the base and at the end."""
    final = {name: each for name, each in round.scores.get("final", {}).items() if each.label_tokens}
    end = pooled(final) if final else None
    for of in (scores, end):
        for name in ("accuracy", "rougeL"):
            value = None if of is None else getattr(of, name)
            if value is not None:
                return name, number(value)
    return None, None


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile of ordered values: the smallest that at least this share is not above."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def number(value: float | None) -> float | None:
    """To six digits; None where it is not finite: JSON has no such number."""
    return None if value is None or not isfinite(value) else float(f"{value:.6g}")


def _lines(view: View) -> dict[str, list[list[float | None]]]:
    """Curves of single clients: of all where they are few, otherwise of those with the lowest and highest loss now."""
    losses = sorted((client.loss, name) for name, client in view.clients.items() if client.loss is not None)
    names = [name for _, name in losses]
    few = sorted(names) if len(names) <= MOST_LINES else [*names[:BEST], *names[-WORST:]]
    return {name: curve(view, name) for name in few}


def curve(view: View, client: str) -> list[list[float | None]]:
    """[round, held-out loss] of one client, in order."""
    found = [(each, view.rounds[each].measured.get(client)) for each in sorted(view.rounds)]
    return [[each, number(scores.loss)] for each, scores in found if scores is not None]


def _similarity(view: View) -> dict[str, Any] | None:
    """The last mixer shares: whole for few clients, otherwise only how many there are."""
    if not view.similarities:
        return None
    latest = view.similarities[max(view.similarities)]
    if len(latest["clients"]) <= MOST_IN_MATRIX:
        return latest
    return {"round": latest["round"], "too_many": len(latest["clients"])}


def table(
    view: View, now: datetime, *, sort: str, descending: bool, search: str, offset: int, limit: int
) -> dict[str, Any]:
    """One page of the clients, sorted by one of SORTS, whose name contains `search`; unknown values come last."""
    states = states_of(view, now)
    rows = [
        _client(client, states[name], view) for name, client in view.clients.items() if search.lower() in name.lower()
    ]
    rows.sort(key=lambda row: row["name"])
    known = [row for row in rows if row[sort] is not None]
    known.sort(key=lambda row: row[sort], reverse=descending)
    rows = known + [row for row in rows if row[sort] is None]
    return {"total": len(rows), "offset": offset, "rows": rows[offset : offset + limit]}


def _client(client: ClientState, state: str, view: View) -> dict[str, Any]:
    names = ("name", "rank", "rows", "contributions", "dropouts", "refused", "last_round")
    numbers = {name: number(getattr(client, name)) for name in ("loss", "epsilon", "anomaly")}
    bytes = client.bytes_up + client.bytes_down
    known = {name: getattr(client, name) for name in names}
    return known | numbers | {"state": state, "bytes": bytes, "why": view.excluded.get(client.name)}


def delta(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What changed, so that `apply(before, delta)` is `after`: by section, of tables only the changed rows.

    {"set": {section: value}, "rows": {section: {key: row}}, "gone": {section: [key]}}
    """
    found: dict[str, Any] = {"set": {}, "rows": {}, "gone": {}}
    for name, value in after.items():
        old = before.get(name)
        if old == value:
            continue
        if name not in KEYED or not isinstance(old, dict):
            found["set"][name] = value
            continue
        found["rows"][name] = {key: row for key, row in value.items() if key not in old or old[key] != row}
        found["gone"][name] = [key for key in old if key not in value]
    return found


KEYED = ("rounds", "alerts", "lines")


def apply(before: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """What the page makes of a delta."""
    after = {**before, **change["set"]}
    for name, rows in change["rows"].items():
        kept = {key: row for key, row in before[name].items() if key not in change["gone"][name]}
        after[name] = {**kept, **rows}
    return after
