"""Pieces of the global delta as bytes, and the trunk that a client makes of them."""

import hashlib
from dataclasses import replace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.io import to_bytes
from fedloom.adapters.packing import Coding
from fedloom.aggregation.world import Start
from fedloom.errors import AdapterError, RunError
from fedloom.rounds import wire
from fedloom.rounds.messages import Assignment
from fedloom.rounds.piece import Piece
from fedloom.rounds.trunk import formed, piece_from_bytes, piece_to_bytes

OUT, IN = 12, 10


def factors(rank, seed, scaling=0.5):
    draw = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(rank, IN, generator=draw), torch.randn(OUT, rank, generator=draw), scaling)


def pieces_of(*adapters):
    blobs = {hashlib.sha256(data).hexdigest(): data for data in map(piece_to_bytes, adapters)}
    return tuple(Piece(digest, 1.0 + number) for number, digest in enumerate(blobs)), blobs


def assigned(*adapters, start=None, **more):
    pieces, blobs = pieces_of(*adapters)
    trainable = Adapter({"q": factors(2, 99)}) if start is None else start
    return Assignment("train", 1, "a", Start(trainable), {"q": "ab"}, {}, 0, pieces=pieces, blobs=blobs, **more)


def arrived(assignment):
    return wire.assignment_from_bytes(wire.assignment_to_bytes(assignment))


@pytest.mark.parametrize(("ranks", "written_out"), [((1, 1), False), ((3, 4), True), ((8, 1), True), ((1, 8), True)])
def test_start_and_trunk_are_the_weighted_sum(ranks, written_out):
    adapters = [Adapter({"q": factors(rank, seed)}) for seed, rank in enumerate(ranks)]
    received = arrived(assigned(*adapters))
    start = formed(received, [received.blobs[piece.digest] for piece in received.pieces]).start
    assert ("q" in start.matrices) == written_out
    wanted = adapters[0]["q"].delta() + 2 * adapters[1]["q"].delta()
    torch.testing.assert_close(start.delta()["q"].delta(), wanted, atol=1e-5, rtol=1e-5)


def test_a_piece_as_wide_as_the_layer_is_a_matrix_of_fewer_bytes():
    wide, thin = Adapter({"q": factors(8, 1)}), Adapter({"q": factors(5, 1)})
    factored, matrices = piece_from_bytes(piece_to_bytes(wide), where="here")
    assert not factored
    torch.testing.assert_close(matrices["q"], wide["q"].delta())
    assert piece_from_bytes(piece_to_bytes(thin), where="here")[0].digest() == thin.digest()
    assert len(piece_to_bytes(wide)) < len(to_bytes({"delta": wide}, {}, facts={}))


def test_a_piece_is_packed_as_the_wire_says():
    wide = Adapter({"q": factors(10, 1)})
    _, matrices = piece_from_bytes(piece_to_bytes(wide, Coding("int8", 64)), where="here")
    assert 0 < float((matrices["q"] - wide["q"].delta()).abs().max()) < 0.1


def test_a_piece_that_a_client_has_does_not_travel():
    sent = assigned(Adapter({"q": factors(1, 1)}), Adapter({"q": factors(1, 2)}))
    has = frozenset({sent.pieces[0].digest})
    received = arrived(replace(sent, has=has))
    assert received.pieces == sent.pieces
    assert set(received.blobs) == {sent.pieces[1].digest}
    assert not received.head, "a piece is no parameter of the head"


def test_a_piece_that_is_missing_at_the_server_is_named():
    sent = assigned(Adapter({"q": factors(1, 1)}))
    with pytest.raises(RunError, match="damaged or missing at the server"):
        wire.assignment_to_bytes(replace(sent, blobs={}))


def test_bytes_that_are_not_the_named_piece_are_refused():
    sent = assigned(Adapter({"q": factors(1, 1)}))
    wrong = replace(sent, blobs=dict.fromkeys(sent.blobs, piece_to_bytes(Adapter({"q": factors(1, 2)}))))
    with pytest.raises(AdapterError, match="not what was sent"):
        arrived(wrong)


@pytest.mark.parametrize("piece", [Piece("../../../etc/passwd", 1.0), Piece("0" * 64, float("nan")), Piece("a", 1.0)])
def test_what_is_no_digest_or_weight_is_refused(piece):
    sent = replace(assigned(), pieces=(piece,), has=frozenset({piece.digest}))
    with pytest.raises(AdapterError, match="no assignment"):
        arrived(sent)


@pytest.mark.parametrize(
    "data",
    [
        b"nothing",
        to_bytes({"x": Adapter()}, {}, facts={}),
        to_bytes({"delta": Adapter()}, {"q": torch.ones(3)}, facts={}),
    ],
)
def test_other_bytes_are_no_piece(data):
    with pytest.raises(AdapterError):
        piece_from_bytes(data, where="here")


@pytest.mark.parametrize("ranks", [(8, 8), (8, 1), (1, 8), (1, 1)])
def test_pieces_of_other_layers_do_not_fit(ranks):
    other = Factors(torch.randn(ranks[1], IN + 1), torch.randn(OUT, ranks[1]))
    received = arrived(assigned(Adapter({"q": factors(ranks[0], 1)}), Adapter({"q": other}), start=Adapter()))
    with pytest.raises(AdapterError):
        formed(received, [received.blobs[piece.digest] for piece in received.pieces])
