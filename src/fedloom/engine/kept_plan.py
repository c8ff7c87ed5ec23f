"""A plan on its way to the run that follows it, and that plans anew from what it was planned from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fedloom.engine import planner as of_run
from fedloom.engine.planner import Planner
from fedloom.planning.plan import Plan, from_json, to_json
from fedloom.store.unfinished import replace_file


@dataclass(frozen=True)
class KeptPlan:
    """A plan, and all that it was made from."""

    planner: Planner
    plan: Plan


def to_text(kept: KeptPlan) -> str:
    return json.dumps({"planner": of_run.to_text(kept.planner), "plan": to_json(kept.plan)})


def from_text(text: str) -> KeptPlan:
    """What `to_text` wrote. Raises: PlanError for a plan that is none."""
    found = json.loads(text)
    return KeptPlan(of_run.from_text(found["planner"]), from_json(found["plan"]))


def write_plan(path: Path, plan: Plan) -> None:
    """Write plan.json into a run. Raises: RunError if it cannot be written."""
    replace_file(path, to_json(plan).encode(), intact="Nothing was trained yet", again="run again")
