"""Values of planning as canonical JSON, and back with every field checked."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fedloom.errors import PlanError

V = TypeVar("V", bound=BaseModel)


def written(value: BaseModel) -> str:
    """Canonical: sorted keys, no spaces."""
    values = value.model_dump(mode="json")
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def read(model: type[V], text: str, *, where: object, do: str) -> V:
    """Raises: PlanError naming the field that is missing, unknown or cannot be, and what to do about it."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise PlanError(f"{field}: {first['msg']}".lstrip(": "), where=where, do=do) from error
