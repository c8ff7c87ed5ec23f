"""The registry is one method per file, and bad settings are named with what would be right."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from fedloom.aggregation import methods
from fedloom.aggregation.method import NoSettings
from fedloom.aggregation.registry import METHODS, checked_method, method, settings_of, settings_problems
from fedloom.errors import AggregationError

LOOM = METHODS["loom"]


def test_there_is_one_method_for_each_file():
    files = sorted(path.stem for path in Path(next(iter(methods.__path__))).glob("*.py") if path.stem != "__init__")
    assert list(METHODS) == files
    assert {
        "fedit",
        "zeropad",
        "flora",
        "flexlora",
        "rbla",
        "ffa",
        "loom",
        "fedex",
        "rolora",
        "raflora",
        "hetlora",
        "fedsa",
        "fedsvd",
    } <= set(files)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_says_what_it_is(name):
    found = method(name)
    assert found.name == name
    assert found.source
    assert found.summary
    assert found.traffic.startswith("up: ")
    assert "Down: " in found.traffic
    assert "Use it " in found.when
    assert "not " in found.when.casefold()
    assert all(field.metadata["help"] for field in fields(found.settings))
    assert settings_of(found, {}) == found.settings()


@pytest.mark.parametrize(("wrong", "nearest"), [("lom", "loom"), ("FLORA", None), ("flexlore", "flexlora")])
def test_an_unknown_name_is_answered_with_the_nearest_and_all(wrong, nearest):
    with pytest.raises(AggregationError, match=f"no method {wrong!r}.*{', '.join(METHODS)}") as refused:
        method(wrong)
    assert (f"Did you mean {nearest!r}?" in str(refused.value)) == (nearest is not None)


def test_fedit_recommends_methods_that_exist():
    assert {"zeropad", "rbla", "flora", "loom"} <= set(METHODS)


@dataclass
class Changeable:
    """Settings that are not frozen."""

    pool: float = 1.0


@dataclass(frozen=True)
class Incomplete:
    """Settings without a default."""

    pool: float


@pytest.mark.parametrize(
    ("candidate", "complaint"),
    [
        (None, "METHOD = Method"),
        (replace(LOOM, name="other"), "name of its file.*expected loom, found other"),
        (replace(LOOM, when=" "), "nothing in 'when'"),
        (replace(LOOM, settings=Changeable), "frozen dataclass"),
        (replace(LOOM, settings=dict), "frozen dataclass"),
        (replace(LOOM, settings=Incomplete), "default"),
    ],
)
def test_a_file_that_breaks_the_contract_is_refused(candidate, complaint):
    with pytest.raises(AggregationError, match=complaint):
        checked_method(candidate, "loom")


def test_settings_are_converted_and_kept():
    made = settings_of(LOOM, {"directions": "half", "pool": 3, "rank_budget": 16, "energy": 0.99})
    assert (made.directions, made.pool, made.rank_budget, made.energy) == ("half", 3.0, 16, 0.99)
    assert isinstance(made.pool, float)
    assert settings_of(METHODS["fedit"], {}) == NoSettings()


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (
            {"direction": "top"},
            "unknown setting 'direction'.*directions, power, pool, rank_budget, energy.*'directions'",
        ),
        (
            {"directions": "bottom"},
            "directions must be one of weighted, top, half, rotating, fresh, covering, not 'bottom'",
        ),
        ({"directions": ["top"]}, "directions must be one of weighted"),
        ({"pool": "wide"}, "pool must be a number, not 'wide'"),
        ({"pool": True}, "pool must be a number"),
        ({"pool": float("nan")}, "pool must be a number"),
        ({"pool": 0.5}, "pool must be at least 1.0, not 0.5"),
        ({"rank_budget": 2.5}, "rank_budget must be a whole number"),
        ({"rank_budget": True}, "rank_budget must be a whole number"),
        ({"rank_budget": 0}, "rank_budget must be at least 1"),
        ({"energy": 0}, "energy must be above 0.0 and at most 1.0"),
        ({"energy": 1.1}, "energy must be above 0.0 and at most 1.0, not 1.1"),
    ],
)
def test_a_bad_setting_is_named_with_what_would_be_right(raw, complaint):
    with pytest.raises(AggregationError, match=complaint):
        settings_of(LOOM, raw)


def test_all_bad_settings_are_listed_at_once():
    lines = settings_problems(LOOM, {"pol": 1, "pool": 0, "directions": "top", "energy": 2})
    assert [line.split()[0] for line in lines] == ["unknown", "pool", "energy"]


def test_a_method_without_settings_says_so():
    with pytest.raises(AggregationError, match="fedit has no settings"):
        settings_of(METHODS["fedit"], {"pool": 1})
