"""site.toml: what a site decides for itself. The server cannot override it, and is told of it memory_limit alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from fedloom.aggregation.registry import METHODS
from fedloom.errors import ConfigError
from fedloom.kits.tables import checked_table
from fedloom.spec.experiment import ClientTable, ColumnsTable, Table
from fedloom.spec.places import source_at
from fedloom.spec.positions import positions
from fedloom.spec.problem import Problem, nearest
from fedloom.spec.toml import tables_of, text_of

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_MEMORY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?I?B)\s*", re.IGNORECASE)


class AcceptTable(Table):
    """What the server may ask for; anything else is refused, and the site sends nothing."""

    models: tuple[str, ...] = Field(min_length=1, description="base models that this site trains, by their ids")
    methods: tuple[str, ...] = Field(
        min_length=1, description="methods that it takes part in; fedloom methods tells them"
    )
    classes: tuple[str, ...] | None = Field(
        None,
        examples=[("negative", "positive")],
        description="classification of texts or images: the only classes that the server may name; left out: any",
    )


class PrivacyTable(Table):
    """What may be learned about this site's rows."""

    epsilon: float | None = Field(
        None,
        examples=[8.0],
        gt=0,
        description="privacy budget over all rounds; a run that needs more, or cannot say how much it needs, is "
        "refused. Left out: no budget, and no noise is asked for",
    )
    keep_private: bool = Field(
        False, description="true: only methods that keep one factor at the site for good, such as fedsa, are accepted"
    )
    only_sums: bool = Field(
        False,
        description="true: what is trained here leaves only as part of a secure sum ([secure_aggregation] of the run)",
    )


class SiteSettings(Table):
    """This site's own configuration. Only the site reads this file: the server is told memory_limit, no more."""

    data: str | None = Field(
        None,
        examples=["our.jsonl"],
        description=f"this site's rows: {ClientTable.model_fields['data'].description}; relative to this file. "
        "--data on the command line replaces it",
    )
    memory_limit: str | None = Field(
        None,
        examples=["6 GB"],
        description="what training may take, in MB, GB, MiB or GiB; left out: no limit. The server is told, and plans "
        "within it",
    )
    model: str | None = Field(
        None,
        examples=["models/base"],
        description="folder of the base model at this site, relative to this file; left out: its id tells where it is. "
        "Its weights must be those of the other sites",
    )
    accept: AcceptTable
    privacy: PrivacyTable = PrivacyTable()
    columns: ColumnsTable | None = Field(None, description="where the columns of this site's rows have other names")

    @property
    def memory_limit_bytes(self) -> int | None:
        """The limit in bytes; None for none."""
        return None if self.memory_limit is None else _bytes(self.memory_limit)


def read_site(path: Path) -> SiteSettings:
    """The settings of a site.toml, its paths absolute. Raises: ConfigError with every problem and its line."""
    text = text_of(path)
    raw = tables_of(text, str(path))
    site = checked_table(raw, SiteSettings, text, path)
    problems = list(_problems(site))
    if problems:
        lines = positions(text)
        raise ConfigError([problem.line(lines, raw) for problem in problems], where=path)
    folder = path.absolute().parent
    places = {
        "data": None if site.data is None else source_at(site.data, folder),
        "model": None if site.model is None else str((folder / Path(site.model).expanduser()).resolve()),
    }
    return site.model_copy(update=places)


def _problems(site: SiteSettings) -> Iterator[Problem]:
    if site.memory_limit is not None and not _bytes(site.memory_limit):
        expected = "expected an amount of memory with its unit, such as 6 GB"
        yield Problem(("memory_limit",), f"{expected}, found {site.memory_limit!r}")
    for name in site.accept.methods:
        if name not in METHODS:
            known = f"expected some of {', '.join(METHODS)}{nearest(name, METHODS)}"
            yield Problem(("accept", "methods"), f"there is no method {name!r}; {known}")
    if site.privacy.epsilon is not None and not math.isfinite(site.privacy.epsilon):
        yield Problem(("privacy", "epsilon"), f"expected a finite number, found {site.privacy.epsilon}")


def _bytes(text: str) -> int | None:
    """Bytes in "6 GB"; None if it says no amount."""
    found = _MEMORY.fullmatch(text)
    unit = _UNITS.get(found[2].upper()) if found else None
    return None if found is None or unit is None else int(float(found[1]) * unit)
