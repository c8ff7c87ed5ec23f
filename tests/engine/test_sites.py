"""What a client's rows become where they are trained on: canaries too."""

from __future__ import annotations

import pytest

import fedloom
from fedloom.engine.events import Stage
from fedloom.engine.member import Member
from fedloom.engine.sites import load_sites
from fedloom.errors import DataError
from fedloom.rounds.description import description_from_bytes
from fedloom.testing.federation import tiny_federation


@pytest.fixture(scope="module", params=["generation", "classification"])
def pilots(request, tmp_path_factory):
    """The same federation without canaries, and with 20 at each client."""
    plain = fedloom.load(tiny_federation(tmp_path_factory.mktemp(request.param), task=request.param, ranks=(4, 2)))
    privacy = plain.privacy.model_copy(update={"canaries": 20})
    return plain, plain.model_copy(update={"privacy": privacy})


def ids(rows):
    return [(list(row.input_ids), row.label) for row in rows]


def test_canaries_are_trained_on_as_rows_and_never_measured(pilots):
    said = []
    plain, planted = load_sites(pilots[0]), load_sites(pilots[1], said.append)
    for name, site in planted.by_client.items():
        before = plain.by_client[name]
        included = [row for row, coin in zip(site.canaries, site.included, strict=True) if coin]
        assert 0 < len(included) < len(site.canaries) == 20
        assert ids(site.own) == ids(before.train) == ids(before.own)
        assert ids(site.train) == ids(before.train) + ids(included)
        assert ids(site.held_out) == ids(before.held_out)
        assert planted.federation().rows[name].train == len(before.train) + len(included)
        assert Stage(f"20 canaries are planted at {name}, for fedloom audit-privacy") in said


def test_a_client_in_a_process_of_its_own_plants_the_same(pilots, tmp_path):
    described = description_from_bytes(Member(tmp_path).describe(pilots[1], "site-1"))
    assert described.rows_digest == load_sites(pilots[1]).by_client["site-1"].digest


def test_canaries_that_are_cut_away_are_refused(pilots, monkeypatch):
    """No text is cut to nothing by the tokenizers at hand."""
    from fedloom.engine import sites

    encode_all = sites.encode_all
    monkeypatch.setattr(sites, "encode_all", lambda examples, *rest, **more: encode_all(examples, *rest, **more)[:-1])
    with pytest.raises(DataError, match=r"client 'site-0': canaries do not fit into max_tokens.*above 96"):
        load_sites(pilots[1])
