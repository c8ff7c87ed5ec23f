"""Between rounds: where clients took longer or shorter than planned, the rest of the run is planned anew.

What is decided is written to the journal before it is used, so that a resumed run decides nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

from fedloom.engine.importance import latest_importance
from fedloom.engine.loop import Loop
from fedloom.engine.planner import SURPRISE, Planner
from fedloom.engine.planning import client_choice, work_of
from fedloom.errors import PlanError
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import Experiment

REPLANNED = "replanned"
LEAST_SECONDS, MOST_SECONDS = 1e-3, 1e7  # of a round's training: up to four months


def replanned(loop: Loop, round: int) -> Loop:
    """The loop of the next round: as it is, unless a client of this round surprised by its time."""
    planner = loop.planner
    if planner is None or not loop.experiment.planning.replan or not loop.method.replans:
        return loop
    if any(record["kind"] == REPLANNED and record["round"] == round for record in loop.records()):
        return loop  # decided before a resume
    factors = surprises(loop, planner, round)
    if not factors:
        return loop
    measured = latest_importance(loop.records())
    changed, reason = _changed(loop, replace(planner.slower(factors), importance=measured or planner.importance))
    loop.journal(REPLANNED, round=round, factors=factors, clients=changed, reason=reason)
    return as_replanned(loop, [{"factors": factors, "clients": changed}])


def surprises(loop: Loop, planner: Planner, round: int) -> dict[str, float]:
    """client -> seconds of its training over the planned ones, where that is out of what was planned for."""
    found: dict[str, float] = {}
    for record in loop.records():
        client = record.get("client")
        if record["kind"] != "contribution" or record["round"] != round or "rank" not in planner.left.get(client, ()):
            continue
        choice = client_choice(loop.experiment, loop.world, client, planner.architecture, planner.known[client].machine)
        expected = planner.expected_seconds(client, choice, work_of(loop.experiment, planner.known[client]))
        seconds = _credible(record.get("seconds", 0.0))
        factor = seconds / expected if seconds and expected > 0 else 1.0
        if not 1 / SURPRISE <= factor <= SURPRISE:
            found[client] = float(f"{factor:.4g}")
    return found


def _credible(seconds: float) -> float:
    """What a client says its training took, within what can be; 0 where it says nothing that can be. It says what it
    likes: no such number may be one that costs cannot be computed with."""
    return min(max(seconds, LEAST_SECONDS), MOST_SECONDS) if seconds > 0 else 0.0


def _changed(loop: Loop, planner: Planner) -> tuple[dict[str, Any], str]:
    """client -> the keys of its table that change, and why. A client for which nothing fits any more, or that says so,
    goes on as it is, and the others are planned for."""
    opened, lacking = planner.open_again(loop.experiment), dict[str, PlanError]()
    try:
        plan = planner.plan(opened)
    except PlanError as error:
        lacking = planner.without_a_plan(opened)
        if not lacking or len(lacking) == sum(client.rank == "auto" for client in opened.active):
            return {}, f"the plan stays as it is: {error}"
        plan = planner.plan(planner.open_again(loop.experiment, but=lacking))
    keys = planner.keys(plan)
    now = {client.name: client for client in loop.experiment.clients}
    changed = {
        client: wanted
        for client, wanted in keys.items()
        if any(getattr(now[client], key) != value for key, value in wanted.items())
    }
    reason = "measured times are not the planned ones" if changed else "the best plan is still the same"
    return changed, "; ".join([reason, *(f"the plan of {name} stays as it is: {why}" for name, why in lacking.items())])


def as_replanned(loop: Loop, records: Iterable[Mapping[str, Any]]) -> Loop:
    """The loop after these decisions, in their order."""
    return reduce(_after, records, loop)


def _after(loop: Loop, record: Mapping[str, Any]) -> Loop:
    assert loop.planner is not None, "only a planned run is planned anew"
    planner, changed = loop.planner.slower(record["factors"]), record["clients"]
    experiment = with_keys(loop.experiment, changed)
    world = world_of(experiment, loop.federation.modules, loop.world.branch) if changed else loop.world
    return replace(loop, experiment=experiment, world=world, planner=planner)


def with_keys(experiment: Experiment, changed: Mapping[str, Mapping[str, Any]]) -> Experiment:
    """The experiment with other values of some keys of some clients: client -> key -> value."""
    clients = tuple(client.model_copy(update=dict(changed.get(client.name, {}))) for client in experiment.clients)
    return experiment.model_copy(update={"clients": clients})
