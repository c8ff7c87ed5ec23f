"""One experiment with several methods: same base, rows, seeds and steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedloom.aggregation.method import Law
from fedloom.aggregation.registry import method as method_named
from fedloom.engine.events import Observer, Stage, silent
from fedloom.engine.run import RUNS, resume, run
from fedloom.engine.sites import Sites, load_sites
from fedloom.errors import ConfigError
from fedloom.report.compare import comparison_page
from fedloom.report.summary import RunSummary
from fedloom.spec.experiment import ClientTable, Experiment
from fedloom.spec.load import dump, parse
from fedloom.store.run_directory import RunDirectory
from fedloom.store.unfinished import replace_file


@dataclass(frozen=True)
class Comparison:
    """method -> what its run came to; notes on what had to differ; the HTML page."""

    summaries: dict[str, RunSummary]
    notes: dict[str, str]
    page: Path


def compare(
    experiment: Experiment,
    methods: Sequence[str],
    *,
    root: str | Path = RUNS,
    observe: Observer = silent,
    sites: Sites | None = None,
) -> Comparison:
    """Run every method in root/<name>-compare/<method>; runs that are there already are resumed, not repeated.

    sites: of the experiment, where they are loaded already.
    A method that needs equal ranks is run with the smallest rank of all clients, and a note says so.
    Raises: ConfigError for no, doubled or unknown methods; RunError for a run of another configuration.
    """
    if len(set(methods)) != len(methods) or not methods:
        raise ConfigError(["name each method to compare once"], where="--methods")
    variants = {name: _variant(experiment, name) for name in methods}
    sites = sites or load_sites(experiment, observe)
    folder = Path(root) / f"{experiment.name}-compare"
    summaries = {}
    for name, (variant, _) in variants.items():
        observe(Stage(f"method {name}"))
        path = folder / name
        if path.exists():
            RunDirectory.open(path).check_same(variant)
            summaries[name] = resume(path, observe=observe, sites=sites).summary
        else:
            summaries[name] = run(variant, root=folder, observe=observe, sites=sites).summary
    notes = {name: note for name, (_, note) in variants.items() if note}
    page = folder / "comparison.html"
    text = comparison_page(experiment.name, summaries, notes)
    replace_file(page, text.encode(), intact="The runs themselves are intact", again="compare again")
    return Comparison(summaries, notes, page)


def _variant(experiment: Experiment, name: str) -> tuple[Experiment, str]:
    """The experiment with another method; its settings are kept only for the method they were written for."""
    settings = experiment.method.settings if name == experiment.method.name else {}
    update: dict[str, object] = {
        "name": name,
        "method": experiment.method.model_validate({"name": name, **settings}),
        "evaluation": experiment.evaluation.model_copy(update={"baselines": False}),
    }
    note = ""
    ranks = {rank for client in experiment.clients for rank in (client.known_rank, *client.rank_pattern.values())}
    ranks -= {0}  # layers that are left out have no other rank
    if Law.UNEQUAL_RANKS not in method_named(name).laws and len(ranks) > 1:
        note = f"rank {min(ranks)} for all: {name} needs equal ranks"
        update["clients"] = tuple(_at_rank(client, min(ranks)) for client in experiment.clients)
    variant = experiment.model_copy(update=update)
    return parse(dump(variant), where=f"method {name}", folder=Path.cwd()), note


def _at_rank(client: ClientTable, rank: int) -> ClientTable:
    """The client with one rank in all the layers that it trains."""
    left_out = {pattern: 0 for pattern, own in client.rank_pattern.items() if own == 0}
    return client.model_copy(update={"rank": rank, "rank_pattern": left_out})
