"""Between rounds: where clients took other time or memory than planned, or may use something else than before, the rest
of the run is planned anew.

What is decided is written to the journal before it is used, so that a resumed run decides nothing twice: a record
"replanned" with round; factors and memory (client -> measured over planned time and memory); limits and sites (as of
`Changed`); clients (client -> keys of its table that change); because (each surprise) and reason, in words. Journals of
earlier versions have factors, clients and reason alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from fedloom.engine.changed_budgets import changed_budgets, note_sites
from fedloom.engine.importance import latest_importance
from fedloom.engine.loop import Loop
from fedloom.engine.surprises import factors, surprises
from fedloom.errors import ConfigError, PlanError
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import Experiment

REPLANNED = "replanned"
NAMED = 3  # causes that the reason names; the fields have all


def replanned(loop: Loop, round: int) -> Loop:
    """The loop of the next round: as it is, unless a client of this round surprised, or has another budget."""
    planner = loop.planner
    if planner is None or not loop.experiment.planning.replan or not loop.method.replans:
        return loop
    note_sites(loop, planner, round)
    decided = any(record["kind"] == REPLANNED and record["round"] == round for record in loop.records())
    found = [] if decided else surprises(loop, planner, round)  # decided before a resume
    budgets = changed_budgets(loop, planner)
    if not found and not budgets:
        return loop
    learned = {
        "factors": factors(found, "time"),
        "memory": factors(found, "memory"),
        "limits": budgets.limits,
        "sites": budgets.sites,
    }
    changed, outcome = _changed(_learned(loop, learned))
    causes = [*(one.text() for one in found), *budgets.texts()]
    decision = {name: value for name, value in learned.items() if value or name == "factors"} | {"clients": changed}
    why = {"because": [one.fields() for one in found], "reason": _reason(causes, outcome)}
    loop.journal(REPLANNED, round=round, **decision, **why)
    return as_replanned(loop, [decision])


def _reason(causes: Sequence[str], outcome: str) -> str:
    more = f", and {len(causes) - NAMED} more" if len(causes) > NAMED else ""
    return f"{'; '.join(causes[:NAMED])}{more}: {outcome}"


def _changed(loop: Loop) -> tuple[dict[str, Any], str]:
    """client -> the keys of its table that change, and what that means. A client for which nothing fits any more, or
    that says so, goes on as it is, and the others are planned for.

    loop: with all that is known now.
    """
    assert loop.planner is not None, "only a planned run is planned anew"
    measured = latest_importance(loop.records())
    planner, lacking = replace(loop.planner, importance=measured or loop.planner.importance), dict[str, Exception]()
    try:
        plan = planner.plan(planner.open_again(loop.experiment))
    except (PlanError, ConfigError) as error:
        lacking.update(planner.without_a_plan(loop.experiment))
        if not lacking or len(lacking) == len(planner.planned_for(loop.experiment)):
            return {}, f"the plan stays as it is: {_why(error)}"
        plan = planner.plan(planner.open_again(loop.experiment, but=lacking))
    keys = planner.keys(plan)
    now = {client.name: client for client in loop.experiment.clients}
    changed = {
        client: wanted
        for client, wanted in keys.items()
        if any(getattr(now[client], key) != value for key, value in wanted.items())
    }
    outcome = f"the plan changes for {_names(changed)}" if changed else "the best plan is still the same"
    stay = (f"the plan of {name} stays as it is: {_why(error)}" for name, error in lacking.items())
    return changed, "; ".join([outcome, *stay])


def _why(error: Exception) -> str:
    """In one line."""
    text = "; ".join(error.problems) if isinstance(error, ConfigError) else str(error)
    return " ".join(text.split())


def _names(clients: Iterable[str]) -> str:
    names = list(clients)
    return ", ".join(names) if len(names) <= NAMED else f"{len(names)} clients"


def as_replanned(loop: Loop, records: Iterable[Mapping[str, Any]]) -> Loop:
    """The loop after these decisions, in their order."""
    return reduce(_after, records, loop)


def _after(loop: Loop, record: Mapping[str, Any]) -> Loop:
    loop, changed = _learned(loop, record), record["clients"]
    experiment = with_keys(loop.experiment, changed)
    world = world_of(experiment, loop.federation.modules, loop.world.branch) if changed else loop.world
    return replace(loop, experiment=experiment, world=world)


def _learned(loop: Loop, record: Mapping[str, Any]) -> Loop:
    """The loop with machines, and within limits, as they are now known; clients do what they did."""
    assert loop.planner is not None, "only a planned run is planned anew"
    planner = loop.planner.slower(record["factors"]).larger(record.get("memory", {})).told(record.get("sites", {}))
    return replace(loop, experiment=with_keys(loop.experiment, record.get("limits", {})), planner=planner)


def with_keys(experiment: Experiment, changed: Mapping[str, Mapping[str, Any]]) -> Experiment:
    """The experiment with other values of some keys of some clients: client -> key -> value."""
    clients = tuple(client.model_copy(update=dict(changed.get(client.name, {}))) for client in experiment.clients)
    return experiment.model_copy(update={"clients": clients})
