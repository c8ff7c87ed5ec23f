"""What a client might answer, drawn from the seed of its assignment."""

import torch

from fedloom.adapters.factors import Factors


def learned(assignment, draw):
    """Adapter and head: the start, moved on the sides that are sent, and a head drawn before it."""

    def moved(module, factors):
        a, b = (
            side + 0.3 * torch.randn(side.shape, generator=draw) if name in assignment.sends[module] else side
            for name, side in (("a", factors.a), ("b", factors.b))
        )
        return Factors(a, b, factors.scaling)

    head = {name: torch.randn(tensor.shape, generator=draw) for name, tensor in assignment.head.items()}
    return assignment.start.trainable.map(moved), head
