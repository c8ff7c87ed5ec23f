"""Planning a configuration: from the files of probes to the configuration that follows the plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedloom.data.clients import Sources, labels
from fedloom.engine.events import Observer, silent
from fedloom.engine.importance import latest_importance
from fedloom.engine.kept_plan import KeptPlan
from fedloom.engine.planner import Planner, what_is_left
from fedloom.engine.planning import Known
from fedloom.engine.probe import probe
from fedloom.engine.sites import TWO_CLASSES, longest_text
from fedloom.errors import ConfigError, PlanError
from fedloom.planning.probe_file import Histogram, Probe, from_json, require_base
from fedloom.planning.values import Architecture
from fedloom.spec.dump import dump
from fedloom.spec.experiment import Experiment
from fedloom.store.in_force import in_force
from fedloom.store.run_directory import RunDirectory
from fedloom.store.unfinished import replace_file
from fedloom.training.architecture import architecture_of
from fedloom.training.base_model import BaseModel, load_base

LONG = 0.9  # share of the rows that are no longer than those that batches are planned with


def planner_of(experiment: Experiment, folder: Path | None) -> Planner:
    """From the files of `fedloom probe` in a folder; None: that of [planning] probes.

    Raises: ConfigError without a folder, PlanError for files that are none, or of another base.
    """
    folder = Path(experiment.planning.probes) if folder is None and experiment.planning.probes else folder
    if folder is None:
        what = "no folder with the files of `fedloom probe` is named (expected [planning] probes, or --probes DIR)"
        raise ConfigError([what])
    base = base_for_planning(experiment)
    architecture, probes = architecture_of(base), probes_in(folder)
    for one in probes:
        require_base(one, base.digest, architecture, where=f"probe of {one.client!r}")
    return _planner(experiment, architecture, probes, _bytes_of_head(base))


def planner_here(experiment: Experiment, observe: Observer = silent) -> Planner:
    """From [planning] probes if it names a folder, else by probing this machine for all clients: under a minute.

    Raises: as `planner_of` and `probe`.
    """
    if experiment.planning.probes:
        return planner_of(experiment, None)
    names = [client.name for client in experiment.active if client.rank == "auto"]
    probes, architecture = probe(experiment, names, observe=observe)
    return _planner(experiment, architecture, probes, head_bytes(experiment))


def planned_ahead(experiment: Experiment) -> tuple[Experiment, KeptPlan | None]:
    """The configuration that follows a plan from [planning] probes, and that plan; as it is and None where nothing is
    left to the planner, or nobody probed.

    Raises: as `planner_of` and `Planner.plan`.
    """
    if experiment.is_planned or not experiment.planning.probes:
        return experiment, None
    planner = planner_of(experiment, None)
    plan = planner.plan(experiment)
    return planner.applied(experiment, plan), KeptPlan(planner, plan)


def head_bytes(experiment: Experiment) -> float:
    """What a classifier's head adds to every message, with as many classes as the rows on this machine have."""
    if not experiment.model.classifies:
        return 0.0
    model = experiment.model.model_copy(update={"labels": labels(experiment, Sources(experiment))})
    return _bytes_of_head(base_for_planning(experiment.model_copy(update={"model": model})))


def _bytes_of_head(base: BaseModel) -> float:
    return float(sum(tensor.numel() * tensor.element_size() for tensor in base.head_tensors().values()))


def _planner(experiment: Experiment, architecture: Architecture, probes: Sequence[Probe], head_bytes: float) -> Planner:
    known = {one.client: known_of(experiment, one, head_bytes) for one in probes}
    return Planner(architecture, known, None, what_is_left(experiment))


def with_importance(planner: Planner, run: Path) -> Planner:
    """The planner that counts layers as a run measured them last.

    Raises: RunError for what is no run, PlanError for one that did not measure them, or those of another base.
    """
    found = latest_importance(in_force(RunDirectory.open(run).journal.records()))
    known = {module.name for module in planner.architecture.modules}
    if found is None or not known & found.keys():
        what = "the run measured no importance" if found is None else "the run measured other layers"
        raise PlanError(what, where=run, expected="a run of this base with training.importance = true")
    return replace(planner, importance=found)


def known_of(experiment: Experiment, probe: Probe, head_bytes: float = 0.0) -> Known:
    """What a probe says of a client, with rows as long as all but the longest tenth are at most."""
    tokens = min(experiment.training.max_tokens, quantile(probe.rows.lengths, LONG))
    labels = 1 if experiment.model.classifies else min(tokens, quantile(probe.rows.learned, LONG))
    loading: dict[int, float] = {one.bits: one.peak_bytes for one in probe.loading}
    return Known(probe.measured_machine(), probe.rows.train, tokens, labels, head_bytes, loading)


def quantile(histogram: Histogram, share: float) -> int:
    """So many tokens that this share of the rows has at most; 1 without rows."""
    wanted = math.ceil(share * sum(bucket.rows for bucket in histogram))
    seen = 0
    for bucket in histogram:
        seen += bucket.rows
        if seen >= wanted:
            return bucket.up_to
    return 1


def probes_in(folder: Path) -> list[Probe]:
    """All files of a folder that end in .json. Raises: PlanError for none, for one that is no probe, and for two of
    one client."""
    found: dict[str, tuple[Path, Probe]] = {}
    for path in sorted(folder.glob("*.json")):
        one = _read(path)
        if one.client in found:
            files = f"{found[one.client][0].name} and {path.name}"
            raise PlanError(f"two probes of client {one.client!r}", where=folder, found=files, do="Remove one of them")
        found[one.client] = path, one
    if not found:
        raise PlanError("there are no probes", where=folder, expected="files that `fedloom probe` wrote", found="none")
    return [one for _, one in found.values()]


def _read(path: Path) -> Probe:
    try:
        return from_json(path.read_text(encoding="utf-8"), where=path)
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError("the probe cannot be read", where=path, found=str(error)) from error


def base_for_planning(experiment: Experiment) -> BaseModel:
    """The base, with as many classes as are known. Raises: ModelError."""
    classes = (experiment.model.labels or TWO_CLASSES) if experiment.model.classifies else None
    return load_base(experiment.model, experiment.lora, classes, longest_text(experiment))


def write_planned(path: Path, experiment: Experiment) -> None:
    """Write a configuration to a file. Raises: RunError if it cannot be written."""
    replace_file(path, dump(experiment).encode(), intact="The plan is above", again="plan again")
