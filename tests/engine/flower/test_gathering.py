"""Who may take part: by key, kit, protocol, base and name; whoever may not is told why, and the others go on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fedloom.engine.flower.gathering import Gathered, Gathering
from fedloom.engine.flower.pins import Pin
from fedloom.errors import RunError
from fedloom.testing.engine import NAMES, pretend_experiment
from tests.engine.flower.grid import MemoryGrid, pretending

LATER = datetime.now(UTC) + timedelta(days=1)
PINS = {name: Pin(name.encode().hex(), LATER) for name in NAMES}


def keys(*names: str) -> dict[int, bytes]:
    return {number: name.encode() for number, name in enumerate(names, 1)}


def gathered(nodes, *, pins=None, minimum=1, facts=None, node_keys=None):
    """What became of these nodes, and who was refused why."""
    refused: dict[str, str] = {}
    grid = MemoryGrid(dict(enumerate(nodes, 1)), keys=node_keys or keys(*NAMES))
    gathering = Gathering(grid, pretend_experiment(), refused.__setitem__, pins or {}, seconds=5.0)
    found = Gathered(facts=facts or {})
    gathering.begin(found, seconds=0.0, minimum=minimum)
    return found, refused


def all_but(changed: str, node):
    """Three nodes, one of them another one."""
    return [node if name == changed else pretending(name) for name in NAMES]


def test_everybody_is_found_and_described():
    found, refused = gathered([pretending(name) for name in NAMES], pins=PINS)
    assert found.nodes == {"a": 1, "b": 2, "c": 3}
    assert set(found.descriptions) == set(NAMES)
    assert not refused


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (pretending("b", protocol=99), "another protocol"),
        (pretending("b", says="nobody"), "no client of this run"),
        (pretending("b", base_digest="f" * 64), "base model has other weights"),
        (pretending("b", client="c"), "description is of another client"),
        (pretending("b", modules={"evil": (2**40, 2**40)}), "other weights, layers"),
        (pretending("b", head={}), "other weights, layers"),
        (pretending("b", train=-1), "not the description of a client"),
        (pretending("b", train=10**400), "not the description of a client"),
        (pretending("b", modules={"q": (0, 4)}), "not the description of a client"),
        (pretending("b", versions={"torch": 2}), "not the description of a client"),
    ],
)
def test_one_that_does_not_fit_is_refused_with_a_reason_and_the_others_go_on(node, reason):
    found, refused = gathered(all_but("b", node))
    assert set(found.descriptions) == {"a", "c"}
    assert any(reason in said for said in refused.values()), refused


def test_a_node_with_another_key_than_the_kit_is_refused():
    found, refused = gathered(all_but("b", pretending("b")), pins=PINS, node_keys=keys("a", "x", "c"))
    assert "b" not in found.nodes
    assert "another key" in refused["b"]


def test_an_expired_kit_is_refused_by_its_date():
    expired = {**PINS, "b": Pin(PINS["b"].key, datetime(2020, 2, 3, tzinfo=UTC))}
    found, refused = gathered([pretending(name) for name in NAMES], pins=expired)
    assert "b" not in found.nodes
    assert "expired on 2020-02-03" in refused["b"]


def test_a_client_without_a_kit_is_refused_where_there_are_kits():
    found, _ = gathered([pretending(name) for name in NAMES], pins={name: PINS[name] for name in ("a", "c")})
    assert set(found.nodes) == {"a", "c"}


def test_of_two_nodes_that_say_the_same_name_the_first_stays():
    found, refused = gathered([pretending("a"), pretending("b"), pretending("b")])
    assert found.nodes == {"a": 1, "b": 2}
    assert "which node 2 is" in refused["b"]


def test_the_base_of_most_clients_counts():
    nodes = [pretending("a", base_digest="f" * 64), pretending("b"), pretending("c")]
    found, refused = gathered(nodes)
    assert set(found.descriptions) == {"b", "c"}
    assert "a" in refused


def test_who_comes_to_a_run_that_goes_on_has_the_base_and_the_rows_that_it_had():
    facts = {"base_digest": "0" * 64, "labels": [], "rows": {"a": "a", "b": "others", "c": "c"}}
    found, refused = gathered([pretending(name) for name in NAMES], facts=facts)
    assert set(found.descriptions) == {"a", "c"}
    assert "another rows" in refused["b"]


def test_fewer_than_the_minimum_end_it_with_their_names():
    with pytest.raises(RunError, match="at least 3 of a, b, c, found a, c"):
        gathered(all_but("b", pretending("b", protocol=99)), minimum=3)


def test_a_node_that_leaves_while_it_is_asked_ends_nothing():
    class Leaving(MemoryGrid):
        def push_messages(self, messages):
            return [""] if next(iter(messages)).metadata.dst_node_id == 2 else super().push_messages(messages)

    refused: dict[str, str] = {}
    grid = Leaving(dict(enumerate(map(pretending, NAMES), 1)), keys=keys(*NAMES))
    found = Gathered()
    Gathering(grid, pretend_experiment(), refused.__setitem__, {}, seconds=5.0).begin(found, seconds=0.0, minimum=1)
    assert set(found.descriptions) == {"a", "c"}
    assert "did not take the message" in refused["node 2"]


def test_one_that_was_too_slow_is_asked_again():
    answers = pretending("b")
    waits = {"describe": True}

    def slow(message):
        late = waits["describe"] and b"describe" in str(dict(message.content["fedloom"])).encode()
        return None if late else answers(message)

    refused: dict[str, str] = {}
    grid = MemoryGrid(dict(enumerate(all_but("b", slow), 1)), keys=keys(*NAMES))
    gathering, found = Gathering(grid, pretend_experiment(), refused.__setitem__, {}, seconds=0.2), Gathered()
    gathering.begin(found, seconds=0.0, minimum=1)
    assert "no answer in time" in refused["b"]
    waits["describe"] = False
    gathering.look(found)
    gathering.describe(found)
    assert "b" in found.descriptions


def test_who_comes_later_has_the_base_of_those_who_began():
    refused: dict[str, str] = {}
    nodes = {1: pretending("a"), 2: pretending("b")}
    grid = MemoryGrid(nodes, keys=keys(*NAMES))
    gathering, found = Gathering(grid, pretend_experiment(), refused.__setitem__, {}, seconds=5.0), Gathered()
    gathering.begin(found, seconds=0.0, minimum=1)
    nodes[3] = pretending("c", modules={"another": (4, 4)})
    gathering.look(found)
    gathering.describe(found)
    assert set(found.rows) == {"a", "b"}
    assert "other weights, layers" in refused["c"]
