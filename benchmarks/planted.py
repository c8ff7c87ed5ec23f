"""How near each method comes to a planted delta: every method, the variants of loom, and server optimizers.

Ten clients of ranks 32, 16, 8, 8, 4, 4, 2, 2, 2, 2 (8 for all where a method wants equal ranks) find a delta in 30
rounds; see `planted_problem`. "high rank": 32 of 64 directions; "low rank": 4. Every contender has the same tuning: the
peak rate of AdamW from one grid, by the error on a validation seed, the grid widened by a factor of 2 while the best
rate lies at its edge; then that rate on the other seeds, by which it is judged. Writes results/planted.json and
results/planted.md. Every run is kept in results/planted.cells.tmp, so that an interrupted benchmark goes on.

    python benchmarks/planted.py [--processes 2] [--only NAME ..]
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from planted_problem import CLIENTS, MODULES, SIDE, Problem, problem, train

from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.registry import METHODS, settings_of
from fedloom.aggregation.server_rule import ServerOptimizer, larger_steps
from fedloom.aggregation.world import Slot, World
from fedloom.rng import generator
from fedloom.rounds.messages import Assignment, Contribution, LocalWork
from fedloom.rounds.state import RunState
from fedloom.rounds.step import NO_OPTIMIZER, Tally, fold, step

RESULTS = Path(__file__).parent / "results"
CELLS = RESULTS / "planted.cells.tmp"
RANKS = (32, 16, 8, 8, 4, 4, 2, 2, 2, 2)  # those of FLoRA's paper, halved as the layers are 64 wide
ROUNDS, SCALING, BATCH, WARMUP = 30, 2.0, 128, 0.05
RATES, WIDEST = (0.005, 0.01, 0.02), (0.0003, 0.4)
VALIDATION, SEEDS = 100, (0, 1, 2)
DIVERGED = 100.0


@dataclass(frozen=True)
class Contender:
    """A method with its settings; centralised: one client with all rows and as many of them in a step as all have."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    server: ServerOptimizer = NO_OPTIMIZER
    centralised: bool = False


@dataclass(frozen=True)
class Scenario:
    """steps: of a client in a round.  present: how many of the clients take part in each round."""

    steps: int
    planted_rank: int = 32
    present: int = CLIENTS


SCENARIOS = {
    "high rank, 20 steps": Scenario(20),
    "high rank, 4 steps": Scenario(4),
    "high rank, 4 steps, half absent": Scenario(4, present=CLIENTS // 2),
    "low rank, 4 steps": Scenario(4, planted_rank=4),
}
LARGER = larger_steps(CLIENTS)
LOOM: dict[str, dict[str, Any]] = {
    "top": {"directions": "top"},
    "half": {"directions": "half"},
    "rotating": {"directions": "rotating"},
    "fresh": {"directions": "fresh"},
    "covering": {"directions": "covering"},
    "weighted, power 0.5": {"power": 0.5},
    "weighted, power 0.75": {"power": 0.75},
    "weighted, power 2": {"power": 2.0},
}
CONTENDERS = {
    "centralised": Contender("zeropad", centralised=True),
    **{name: Contender(name, server=each.server(CLIENTS)) for name, each in METHODS.items() if not each.personal},
    "loom plain": Contender("loom"),
    **{f"loom plain {name}": Contender("loom", settings) for name, settings in LOOM.items()},
    **{f"{name} + server": Contender(name, server=LARGER) for name in ("flora", "flexlora", "rbla", "zeropad")},
    "loom weighted, power 0.5": Contender("loom", LOOM["weighted, power 0.5"], LARGER),
    "loom covering": Contender("loom", LOOM["covering"], LARGER),
}
NOTES = (
    "Error |delta - planted| / |planted| after 30 rounds: mean of 3 seeds, ± their standard deviation. No delta is 1.",
    "loom has its own server optimizer, momentum with learning_rate 2 and beta1 0.5 on the change of a round, which "
    "comes to 4 times the change; loom plain has none. + server: the same for a method that has none of its own. "
    "centralised: one client of rank 32 with all rows.",
)


def world_of(contender: Contender, seed: int) -> World:
    method = METHODS[contender.method]
    ranks = RANKS if Law.UNEQUAL_RANKS in method.laws else (sum(RANKS) // CLIENTS,) * CLIENTS
    ranks = RANKS[:1] if contender.centralised else ranks
    slots = {f"client {k}": {module: Slot(rank, SCALING) for module in MODULES} for k, rank in enumerate(ranks)}
    return World(dict.fromkeys(MODULES, (SIDE, SIDE)), slots, settings_of(method, contender.settings), seed)


def work_of(contender: Contender, scenario: Scenario, rate: float, round: int, world: World) -> LocalWork:
    """AdamW as FedLoom's clients have it: warm-up and a cosine over the whole run. Gradients are not clipped."""
    rules = METHODS[contender.method].rules(world.settings)
    return LocalWork(
        steps=scenario.steps,
        first_step=(round - 1) * scenario.steps,
        total_steps=ROUNDS * scenario.steps,
        batch_size=BATCH * CLIENTS if contender.centralised else BATCH,
        accumulation=1,
        learning_rate=rate,
        head_learning_rate=0.0,
        schedule="cosine",
        warmup=WARMUP,
        weight_decay=0.0,
        max_grad_norm=math.inf,
        max_tokens=0,
        dropout=0.0,
        penalties=rules.penalties,
        prune=rules.prune,
    )


@lru_cache(maxsize=2)
def prepared_problem(seed: int, planted_rank: int) -> Problem:
    return problem(seed, planted_rank)


def assignment_of(method: Method, world: World, state: RunState, client: str, work: LocalWork) -> Assignment:
    start, round = method.dispatch(state.learned, world, client), state.round + 1
    sides = {module: "".join(side for side in "ab" if method.trains(module, side, round)) for module in MODULES}
    return Assignment("train", round, client, start, sides, head={}, seed=0, work=work)


def one_round(found: Problem, contender: Contender, scenario: Scenario, rate: float, state: RunState) -> RunState:
    method, world, round = METHODS[contender.method], world_of(contender, found.seed), state.round + 1
    order = torch.randperm(len(world.slots), generator=generator(found.seed, "present", round))
    positions = sorted(order[: scenario.present].tolist())
    work = work_of(contender, scenario, rate, round, world)
    assignments = [assignment_of(method, world, state, f"client {k}", work) for k in positions]
    tally = Tally()
    for assignment, adapter in zip(assignments, train(found, assignments, positions), strict=True):
        contribution = Contribution(round, assignment.client, examples=1, metrics={}, adapter=adapter)
        tally = fold(tally, method, world, assignment, contribution)
    return step(tally, method, world, state, optimizer=contender.server)


def play(contender: Contender, scenario: Scenario, rate: float, seed: int) -> dict[str, Any]:
    """One run. errors: after each round; it ends early where it has diverged."""
    found = prepared_problem(seed, scenario.planted_rank)
    found = found.together() if contender.centralised else found
    state, errors = RunState(METHODS[contender.method].init(world_of(contender, seed))), []
    for _ in range(ROUNDS):
        state = one_round(found, contender, scenario, rate, state)
        errors.append(found.error(state.learned.delta()))
        if not errors[-1] < DIVERGED:
            return {"error": DIVERGED, "loss": DIVERGED, "errors": errors[:-1]}
    return {"error": errors[-1], "loss": found.held_out_loss(state.learned.delta()), "errors": errors}


class Cells:
    """The runs that there are already, one line of JSON for each; a new one is appended at once."""

    def __init__(self) -> None:
        lines = CELLS.read_text(encoding="utf-8").splitlines() if CELLS.exists() else []
        self.known = dict(json.loads(line) for line in lines if line.endswith("]"))

    def run(self, contender: Contender, scenario: Scenario, rate: float, seed: int) -> dict[str, Any]:
        resolved = asdict(settings_of(METHODS[contender.method], contender.settings))  # a default may change
        key = json.dumps([asdict(replace(contender, settings=resolved)), asdict(scenario), rate, seed], sort_keys=True)
        if key not in self.known:
            self.known[key] = play(contender, scenario, rate, seed)
            with CELLS.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, self.known[key]]) + "\n")
        return self.known[key]


def tuned(cells: Cells, contender: Contender, scenario: Scenario) -> dict[float, float]:
    """rate -> error on the validation seed, until the best rate is not at the edge of the grid."""
    errors = {rate: cells.run(contender, scenario, rate, VALIDATION)["error"] for rate in RATES}
    while (best := min(errors, key=errors.__getitem__)) in (min(errors), max(errors)):
        wider = best / 2 if best == min(errors) else best * 2
        if not WIDEST[0] < wider < WIDEST[1]:
            break
        errors[wider] = cells.run(contender, scenario, wider, VALIDATION)["error"]
    return dict(sorted(errors.items()))


def judged(pair: tuple[str, str]) -> tuple[str, str, dict[str, Any]]:
    contender, scenario, cells = CONTENDERS[pair[0]], SCENARIOS[pair[1]], Cells()
    tuning = tuned(cells, contender, scenario)
    rate = min(tuning, key=tuning.__getitem__)
    runs = [cells.run(contender, scenario, rate, seed) for seed in SEEDS]
    figures = {name: [run[name] for run in runs] for name in ("error", "loss")}
    summary = {f"{name}_{what.__name__}": what(values) for name, values in figures.items() for what in _SUMMARIES}
    print(f"{pair[0]}, {pair[1]}: {summary['error_mean']:.4f} at {rate:g}", flush=True)
    return *pair, {"rate": rate, "tuning": tuning, "curves": [run["errors"] for run in runs], **figures, **summary}


_SUMMARIES = (statistics.mean, statistics.stdev)


def table(found: dict[str, dict[str, Any]], name: str, form: str) -> list[str]:
    """A Markdown table of contenders by scenarios, the best of each in bold (the centralised reference aside)."""
    best = {s: min(row[s][f"{name}_mean"] for c, row in found.items() if c != "centralised") for s in SCENARIOS}
    lines = ["| contender | " + " | ".join(SCENARIOS) + " |", "|---|" + "--:|" * len(SCENARIOS)]
    for contender, row in found.items():
        cells = []
        for scenario, cell in row.items():
            mean, text = cell[f"{name}_mean"], f"{cell[f'{name}_mean']:{form}} ± {cell[f'{name}_stdev']:{form}}"
            cells.append(f"**{text}**" if mean == best[scenario] else text)
        lines.append(f"| {contender} | " + " | ".join(cells) + " |")
    return lines


def page(found: dict[str, dict[str, Any]]) -> str:
    rates = ["| contender | " + " | ".join(SCENARIOS) + " |", "|---|" + "--:|" * len(SCENARIOS)]
    rates += [f"| {c} | " + " | ".join(f"{cell['rate']:g}" for cell in row.values()) + " |" for c, row in found.items()]
    parts = ["### planted delta", *NOTES, "\n".join(table(found, "error", ".3f"))]
    parts += ["Held-out loss, relative to that of the frozen network:", "\n".join(table(found, "loss", ".4f"))]
    parts += [f"Rates chosen on seed {VALIDATION}; the grid is {RATES}, widened at its edges:", "\n".join(rates)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, metavar="NAME")
    chosen = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that are started below
    pairs = [(contender, scenario) for scenario in SCENARIOS for contender in chosen.only]
    found: dict[str, dict[str, Any]] = {name: {} for name in chosen.only}
    with multiprocessing.get_context("spawn").Pool(chosen.processes) as pool:
        for contender, scenario, cell in pool.imap(judged, pairs):
            found[contender][scenario] = cell
    record = {"rounds": ROUNDS, "ranks": RANKS, "batch": BATCH, "seeds": SEEDS, "contenders": found}
    (RESULTS / "planted.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "planted.md").write_text(page(found), encoding="utf-8")
    print(page(found))


if __name__ == "__main__":
    main()
