"""What a client says of itself before round 1, and how it travels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from torch import Tensor

from fedloom.adapters.io import from_bytes, to_bytes
from fedloom.errors import AdapterError
from fedloom.rounds.wire import FACTS, PROTOCOL, message_of

MOST_ROWS = 10**10  # of one client: its rows are its weight, and no count may drown all others by itself


@dataclass(frozen=True)
class Description:
    """Shapes, digests and counts: nothing of the content of a client's rows.

    modules: name -> (out, in) of the layers that carry LoRA.  head: the trainables that are not LoRA, as they begin.
    base_digest: of the weights.  rows_digest: of all examples and of which of them are held out, so that a run that
        goes on notices if they were changed.  train, held_out, dropped: numbers of rows.
    """

    client: str
    base: str
    base_digest: str
    dtype: str
    modules: Mapping[str, tuple[int, int]]
    labels: tuple[str, ...]
    targets_rule: str
    train: int
    held_out: int
    dropped: int
    rows_digest: str
    versions: Mapping[str, str]
    head: Mapping[str, Tensor] = field(default_factory=dict)


class _Table(BaseModel):
    """What is in the text of a description: the fields above without the tensors."""

    model_config = ConfigDict(extra="forbid", strict=True)
    client: str
    base: str
    base_digest: str
    dtype: str
    modules: dict[str, tuple[PositiveInt, PositiveInt]]
    labels: tuple[str, ...]
    targets_rule: str
    train: Annotated[int, Field(ge=1, le=MOST_ROWS)]
    held_out: Annotated[int, Field(ge=0, le=MOST_ROWS)]
    dropped: Annotated[int, Field(ge=0, le=MOST_ROWS)]
    rows_digest: str
    versions: dict[str, str]


def description_to_bytes(description: Description) -> bytes:
    """The whole description in one block of bytes."""
    table = asdict(description) | {"protocol": PROTOCOL}
    table.pop("head")
    return to_bytes({}, description.head, facts={FACTS: json.dumps(table, sort_keys=True)})


def description_from_bytes(data: bytes) -> Description:
    """The description again. Raises: AdapterError for bytes that are not one, or of another protocol."""
    _, head, facts = from_bytes(data, where="description")
    try:
        table = _Table.model_validate_json(json.dumps(message_of(facts, "description")))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, found["loc"]))
        raise AdapterError(
            "not the description of a client", where=f"description, {place}", found=found["msg"]
        ) from error
    return Description(**table.model_dump(), head=head)
