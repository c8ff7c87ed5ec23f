"""A site's own model, taken from what it keeps: the server of a run across machines has only parts of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from fedloom.aggregation.registry import METHODS
from fedloom.engine.personal import Personal
from fedloom.engine.sites import base_of_run, site_of_run
from fedloom.errors import RunError
from fedloom.kits.layout import KIT, SITE
from fedloom.kits.site import read_site
from fedloom.kits.tables import ClientKitTable, read_kit_table
from fedloom.spec.experiment import Experiment
from fedloom.store.own_model import FILE, load_own_model

STATE, CLIENTS = "state", "clients"  # of a kit, what stays at its site; of that, what the run's clients keep
# The model is the site's for good, and its kit is not: at this time none has expired.
_BEFORE_ALL_KITS = datetime.min.replace(tzinfo=UTC)


def is_of_a_site(path: Path) -> bool:
    """Whether this is a site's kit, or the directory where it keeps what stays there, and not that of a run."""
    if (path / KIT).is_file():
        return True
    return not (path / "journal.jsonl").exists() and ((path / CLIENTS).is_dir() or (path / "lock").is_file())


def load_at_site(path: Path, client: str | None = None) -> Personal:
    """The site's model as the run measured it last, on the site's base.

    path: of a kit (whose site.toml says where the base is now), or of what the site keeps, where that is elsewhere.
    client: None: whose kit it is, or the only one that has a model there.
    Raises: KitError, ConfigError for another kit, or a site.toml that cannot be used; RunError where there is no model
    yet, or of another version; CheckpointDamagedError; ModelError, WrongBaseError where the base is not here, or is
    another.
    """
    kit = (path / KIT).is_file()
    owner = read_kit_table(path, "client", ClientKitTable, _BEFORE_ALL_KITS).client if kit else client
    if client not in (None, owner):
        raise RunError("this kit is another client's", where=path, expected=repr(client), found=repr(owner))
    directory = _directory_of(path / STATE / CLIENTS if kit else path / CLIENTS, owner)
    model = load_own_model(directory)
    experiment = _with_base_of(path / SITE, model.experiment) if kit else model.experiment
    base = base_of_run(experiment, model.facts, where=directory / FILE)
    return Personal(
        client=model.client,
        run=experiment.name,
        method=experiment.method.name,
        round=model.round,
        base=base,
        start=model.start,
        head=model.head,
        rows=lambda: site_of_run(experiment, base, model.facts, model.client, where=directory / FILE),
    )


def _directory_of(clients: Path, owner: str | None) -> Path:
    """Where the model is. Raises: RunError where there is none, or where nobody said which."""
    there = sorted(found.parent.name for found in clients.glob(f"*/{FILE}"))
    if owner is None and len(there) > 1:
        do = f"Name one, as in: fedloom export {clients.parent} --client {there[0]}"
        raise RunError("several clients keep their models here", where=clients, found=", ".join(there), do=do)
    if owner not in (there if owner else (None,)) or not there:
        own = ", ".join(name for name, method in METHODS.items() if method.personal)
        raise RunError(
            f"there is no model of {owner or 'a client'} here: the run has not measured this client yet",
            where=clients / (owner or "CLIENT") / FILE,
            expected=f"a run of a method that gives each client its own ({own}), which has measured it after a round "
            "that it contributed to",
            found=", ".join(there) or "none",
            do="Wait for the next measurement; if the site joined with --state, name that directory in place of KIT",
        )
    return clients / (owner or there[0])


def _with_base_of(path: Path, experiment: Experiment) -> Experiment:
    """The experiment with the base where the site's site.toml says that it is now."""
    site = read_site(path)
    if site.model is None:
        return experiment
    return experiment.model_copy(update={"model": experiment.model.model_copy(update={"id": site.model})})
