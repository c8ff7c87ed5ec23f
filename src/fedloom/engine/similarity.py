"""How alike the clients' own adapters are, and who weighs how much in whose rest of the world: in the journal."""

from __future__ import annotations

import torch

from fedloom.aggregation.similarity import cosines, gram, shares
from fedloom.engine.loop import Loop
from fedloom.report.values import Similarity
from fedloom.rounds.state import RunState

EVERY_ROUND = 100  # clients; with more, whose record is large, only the last round's is written
DIGITS = 4


def journal_similarity(loop: Loop, state: RunState) -> None:
    """Write it down for methods of which the server has each client's adapter: from two clients on."""
    clients = {name: adapter for name, adapter in state.learned.clients.items() if adapter}
    if not loop.method.resumes or len(clients) < 2:
        return
    if len(clients) > EVERY_ROUND and state.round < loop.last_round:
        return
    names, products = gram(clients)
    by_examples = loop.experiment.rounds.weighting == "examples"
    weights = [float(loop.federation.rows[name].train) if by_examples else 1.0 for name in names]
    loop.journal(
        Similarity.KIND,
        round=state.round,
        clients=list(names),
        cosines=_rows(cosines(products)),
        shares=_rows(shares(products, weights)),
        weights=weights,
    )


def _rows(matrix: torch.Tensor) -> list[list[float]]:
    return [[round(value, DIGITS) for value in row] for row in matrix.tolist()]
