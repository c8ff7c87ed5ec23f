"""The global delta in pieces: what is sent is what the server has, in as few numbers as possible."""

from dataclasses import replace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import ROUNDING, distance, norm, spectra, stack_adapters
from fedloom.adapters.factors import Factors
from fedloom.aggregation.server_rule import ServerOptimizer
from fedloom.aggregation.world import GlobalState
from fedloom.rounds.chain import Chain, extended, numbers_of
from fedloom.rounds.piece import holding
from fedloom.rounds.state import RunState

SHAPE = (60, 40)
NONE = ServerOptimizer()
MOMENTUM = ServerOptimizer("momentum", 1.5, 0.4)


class Server:
    """Rounds of a server whose method adds a change of some rank; pieces are kept by names."""

    def __init__(self, optimizer=NONE):
        self.optimizer, self.pieces, self.draw = optimizer, {}, torch.Generator().manual_seed(1)
        self.state = RunState(GlobalState())

    def write(self, piece):
        name = f"{len(self.pieces):064x}"
        self.pieces[name] = piece
        return name

    def round(self, rank=2, change=None, known=True, moved=None):
        before = self.state
        a, b = (torch.randn(*size, generator=self.draw) for size in ((rank, SHAPE[1]), (SHAPE[0], rank)))
        change = Adapter({"q": Factors(a, b)}) if change is None else change
        momentum = stack_adapters([scaled(before.learned.momentum, self.optimizer.beta1), change])
        rate = self.optimizer.learning_rate
        if self.optimizer.rule == "none":
            momentum, rate, step = Adapter(), 1.0, change
        else:
            step = momentum
        shared = stack_adapters([before.learned.shared, scaled(step, rate)]) if moved is None else moved
        learned = before.learned.next(shared=compact(shared), momentum=compact(momentum))
        after = replace(before, learned=learned, change=change if known else None)
        self.state = replace(after, chain=extended(before, after, self.optimizer, self.write), change=None)
        return self.state.chain

    def off(self):
        """How far the pieces are from the delta."""
        chain, delta = self.state.chain, self.state.learned.delta()
        total = stack_adapters([scaled(self.pieces[link.digest], link.weight) for link in chain.links])
        return distance(total, delta) / norm(delta)


def compact(adapter):
    found = spectra(adapter, tolerance=ROUNDING)
    return Adapter().updated({module: directions.factors() for module, directions in found.items()})


def scaled(adapter, factor):
    return adapter.map(lambda _, factors: factors.scaled(factor))


@pytest.mark.parametrize("optimizer", [ServerOptimizer(), MOMENTUM])
def test_pieces_are_the_delta_and_only_the_change_is_new(optimizer):
    server = Server(optimizer)
    for number in range(1, 6):
        chain = server.round()
        assert len(chain.links) == len(server.pieces) == number
        assert chain.links[-1].numbers == 2 * sum(SHAPE)
        assert server.off() < 1e-5


def test_momentum_moves_the_weights_of_earlier_pieces():
    server = Server(MOMENTUM)
    server.round()
    weights = [link.weight for link in server.round().links]
    assert weights == [1.5 + 1.5 * 0.4, 1.5]


def test_a_chain_begins_anew_where_it_is_long_and_takes_the_momentum_along():
    server, begun, lengths = Server(MOMENTUM), False, []
    for _ in range(75):
        chain = server.round(rank=1)
        begun = begun or not chain.has_momentum
        lengths.append(len(chain.links))
        assert chain.numbers <= 3 * numbers_of(server.state.learned.delta())
        assert server.off() < 1e-4
    assert begun, "it was whole once"
    assert 1 in lengths[5:], lengths
    assert lengths[lengths.index(1, 5) + 1] == 3, "the whole, its momentum, and the change"


@pytest.mark.parametrize("why", ["not known", "as wide as the layer", "compressed", "adam"])
def test_the_delta_is_sent_whole_where_the_change_is_not_few_factors(why):
    server = Server(ServerOptimizer("adam") if why == "adam" else ServerOptimizer())
    server.round()
    other = Adapter({"q": Factors(torch.randn(1, SHAPE[1]), torch.randn(SHAPE[0], 1))})
    chain = server.round(
        rank=40 if why == "as wide as the layer" else 2,
        known=why != "not known",
        moved=other if why == "compressed" else None,
    )
    assert len(chain.links) == 1
    assert server.off() < 1e-6


def test_nothing_learned_is_no_piece():
    server = Server()
    nothing = Adapter({"q": Factors(torch.zeros(2, SHAPE[1]), torch.zeros(SHAPE[0], 2))})
    assert server.round(change=nothing).links == ()


def test_what_a_client_has_is_a_beginning_of_the_chain_or_nothing():
    server = Server()
    server.round()
    earlier = holding(server.state.chain.pieces)
    chain = server.round()
    assert chain.held(earlier) == {chain.links[0].digest}
    assert chain.held(holding(chain.pieces)) == {link.digest for link in chain.links}
    assert chain.held("") == chain.held("something else") == frozenset()


def test_a_chain_is_read_back_as_it_was_and_an_older_run_has_none():
    server = Server(MOMENTUM)
    server.round()
    chain = server.round()
    assert Chain.from_table(chain.as_table()) == chain
    assert not Chain.from_table(None).known
