"""The mean of the clients' heads: all alike, or for a classifier's last layer class by class.

All alike, a class that one client of ten has is changed by a tenth of what that client learned of it, and by what nine
others learned of its absence. Class by class (`Contribution.class_examples`), row c of the last layer is

    row_c = sum_k w_kc row_kc / sum_k w_kc,    w_kc = w_k (n_kc / n_k + SMOOTH / C)

of the clients k with weights w_k, n_k examples and n_kc of class c, of C classes; by examples (w_k = n_k) that is
nearly a mean over examples of class c. SMOOTH: what clients learn of the absence of a class counts a little, without
which rows of classes that are never together at one client would not be told apart; of a class that nobody has, it is
the mean by w_k. Other tensors of the head are averaged as ever. Ours; FedRS (Li and Zhan, 2021) has the same aim: it
slows down, while a client trains, the rows of classes that the client does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedloom.aggregation.summand import Summand
from fedloom.aggregation.term import Term

SMOOTH = 0.1  # of a client's weight, spread over all classes
_OWNED = "|owned"  # the weight behind each row


def lifted_head(head: Mapping[str, Tensor], weight: float, class_examples: Mapping[str, Sequence[int]]) -> Summand:
    """One client's head as what is added up. class_examples: as of `Contribution`, none for those averaged alike."""
    owned = {name: weight * _shares(counts) for name, counts in class_examples.items()}
    alike = {name: tensor for name, tensor in head.items() if name not in owned}
    return Summand(
        sums={name: _by_row(head[name], rows) for name, rows in owned.items()}
        | {name + _OWNED: rows for name, rows in owned.items()},
        terms={name: Term(tensor, weight, tuple(tensor.shape)) for name, tensor in alike.items()},
    )


def by_class(sums: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that are averaged class by class, from the sum of `lifted_head`. before: the head so far."""
    return {
        name: (sums[name] / _beside(sums[name + _OWNED], old)).to(old.dtype)
        for name, old in before.items()
        if name + _OWNED in sums
    }


def alike(sums: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sums of the tensors that are averaged as ever."""
    return {name: sums[name] for name in before if name in sums and name + _OWNED not in sums}


def _shares(counts: Sequence[int]) -> Tensor:
    rows = torch.tensor(counts, dtype=torch.float64)
    return rows / rows.sum() + SMOOTH / len(rows)


def _by_row(tensor: Tensor, rows: Tensor) -> Tensor:
    return tensor.double() * _beside(rows, tensor)


def _beside(rows: Tensor, tensor: Tensor) -> Tensor:
    """Shaped so that it multiplies rows. Shape: (classes, 1, ..)."""
    return rows.reshape(-1, *(1 for _ in tensor.shape[1:]))
