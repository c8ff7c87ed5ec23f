"""From what the user asked for to the world that a method sees."""

from __future__ import annotations

from collections.abc import Mapping

from fedloom.aggregation.registry import method, settings_of
from fedloom.aggregation.world import Slot, World
from fedloom.errors import ConfigError
from fedloom.spec.experiment import ClientTable, Experiment, LoraTable

Shapes = Mapping[str, tuple[int, int]]


def active_clients(experiment: Experiment) -> tuple[ClientTable, ...]:
    """The clients that may take part, in sorted order, so that sums are the same on every machine."""
    return tuple(sorted(experiment.active, key=lambda client: client.name))


def world_of(experiment: Experiment, modules: Shapes, branch: int = 0) -> World:
    """The world of a run on a base with these modules (name -> (out, in)). branch: as of `World`.

    Raises: ConfigError listing every rank that is larger than its layer and every pattern that fits no module.
    """
    clients = active_clients(experiment)
    problems = [problem for client in clients for problem in _rank_problems(client, modules)]
    if problems:
        raise ConfigError(problems)
    return World(
        modules=modules,
        slots={client.name: slots_of(client, experiment.lora, modules) for client in clients},
        settings=settings_of(method(experiment.method.name), experiment.method.settings),
        seed=experiment.seed,
        sums_only=experiment.secure_aggregation.enabled,
        branch=branch,
    )


def slots_of(client: ClientTable, lora: LoraTable, modules: Shapes) -> dict[str, Slot]:
    """module -> the client's rank there and its scaling (lora.alpha / rank, or lora.scaling for all ranks).

    Modules in which its rank is 0 it does not train; they are not there.
    """
    return {module: _slot(rank_of(client, module), lora) for module in modules if rank_of(client, module) > 0}


def rank_of(client: ClientTable, module: str) -> int:
    """The client's rank in a module: that of the longest pattern that ends its name, else the common one."""
    fitting = [pattern for pattern in client.rank_pattern if _fits(pattern, module)]
    return client.rank_pattern[max(fitting, key=len)] if fitting else client.known_rank


def _slot(rank: int, lora: LoraTable) -> Slot:
    return Slot(rank, lora.scaling if lora.alpha is None else lora.alpha / rank)


def _fits(pattern: str, module: str) -> bool:
    return module == pattern or module.endswith("." + pattern)


def _rank_problems(client: ClientTable, modules: Shapes) -> list[str]:
    too_large = [
        f"client {client.name!r}, module {module!r}: the rank is larger than the layer "
        f"(expected at most {min(shape)}, found {rank_of(client, module)})"
        for module, shape in modules.items()
        if rank_of(client, module) > min(shape)
    ]
    unused = [
        f"client {client.name!r}: rank_pattern {pattern!r} fits no module that carries LoRA "
        f"(expected a dotted suffix of one such as {next(iter(modules))!r})"
        for pattern in client.rank_pattern
        if not any(_fits(pattern, module) for module in modules)
    ]
    nothing = [] if any(rank_of(client, module) for module in modules) else [_nothing_trained(client, modules)]
    return too_large[:1] + unused + nothing


def _nothing_trained(client: ClientTable, modules: Shapes) -> str:
    return (
        f"client {client.name!r} trains nothing, as its rank is 0 in every module that carries LoRA "
        f"(expected at least 1 in one of {len(modules)} modules such as {next(iter(modules))!r}); "
        "leave it out with rounds.clients, or raise a rank"
    )
