"""Field by field: types, ranges, unknown and missing keys, in words of the configuration file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from fedloom.spec.dump import literal
from fedloom.spec.experiment import ClientTable, Experiment
from fedloom.spec.problem import Path, Problem, nearest

T = TypeVar("T", bound=BaseModel)

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text in quotes",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "finite_number": "a finite number",
    "string_too_short": "at least {min_length} character",
    "string_too_long": "at most {max_length} characters",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "at least {ge}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "too_short": "a list of at least {min_length}",
    "datetime_type": "a date and time, such as 2030-01-31T12:00:00Z",
    "timezone_aware": "a date and time with its offset, such as 2030-01-31T12:00:00Z",
}
_CLIENTS = "one [[clients]] table (in double brackets) for each client"
_PLACEHOLDER = {"name": "placeholder", "data": "docstrings:json"}


def validate(raw: dict[str, Any]) -> tuple[Experiment | None, list[Problem]]:
    """The experiment, and what is wrong with its fields.

    Where something is, the experiment is that of the other fields, so that the rules can find more; None if
    nothing can be made of it.
    """
    repaired = _tuples(raw)
    problems: list[Problem] = []
    for _ in range(4):  # a repair may uncover a next problem, such as a name that is left out in place of a bad one
        try:
            return Experiment.model_validate(repaired, strict=True), problems
        except ValidationError as error:
            details = _by_path(error, repaired)
            seen = {problem.path for problem in problems}
            problems += [_problem(path, found, Experiment) for path, found in details.items() if path not in seen]
            for path in details:
                _repair_(repaired, path)
    return None, problems


def table_of(model: type[T], raw: dict[str, Any]) -> tuple[T | None, list[Problem]]:
    """A table of another file in the same way, but nothing is made of one that has problems."""
    plain = _tuples(raw)
    try:
        return model.model_validate(plain, strict=True), []
    except ValidationError as error:
        return None, [_problem(path, found, model) for path, found in _by_path(error, plain).items()]


def _tuples(value: Any) -> Any:
    """A deep copy in which lists are tuples, as the fields are."""
    if isinstance(value, dict):
        return {name: _tuples(part) for name, part in value.items()}
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def _by_path(error: ValidationError, raw: Any) -> dict[Path, list[Any]]:
    """path -> what pydantic found there: several things where a field may be of several types."""
    found: dict[Path, list[Any]] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] == "too_short" and raw.get("clients"):
            continue  # all clients have problems of their own
        found.setdefault(_real_path(detail, raw), []).append(detail)
    return found


def _real_path(detail: Any, raw: Any) -> Path:
    """Without the names of types that pydantic adds for fields of several types."""
    path: Path = ()
    inside = raw
    for part in detail["loc"]:
        try:
            inside = inside[part]
        except (LookupError, TypeError):
            return (*path, part) if detail["type"] in ("missing", "extra_forbidden") else path
        path += (part,)
    return path


def _problem(path: Path, details: list[Any], model: type[BaseModel]) -> Problem:
    detail = details[0]
    if detail["type"] == "extra_forbidden":
        return Problem(path, "unknown key" + nearest(path[-1], _keys_beside(path, model)))
    if path == ("clients",):
        return Problem(path, f"expected {_CLIENTS}")
    if detail["type"] == "missing":
        return Problem(path, "missing")
    choices = [choice for each in details for choice in _choices(each)]
    expected = " or ".join(dict.fromkeys(_expected(each, path) for each in details))
    suggestion = nearest(detail["input"], choices) if isinstance(detail["input"], str) else ""
    return Problem(path, f"expected {expected}, found {_shown(detail['input'])}{suggestion}")


def _expected(detail: Any, path: Path) -> str:
    if detail["type"] == "string_pattern_mismatch":
        return f"{ClientTable.model_fields['name'].description}; at most 64, not beginning with a mark"
    if detail["type"] == "model_type":
        return f"a table [{'.'.join(map(str, path))}]"
    return _EXPECTED.get(detail["type"], detail["msg"]).format(**detail.get("ctx", {}))


def _choices(detail: Any) -> Iterator[str]:
    if detail["type"] == "literal_error":
        yield from (part.strip(" '") for part in detail["ctx"]["expected"].replace(" or ", ",").split(","))


def _keys_beside(path: Path, model: Any) -> list[str]:
    """The keys that the table around a path has, seen from the table at the top."""
    for part in path[:-1]:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation)
    return list(model.model_fields)


def _model_in(annotation: Any) -> Any:
    kinds = (annotation, *get_args(annotation))
    return next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))


def _shown(value: Any) -> str:
    text = literal(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _repair_(raw: Any, path: Path) -> None:
    """Take out what is wrong; where it must be there, put in something that is not."""
    around = raw
    for part in path[:-1]:
        around = around[part]
    if path == ("clients",):
        around["clients"] = (_PLACEHOLDER,)
    elif isinstance(around, dict) and path[-1] in around:
        del around[path[-1]]
    elif isinstance(around, dict):
        around[path[-1]] = f"placeholder-{path[1]}" if path[0] == "clients" else None
