"""The sum of deltas from sketches that simply add, so that a masked sum is enough for exact products of unequal ranks.

    S = sum_k w_k s_k B_k A_k          Y = S Omega          W = Psi S          P = S Pi
    Q = orthonormal basis of Y         S' = Q (Psi Q)^+ W

Y, W and P are sums over clients of B_k (A_k Omega), (Psi B_k) A_k and B_k (A_k Pi), with Omega, Psi, Pi common and
random. S' = S where Omega has at least as many columns as S has rank, as then S = Q Q^T S and W = (Psi Q) (Q^T S).
A narrower sketch loses directions, and P, which S' knows nothing of, says how much: E |(S - S') Pi|^2 = c |S - S'|^2.

One exchange, where FedASK (2507.09990) takes two: its second one adds (Q^T B_k) A_k. A client that is lost between the
two would be in Y and not in the other, and their difference would show the server what that client alone sent.
Source: Tropp et al., Practical sketching algorithms for low-rank matrix approximation (SIMAX 2017), section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fedloom.adapters.factors import Factors
from fedloom.adapters.sums import Identities, summed_delta
from fedloom.rng import generator

OVERSAMPLING = 8  # rows of Psi beyond the columns of Omega, so that Psi Q is well conditioned
PROBES = 8  # columns of Pi


@dataclass(frozen=True)
class Sketch:
    """How the deltas of one module are added in one round.

    shape: (out, in) of the layer.  width: columns of Omega.
    seed, name: of the draws, which all clients and the server make alike.
    Where the delta itself is smaller than its sketch, it is added as it is.
    """

    shape: tuple[int, int]
    width: int
    seed: int
    name: str

    @property
    def is_whole(self) -> bool:
        """Whether the delta travels as it is."""
        out, inputs = self.shape
        return out * (self.width + PROBES) + self.rows * inputs >= out * inputs

    @property
    def rows(self) -> int:
        return min(self.width + OVERSAMPLING, self.shape[0])

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Name -> shape of each part that adds."""
        out, inputs = self.shape
        if self.is_whole:
            return {"delta": (out, inputs)}
        return {"y": (out, self.width), "w": (self.rows, inputs), "p": (out, PROBES)}

    @cached_property
    def omega(self) -> Tensor:
        return self._draw("omega", self.shape[1], self.width)

    @cached_property
    def psi(self) -> Tensor:
        return self._draw("psi", self.shape[0], self.rows).T

    @cached_property
    def probes(self) -> Tensor:
        return self._draw("probes", self.shape[1], PROBES)

    def parts(self, factors: Factors) -> dict[str, Tensor]:
        """What one client adds, in float64. Shapes: as of `sizes`."""
        if self.is_whole:
            return {"delta": summed_delta([_double(factors)])}
        a, b = factors.a.double(), factors.b.double() * factors.scaling
        return {"y": b @ (a @ self.omega), "w": (self.psi @ b) @ a, "p": b @ (a @ self.probes)}

    def summed(self, parts: dict[str, Tensor]) -> Factors:
        """The sum of the deltas from the sums of the parts, in float64."""
        if self.is_whole:
            return Identities().factors(parts["delta"])
        basis, _ = torch.linalg.qr(parts["y"])
        return Factors(torch.linalg.pinv(self.psi @ basis) @ parts["w"], basis)

    def error(self, parts: dict[str, Tensor], found: Factors) -> tuple[float, float]:
        """Estimates of |S - S'|^2 and |S|^2 (Frobenius norms), from the probes; both unbiased."""
        if self.is_whole:
            return 0.0, float(parts["delta"].square().sum())
        share = self.shape[1] / PROBES
        missed = parts["p"] - found.b @ (found.a @ self.probes)
        return share * float(missed.square().sum()), share * float(parts["p"].square().sum())

    def _draw(self, what: str, length: int, count: int) -> Tensor:
        """Columns of expected norm 1: uniform entries of variance 1 / length, the same bits on every machine, which
        Gaussian ones would not be. Shape: (length, count)."""
        draws = generator(self.seed, "sketch", self.name, what)
        uniform = torch.rand(length, count, generator=draws, dtype=torch.float64)
        return (2 * uniform - 1) * math.sqrt(3 / length)


def _double(factors: Factors) -> Factors:
    return Factors(factors.a.double(), factors.b.double(), factors.scaling)


def relative(errors: list[tuple[float, float]]) -> float:
    """Over several modules: the norm of what is missing beside that of all; 0 for a sum that is nothing."""
    whole = math.fsum(size for _, size in errors)
    return math.sqrt(math.fsum(missed for missed, _ in errors) / whole) if whole > 0 else 0.0
