"""From the journal of a run to what a report says about it. Pure: records in, a frozen value out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedloom.evaluation.scores import Scores, measured, missing, scores_of
from fedloom.report.happened import EVENTS, ROUTINE, events_of
from fedloom.report.similarity import latest_similarity, unusable
from fedloom.report.spending import releases, sums_of
from fedloom.report.values import Answer, ClientSummary, RoundSummary, RunSummary, Similarity, Stage, SumRelease
from fedloom.rounds.messages import WORK_UNITS
from fedloom.spec.experiment import Experiment
from fedloom.store.in_force import in_force

Record = Mapping[str, Any]

_KNOWN = ROUTINE | EVENTS
_CLIENT_KINDS = ("contribution", "refused", "dropout")
_BYTES = ("bytes_down", "bytes_up")  # of all messages: a trunk comes with whichever is first, to measure or to train
_TOTALS = ("seconds", *WORK_UNITS)


def summarise(experiment: Experiment, records: Sequence[Record]) -> RunSummary:
    """What the journal says about a run, finished or not.

    A round that was done again after a resume counts once: its last records hold, but traffic and time of all
    attempts add up, as they were spent. What was rolled back is no result, and was spent all the same. Records of
    unknown kinds are counted, nothing else.
    """
    kinds, holding = _by_kind(records), _by_kind(in_force(records))
    started = next(iter(kinds["run_started"]), {})
    finished = next(reversed(holding["run_finished"]), {})
    stages = _stages(holding["evaluation"])
    federated_round, federated = _federated(stages)
    return RunSummary(
        name=started.get("name", experiment.name),
        method=started.get("method", experiment.method.name),
        task=started.get("task", experiment.model.task),
        model=started.get("base", experiment.model.id),
        clients=_clients(experiment, started, kinds),
        rounds=_rounds(holding, stages),
        planned_rounds=experiment.training.rounds,
        base=stages.get(("base", 0)) or stages.get(("round", 0)) or Stage(),
        alone=_latest(stages, "alone")[1],
        federated=federated,
        federated_round=federated_round,
        answers=_answers(holding["answer"]),
        events=events_of(records),
        started=started.get("time"),
        finished=finished.get("time"),
        **{name: started.get(name) for name in ("base_digest", "dtype", "modules", "threads")},
        versions=started.get("versions") or {},
        **{name: finished.get(name) for name in ("digest", "seconds", "peak_memory_bytes", "adapter")},
        settings=experiment.model_dump(mode="json", exclude_none=True),
        unknown=_unknown(kinds),
        personal=bool(started.get("personal")),
        releases=releases(kinds["contribution"]),
        sums=sums_of(kinds[SumRelease.KIND]),
        similarity=latest_similarity(holding[Similarity.KIND]),
    )


def _by_kind(records: Iterable[Record]) -> dict[str, list[Record]]:
    kinds: dict[str, list[Record]] = {kind: [] for kind in sorted(_KNOWN)}
    for record in records:
        kinds.setdefault(str(record.get("kind")), []).append(record)
    return kinds


def _unknown(kinds: Mapping[str, list[Record]]) -> dict[str, int]:
    """What was left out, counted: kinds that are not known, and records of known ones that lack what counts."""
    counts = {kind: len(found) for kind, found in sorted(kinds.items()) if kind not in _KNOWN}
    lacking = {
        "evaluation without a loss or its counts": sum(bool(missing(record)) for record in kinds["evaluation"]),
        "similarity without a number for every two clients": unusable(kinds[Similarity.KIND]),
    }
    return counts | {what: count for what, count in lacking.items() if count}


def _stages(evaluations: Iterable[Record]) -> dict[tuple[str, int], Stage]:
    """(stage, round) -> scores by client; base and alone have no round of their own and stand under 0."""
    found: dict[tuple[str, int], dict[str, Scores]] = {}
    for record in evaluations:
        stage = str(record.get("stage"))
        number = int(record.get("round") or 0) if stage in ("round", "final") else 0
        if not missing(record):
            found.setdefault((stage, number), {})[str(record.get("client"))] = scores_of(record)
    return {key: Stage(dict(sorted(clients.items()))) for key, clients in found.items()}


def _latest(stages: Mapping[tuple[str, int], Stage], name: str) -> tuple[int | None, Stage]:
    numbers = [number for stage, number in stages if stage == name]
    return (max(numbers), stages[name, max(numbers)]) if numbers else (None, Stage())


def _federated(stages: Mapping[tuple[str, int], Stage]) -> tuple[int | None, Stage]:
    """The final measurement, or while the run is going on that of the last round; round 0 is still the base."""
    number, stage = _latest(stages, "final")
    if number is None:
        number, stage = _latest({key: value for key, value in stages.items() if key[1] > 0}, "round")
    return number, stage


def _clients(experiment: Experiment, started: Record, kinds: Mapping[str, list[Record]]) -> tuple[ClientSummary, ...]:
    """All clients in the order of the experiment; those that only the journal knows come last."""
    facts = {client.name: {"rank": None if client.rank == "auto" else client.rank} for client in experiment.clients}
    for name, known in (started.get("clients") or {}).items():
        facts[name] = {**facts.get(name, {}), **known}
    for record in kinds["contribution"]:
        facts.setdefault(str(record.get("client")), {})
    return tuple(_client(name, known, kinds) for name, known in facts.items())


def _client(name: str, facts: Record, kinds: Mapping[str, list[Record]]) -> ClientSummary:
    own = {kind: [record for record in kinds[kind] if record.get("client") == name] for kind in _CLIENT_KINDS}
    totals: dict[str, Any] = {field: sum(record.get(field) or 0 for record in own["contribution"]) for field in _TOTALS}
    measured = [record for record in kinds["evaluation"] if record.get("client") == name]
    messages = own["contribution"] + measured
    totals |= {field: sum(record.get(field) or 0 for record in messages) for field in _BYTES}
    totals["busy_seconds"] = sum(map(_busy, messages))
    known: dict[str, Any] = {
        field: facts.get(field) for field in ("rank", "scaling", "train_rows", "held_out_rows", "dropped_rows")
    }
    return ClientSummary(
        name=name,
        **known,
        **totals,
        contributions=len({record.get("round") for record in own["contribution"]}),
        refused=len(own["refused"]),
        dropouts=len(own["dropout"]),
    )


def _rounds(kinds: Mapping[str, list[Record]], stages: Mapping[tuple[str, int], Stage]) -> tuple[RoundSummary, ...]:
    """Round 0 is the base model, measured before anything was trained."""
    rows = [*kinds["round_started"], *kinds["contribution"], *kinds["round_committed"]]
    numbers = {int(record["round"]) for record in rows if record.get("round") is not None}
    numbers |= {number for stage, number in stages if stage in ("round", "final")}
    numbers |= {0} if ("base", 0) in stages else set()
    return tuple(_round(number, kinds, stages) for number in sorted(numbers))


def _round(number: int, kinds: Mapping[str, list[Record]], stages: Mapping[tuple[str, int], Stage]) -> RoundSummary:
    started, committed = (_last(kinds[kind], number) for kind in ("round_started", "round_committed"))
    sent = [record for record in kinds["contribution"] if record.get("round") == number]
    committed_facts: dict[str, Any] = {field: committed.get(field) for field in ("contributions", "seconds", "digest")}
    keys: list[tuple[str, int]] = [("round", number), ("final", number), *([("base", 0)] if number == 0 else [])]
    return RoundSummary(
        number=number,
        participants=tuple(started.get("participants") or ()),
        **committed_facts,
        details=committed.get("details") or {},
        training_loss=_by_client(sent, "loss"),
        update_norm=_by_client(sent, "update_norm"),
        scores=next((stages[key] for key in keys if key in stages), Stage()),
        **_spent(sent, [record for record in kinds["evaluation"] if record.get("round") == number]),
    )


def _spent(sent: Sequence[Record], measured: Iterable[Record]) -> dict[str, Any]:
    """Seconds by client, and bytes, of one round; a baseline is no part of it."""
    messages = [*sent, *(record for record in measured if record.get("stage") in ("round", "final"))]
    busy: dict[str, float] = {}
    for record in messages:
        busy[str(record.get("client"))] = busy.get(str(record.get("client")), 0.0) + _busy(record)
    return {"busy_by_client": busy} | {field: sum(record.get(field) or 0 for record in messages) for field in _BYTES}


def _busy(record: Record) -> float:
    """Seconds of a whole message where they are known, otherwise of the training in it."""
    return float(record.get("busy_seconds") or record.get("seconds") or 0.0)


def _last(records: Iterable[Record], number: int) -> Record:
    return next((record for record in reversed(list(records)) if record.get("round") == number), {})


def _by_client(records: Iterable[Record], field: str) -> dict[str, float]:
    values = {str(record.get("client")): measured(record, field) for record in records}
    return {client: value for client, value in values.items() if value is not None}


def _answers(records: Iterable[Record]) -> tuple[Answer, ...]:
    texts: dict[str, dict[str, str]] = {}
    clients: dict[str, str | None] = {}
    for record in records:
        question = str(record.get("question"))
        texts.setdefault(question, {})[str(record.get("stage"))] = str(record.get("text") or "")
        clients[question] = record.get("client") or clients.get(question)
    return tuple(
        Answer(question, said.get("base"), said.get("final"), clients[question]) for question, said in texts.items()
    )
