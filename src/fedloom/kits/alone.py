"""What a client's kit says of the run, without the server: enough to load the base and to read the rows."""

from __future__ import annotations

from pathlib import Path

from fedloom.errors import KitError
from fedloom.kits.site import SiteSettings
from fedloom.spec.experiment import ClientTable, Experiment, LoraTable, ModelTable, Task, TrainingTable


def experiment_of_site(
    client: str, run: str, site: SiteSettings, task: Task, max_tokens: int, targets: tuple[str, ...] | None, where: Path
) -> Experiment:
    """An experiment with this client alone. The kit does not say task, targets and length of texts: they are given.

    Raises: KitError for a site that has not said where its rows are.
    """
    if site.data is None:
        raise KitError("this site has no rows yet", where=where, do="Set data there, or give --data FILE")
    model = ModelTable(id=site.model or site.accept.models[0], task=task, labels=site.accept.classes)
    return Experiment(
        name=run,
        model=model,
        lora=LoraTable(targets=targets or "auto"),
        training=TrainingTable(max_tokens=max_tokens),
        clients=(ClientTable(name=client, data=site.data, columns=site.columns),),
    )
