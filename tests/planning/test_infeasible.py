"""A client that cannot train anything: the one limit that must move, and by exactly how much."""

from dataclasses import fields, replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedloom.errors import PlanError
from fedloom.planning.infeasible import amount, explained, shortages, smallest_choices
from fedloom.planning.problem import Limits
from fedloom.planning.search import best_of
from tests.oracles.brute import best_worth
from tests.planning.small import client_of, problem_of

tight = st.builds(
    Limits,
    memory_bytes=st.floats(1e4, 4e4),
    seconds=st.floats(0.1, 4),
    up_bytes=st.floats(50, 400),
    down_bytes=st.floats(150, 600),
)
LIMITS = [field.name for field in fields(Limits)]
FIELD = dict(zip(("memory", "seconds", "up", "down"), LIMITS, strict=True))


def moved(client, shortage, factor=1.0):
    return replace(client, limits=replace(client.limits, **{FIELD[shortage.limit]: factor * shortage.needs}))


@settings(max_examples=60, deadline=None)
@given(tight)
def test_what_is_said_to_suffice_suffices_and_nothing_less_does(limits):
    client = client_of(limits=limits)
    problem = problem_of(client)
    short = shortages(problem, client)
    assert (short == ()) == (best_of(problem, client) is not None)
    assume(short)
    enough = client
    for one in short:
        assert one.missing > 0
        enough = moved(enough, one)
    assert best_of(problem, enough) is not None
    for one in short:
        assert best_of(problem, moved(enough, one, 0.999)) is None or len(short) > 1


@settings(max_examples=40, deadline=None)
@given(tight)
def test_the_limit_that_is_named_has_to_move_least(limits):
    """Each limit in turn is lifted to what the named one needs, relatively: no other one alone would do for less."""
    client = client_of(limits=limits)
    problem = problem_of(client)
    short = shortages(problem, client)
    assume(len(short) == 1)
    assert short[0].alone
    factor = 0.999 * short[0].needs / short[0].has
    for name in LIMITS:
        lifted = replace(client, limits=replace(limits, **{name: factor * getattr(limits, name)}))
        assert best_of(problem, lifted) is None


def test_memory_alone_by_hand():
    """The upper block's square module at 4 bits, one example: nothing takes less memory."""
    client = client_of(memory_bytes=2e4)
    problem = problem_of(client)
    (short,) = shortages(problem, client)
    least = min(cost.memory_bytes for _, cost in smallest_choices(problem, client))
    assert (short.limit, short.needs, short.has) == ("memory", least, 2e4)
    assert (short.choice.bits, short.choice.batch, short.choice.ranks) == (4, 1, (("1.q", 1),))
    text = short.text()
    assert text.startswith("memory: needs ")
    assert "at 4 bits, batch 1, rank 1 of one module; has 20 kB: " in text
    assert text.endswith(f"{amount('memory', least - 2e4)} more")


def test_limits_that_exclude_each_other_are_all_named():
    """Neither more memory nor more time alone helps: even the fastest is too slow, even the smallest is too large."""
    client = client_of(limits=Limits(memory_bytes=1e4, seconds=0.1))
    problem = problem_of(client)
    short = shortages(problem, client)
    assert [one.limit for one in short] == ["memory", "seconds"]
    assert not any(one.alone for one in short)
    error = explained(problem, [client])
    assert "no single limit suffices: all of these must move" in str(error)
    assert "deadline: needs" in str(error)


def test_time_is_named_where_memory_allows_only_what_is_too_slow():
    """With memory for batch 1 at 4 bits only, the deadline that batch 4 at 32 bits would keep is out of reach."""
    roomy = client_of()
    problem = problem_of(roomy)
    smallest = list(smallest_choices(problem, roomy))
    leanest = min((cost for _, cost in smallest), key=lambda cost: cost.memory_bytes)
    assert min(cost.seconds for _, cost in smallest) < 0.9 * leanest.seconds
    client = client_of(limits=Limits(memory_bytes=leanest.memory_bytes, seconds=0.99 * leanest.seconds))
    (short,) = shortages(problem, client)
    assert short.limit == "seconds"
    assert short.needs == pytest.approx(leanest.seconds)


def test_clients_of_one_kind_stand_in_one_line():
    lacking = [client_of(name, memory_bytes=1e4) for name in "abc"]
    error = explained(problem_of(*lacking), lacking)
    assert isinstance(error, PlanError)
    assert "nothing that 3 clients could train" in str(error)
    assert str(error).count("\n") == 1
    assert "clients 'a', 'b', 'c': memory" in str(error)


def test_a_client_with_room_lacks_nothing():
    problem = problem_of(client_of())
    assert shortages(problem, client_of()) == ()
    assert best_worth(problem, client_of()) is not None


@pytest.mark.parametrize(
    ("limit", "value", "text"),
    [
        ("memory", 612_000_000, "612 MB"),
        ("memory", 1.2345e9, "1.23 GB"),
        ("up", 999, "999 B"),
        ("down", 4096, "4.1 kB"),
        ("seconds", 59, "59 s"),
        ("seconds", 750, "12.5 min"),
        ("seconds", 7200, "2 h"),
    ],
)
def test_amounts_as_people_read_them(limit, value, text):
    assert amount(limit, value) == text
