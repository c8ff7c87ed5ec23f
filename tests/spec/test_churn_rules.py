"""Settings of clients that come and go: what contradicts itself is named with its key."""

import pytest

from fedloom.aggregation.registry import METHODS
from fedloom.spec.dump import dump
from fedloom.spec.experiment import ClientTable, Experiment, RoundsTable
from fedloom.spec.late_words import late_words
from fedloom.spec.rules import problems_of

ALWAYS = ({}, {}, {})


def experiment(*clients, **tables) -> Experiment:
    given = {"training": {"rounds": 5}, **tables}
    named = tuple(ClientTable(name=name, data="x.jsonl", **keys) for name, keys in zip("abc", clients, strict=True))
    return Experiment.model_validate({"clients": [client.model_dump() for client in named], **given})


SECURE = {"secure_aggregation": {"enabled": True}}
PRIVATE = {"privacy": {"unit": "example", "delta": 1e-5, "noise_multiplier": 1.0}}
NEXT = {"rounds": {"late": "next"}}
MORE = {"rounds": {"participation": 0.5, "over_selection": 0.5}}
BAD = {
    "joins too late": (({"joins": 6}, {}, {}), {}, ("clients", 0, "joins")),
    "leaves after the end": (({}, {"leaves": 9}, {}), {}, ("clients", 1, "leaves")),
    "leaves before it joins": (({"joins": 4, "leaves": 4}, {}, {}), {}, ("clients", 0, "leaves")),
    "nobody at first": (({"joins": 2},) * 3, {}, ("rounds", "min_clients")),
    "too few later": (
        ({"leaves": 3}, {"leaves": 4}, {}),
        {"rounds": {"min_clients": 2}},
        ("rounds", "min_clients"),
    ),
    "too few for the threshold": (
        ({"leaves": 3}, {"leaves": 3}, {}),
        {**SECURE, "rounds": {"max_update_norm": 9.0}},
        ("secure_aggregation", "threshold"),
    ),
    "patience": (({"joins": 3}, {}, {}), {"training": {"rounds": 5, "patience": 2}}, ("training", "patience")),
    "gate": (({"leaves": 3}, {}, {}), {"gate": {"enabled": True}}, ("gate", "enabled")),
    "all are asked": (ALWAYS, {"rounds": {"over_selection": 0.5}}, ("rounds", "over_selection")),
    "secure": (ALWAYS, {**SECURE, **MORE}, ("rounds", "over_selection")),
    "private": (ALWAYS, {**PRIVATE, **MORE}, ("rounds", "over_selection")),
    "late, a secure sum": (ALWAYS, {**SECURE, "rounds": {"late": "next", "max_update_norm": 9.0}}, ("rounds", "late")),
    "late, robust": (ALWAYS, {**NEXT, "robust": {"enabled": True}}, ("rounds", "late")),
    "late, a gate": (ALWAYS, {**NEXT, "gate": {"enabled": True}}, ("rounds", "late")),
    "late, private clients": (
        ALWAYS,
        {**NEXT, "privacy": {"unit": "client", "delta": 1e-5, "noise_multiplier": 1.0, "max_change_norm": 1.0}},
        ("rounds", "late"),
    ),
    "staleness of nothing": (ALWAYS, {"rounds": {"staleness": 0.5}}, ("rounds", "staleness")),
    "an age of nothing": (ALWAYS, {"rounds": {"max_staleness": 2}}, ("rounds", "max_staleness")),
}


@pytest.mark.parametrize("case", BAD)
def test_contradictions_are_named(case):
    clients, tables, path = BAD[case]
    assert path in [problem.path for problem in problems_of(experiment(*clients, **tables))]


def test_sound_settings_are_none():
    assert not problems_of(experiment({"joins": 2}, {"leaves": 4}, {}, training={"rounds": 5, "patience": None}))
    assert not problems_of(experiment(*ALWAYS, **MORE))
    assert not problems_of(experiment(*ALWAYS, training={"rounds": 5, "patience": 2}, gate={"enabled": True}))
    assert not problems_of(experiment(*ALWAYS, rounds={"late": "next", "staleness": 1.0, "max_staleness": 2}))
    assert not problems_of(experiment(*ALWAYS, **PRIVATE, **NEXT))


def test_what_is_not_set_is_not_written():
    text = dump(experiment(*ALWAYS))
    assert not [key for key in ("joins", "leaves", "over_selection", "first_round", "stale") if key in text]


@pytest.mark.parametrize("name", METHODS)
def test_late_answers_need_a_method_in_which_a_change_can_be_added_later(name):
    found = problems_of(experiment(*ALWAYS, method={"name": name}, **NEXT))
    takes = name in ("loom", "flora", "flexlora", "fedit", "zeropad", "rbla", "ffa")
    assert [problem.path for problem in found] == ([] if takes else [("rounds", "late")])
    assert takes or (name in found[0].message and "loom" in found[0].message)


def test_what_happens_to_late_answers_is_said_in_words():
    usual, longer = RoundsTable(late="next"), RoundsTable(late="next", staleness=0.3, max_staleness=4)
    assert "in the next round" in late_words(usual)
    assert "its weight times 0.5;" in late_words(usual)
    assert "one of the next 4 rounds" in late_words(longer)
    assert "0.3 to the power of its age" in late_words(longer)
