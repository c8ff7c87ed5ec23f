"""What is compared: a method with settings and ranks, every client alone, or all rows in one place.

How a contender is written:

    loom                          a method with its defaults, at the ranks of the setting
    loom:directions=fresh         with other settings of the method
    loom:server.optimizer=adam    with other settings of the experiment, by table and key
    fedit@16                      rank 16 for all clients
    local, local@16               every client trains alone
    loomlocal                     loom for half of the rounds, then every client goes on alone from its model
    full                          all weights are trained and averaged (images)
    central@64                    one client with all rows, of rank 64, for as many passes over examples
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedloom.aggregation.method import Law
from fedloom.aggregation.registry import METHODS, method, settings_of
from fedloom.errors import ConfigError
from fedloom.spec.client_table import Auto
from fedloom.spec.experiment import ClientTable, Experiment
from fedloom.spec.toml import tables_of

LOCAL, CENTRAL, FULL, THEN_LOCAL = "local", "central", "full", "loomlocal"
OTHERS = (LOCAL, CENTRAL, FULL, THEN_LOCAL)
CLIENTS = 10  # of the suites whose tables there are; what a method's server optimizer goes by
# Of later settings: what was done without them.
BEFORE = {"borrow": "fixed", "borrow_rows": 16, "borrow_decay": 0.5, "training.head_optimizer": "adamw"}
_PATTERN = re.compile(r"(?P<name>[a-z0-9]+)(?P<settings>:[^@]+)?(?P<rank>@\d+)?")


@dataclass(frozen=True)
class Variant:
    """One contender. rank: of all clients; None: as the setting says.  settings: as written, by key."""

    label: str
    name: str
    settings: tuple[tuple[str, Any], ...] = ()
    rank: int | None = None

    @property
    def is_method(self) -> bool:
        return self.name not in OTHERS

    def identity(self, clients: int = CLIENTS, heads: bool = True) -> str:
        """The contender with every setting spelled out, so that a changed default is another contender; a setting that
        came later only where it does something else than what was measured without it. clients: of a round.
        heads: whether there are heads to train."""
        if not self.is_method:
            return self.label
        settings = settings_of(method(self.name), self._own())
        head = {"training.head_optimizer": method(self.name).rules(settings).head_optimizer} if heads else {}
        spelled = asdict(settings) | head | self._server(clients) | self._others()
        own = {key: value for key, value in spelled.items() if key not in BEFORE or BEFORE[key] != value}
        written = ",".join(f"{key}={value}" for key, value in sorted(own.items()))
        return f"{self.name}:{written}" + (f"@{self.rank}" if self.rank else "")

    def _server(self, clients: int) -> dict[str, Any]:
        """The server optimizer that goes with the method, if it has one and no other is named."""
        rule = method(self.name).server(clients)
        if rule.rule == "none" or "server.optimizer" in self._others():
            return {}
        rates = {"learning_rate": f"{rule.learning_rate:g}", "beta1": f"{rule.beta1:g}"}
        return {"server.optimizer": rule.rule, **{f"server.{key}": rate for key, rate in rates.items()}}

    def _own(self) -> dict[str, Any]:
        return {key: value for key, value in self.settings if "." not in key}

    def _others(self) -> dict[str, Any]:
        return {key: value for key, value in self.settings if "." in key}

    def ranks(self, usual: Sequence[int | Auto]) -> tuple[int | Auto, ...]:
        """One rank for each client."""
        return tuple(usual) if self.rank is None else (self.rank,) * len(usual)

    def applied(self, experiment: Experiment, rate: float) -> Experiment:
        """The experiment with this method (fedit for clients alone and for one client), these ranks and this rate."""
        name = self.name if self.is_method else "loom" if self.name == THEN_LOCAL else "fedit"
        ranks = self.ranks([client.rank for client in experiment.clients])
        update: dict[str, Any] = {
            "method": experiment.method.model_validate({"name": name, **self._own()}),
            "training": experiment.training.model_copy(update={"learning_rate": rate}),
            "clients": tuple(_ranked(*pair) for pair in zip(experiment.clients, ranks, strict=True)),
        }
        changed = experiment.model_copy(update=update)
        for key, value in self._others().items():
            table, _, field = key.partition(".")
            changed = changed.model_copy(update={table: getattr(changed, table).model_copy(update={field: value})})
        return changed


def _ranked(client: ClientTable, rank: int | Auto) -> ClientTable:
    return client.model_copy(update={"rank": rank})


def variant(text: str) -> Variant:
    """Read a contender as written above. Raises: ConfigError saying what cannot be read, or is unknown."""
    found = _PATTERN.fullmatch(text)
    if not found or found["name"] not in (*METHODS, *OTHERS):
        names = ", ".join((*METHODS, *OTHERS))
        raise ConfigError([f"{text!r}: expected NAME, NAME:key=value,.. or either with @RANK; names are {names}"])
    parts = (found["settings"] or ":")[1:].split(",")
    settings = tuple(_setting(text, part) for part in parts if part)
    made = Variant(text, found["name"], settings, int(found["rank"][1:]) if found["rank"] else None)
    if made.name == CENTRAL and made.rank is None:
        raise ConfigError([f"{text!r}: expected the rank of the one client, as in central@16"])
    return made


def _setting(text: str, part: str) -> tuple[str, Any]:
    """key=value, the value as in TOML or a bare word."""
    key, equals, value = part.partition("=")
    if not equals or not value:
        raise ConfigError([f"{text!r}: expected key=value, found {part!r}"])
    try:
        return key, tables_of(f"value = {value}", text)["value"]
    except ConfigError:
        return key, value


def every_method(equal_rank: int) -> list[str]:
    """All registered methods at unequal ranks where they accept them, then all at one rank."""
    unequal = [name for name, found in METHODS.items() if Law.UNEQUAL_RANKS in found.laws]
    return unequal + [f"{name}@{equal_rank}" for name in METHODS]
