"""How alike the clients' own adapters are, and who weighs how much in whose rest of the world: in the journal."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedloom.aggregation.similarity import cosines, gram, shares
from fedloom.aggregation.world import Lending
from fedloom.engine.loop import Loop
from fedloom.report.values import Similarity
from fedloom.rounds.state import RunState

EVERY_ROUND = 100  # clients; with more, whose record is large, only the last round's is written
DIGITS = 4


def journal_similarity(loop: Loop, state: RunState) -> None:
    """Write it down for methods of which the server has each client's adapter: from two clients on.

    A client whose contribution is too old to be borrowed has shares of 0, and weight 0.
    """
    clients = {name: adapter for name, adapter in state.learned.clients.items() if adapter}
    if loop.method.lends is None or len(clients) < 2:
        return
    if len(clients) > EVERY_ROUND and state.round < loop.last_round:
        return
    names, products = gram(clients)
    lending = loop.method.lends(state.learned, loop.world)
    weights = [lending.weights.get(name, 0.0) for name in names]
    found = shares(products, [weight or 1.0 for weight in weights], _borrows(names, lending))
    loop.journal(
        Similarity.KIND,
        round=state.round,
        clients=list(names),
        cosines=_rows(cosines(products)),
        shares=_rows(found),
        weights=weights,
    )


def _borrows(names: Sequence[str], lending: Lending) -> torch.Tensor:
    """Whether the client of a row borrows from that of a column. Shape: (K, K)."""
    lends = torch.tensor([name in lending.weights for name in names])
    if lending.among is None:
        return lends.expand(len(names), -1)
    return torch.tensor([[other in lending.among[name] for other in names] for name in names]) & lends


def _rows(matrix: torch.Tensor) -> list[list[float]]:
    return [[round(value, DIGITS) for value in row] for row in matrix.tolist()]
