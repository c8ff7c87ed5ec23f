"""Settings of clients that come and go: what contradicts itself is named with its key."""

import pytest

from fedloom.spec.dump import dump
from fedloom.spec.experiment import ClientTable, Experiment
from fedloom.spec.rules import problems_of

ALWAYS = ({}, {}, {})


def experiment(*clients, **tables) -> Experiment:
    given = {"training": {"rounds": 5}, **tables}
    named = tuple(ClientTable(name=name, data="x.jsonl", **keys) for name, keys in zip("abc", clients, strict=True))
    return Experiment.model_validate({"clients": [client.model_dump() for client in named], **given})


SECURE = {"secure_aggregation": {"enabled": True}}
PRIVATE = {"privacy": {"unit": "example", "delta": 1e-5, "noise_multiplier": 1.0}}
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
}


@pytest.mark.parametrize("case", BAD)
def test_contradictions_are_named(case):
    clients, tables, path = BAD[case]
    assert path in [problem.path for problem in problems_of(experiment(*clients, **tables))]


def test_sound_settings_are_none():
    assert not problems_of(experiment({"joins": 2}, {"leaves": 4}, {}, training={"rounds": 5, "patience": None}))
    assert not problems_of(experiment(*ALWAYS, **MORE))
    assert not problems_of(experiment(*ALWAYS, training={"rounds": 5, "patience": 2}, gate={"enabled": True}))


def test_what_is_not_set_is_not_written():
    text = dump(experiment(*ALWAYS))
    assert not [key for key in ("joins", "leaves", "over_selection", "first_round") if key in text]
