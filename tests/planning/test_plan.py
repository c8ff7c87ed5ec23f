"""The plan as a value and as a file."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.errors import PlanError
from fedloom.planning.cost import usage
from fedloom.planning.plan import Plan, from_json, planned, to_json
from fedloom.planning.problem import Limits, covered
from tests.planning.small import client_of, problem_of


@pytest.fixture(scope="module")
def problem():
    slow = Limits(seconds=8.0, memory_bytes=6e4, up_bytes=700.0)
    return problem_of(client_of("big", 3.0, speed=4.0), client_of("small", 1.0, speed=0.5, limits=slow))


@pytest.fixture(scope="module")
def plan(problem) -> Plan:
    return planned(problem)


def test_a_plan_says_what_its_choices_cost(problem, plan):
    for client in problem.clients:
        one = plan.of(client.name)
        cost = usage(problem.architecture, client.machine, client.work, one.choice)
        assert (one.memory_bytes, one.seconds, one.up_bytes, one.down_bytes) == cost.values()
        assert one.covered == pytest.approx(covered(problem, one.choice))
        assert one.batch * one.accumulation == client.work.examples
    assert plan.covered == pytest.approx(0.75 * plan.of("big").covered + 0.25 * plan.of("small").covered)


def test_limits_stand_beside_what_is_used(plan):
    small = plan.of("small")
    assert small.allowed.model_dump() == {"memory_bytes": 6e4, "seconds": 8.0, "up_bytes": 700.0, "down_bytes": None}
    assert small.memory_bytes <= small.allowed.memory_bytes


def test_the_straggler_is_the_slowest(plan):
    assert plan.straggler.client == "small"
    assert plan.round_seconds == plan.of("small").seconds > plan.of("big").seconds
    assert plan.total_bytes == sum(one.up_bytes + one.down_bytes for one in plan.clients)


def test_the_gain_over_the_best_uniform_configuration(plan):
    more, longer = plan.gain
    assert plan.uniform is not None
    assert more == pytest.approx(plan.covered / plan.uniform.covered)
    assert longer == pytest.approx(plan.round_seconds / plan.uniform.round_seconds)
    assert more > 1, "the big client trains more than the small one could"


def test_no_gain_is_told_where_no_uniform_configuration_fits():
    found = planned(problem_of(client_of("a", limits=Limits(up_bytes=300.0))))
    assert found.uniform is None
    assert found.gain is None


def test_an_unknown_client_is_named(plan):
    with pytest.raises(PlanError, match="client 'other'"):
        plan.of("other")


def test_there_and_back(plan):
    text = to_json(plan)
    assert from_json(text) == plan
    assert to_json(from_json(text)) == text
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


def paths(value, path=()):
    """Every place in the JSON values."""
    yield path
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(part, (*path, key))


def changed(values, path, act):
    """A copy in which act(container, key) was done at a path."""
    copy = json.loads(json.dumps(values))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    act(inner, path[-1])
    return copy


NULL_ALLOWED = {"uniform", "memory_bytes", "seconds", "up_bytes", "down_bytes"}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_field_may_be_of_another_type_missing_or_unknown(plan, data):
    values = json.loads(to_json(plan))
    path = data.draw(st.sampled_from([path for path in paths(values) if path]))
    key = path[-1]
    wrong: list = [[], {"x": 1}, True, "" if key == "client" or "ranks" in path else "text"]
    if key not in ("worth", "bound"):
        wrong.append(-1)
    if key not in NULL_ALLOWED:
        wrong.append(None)
    value = data.draw(st.sampled_from(wrong))
    broken = [changed(values, path, lambda inner, key: inner.__setitem__(key, value))]
    if isinstance(key, str):
        broken.append(changed(values, path, lambda inner, key: inner.pop(key)))
        broken.append(changed(values, path, lambda inner, key: inner.__setitem__(f"{key}_more", 1)))
    for one in broken:
        with pytest.raises(PlanError, match=r"plan\.json"):
            from_json(json.dumps(one))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"clients":[]}', '{"clients":[1]}', "[" * 100_000])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(PlanError, match=r"plan\.json"):
        from_json(text)


def test_wrong_values_are_named_with_their_place(plan):
    text = to_json(plan)
    for old, new, named in (
        ('"bits":32', '"bits":5', r"clients\.0\.bits: .* 32, 16, 8 or 4"),
        ('"client":"small"', '"client":"big"', "'big' has two plans"),
        ('"format":1', '"format":2', "format: .* equal to 1"),
        ('"batch":', '"bitch":', r"clients\.0\.batch"),
        ('["1.q",', '["1.up",', "a module has two ranks"),
    ):
        assert old in text
        with pytest.raises(PlanError, match=named):
            from_json(text.replace(old, new, 1))


def test_numbers_that_json_does_not_have_are_refused(plan):
    with pytest.raises(PlanError):
        from_json(to_json(plan).replace('"worth":', '"worth":NaN,"x":', 1))
    with pytest.raises(PlanError, match="worth"):
        from_json(to_json(plan).replace(f'"worth":{json.dumps(plan.worth)}', '"worth":1e999', 1))
