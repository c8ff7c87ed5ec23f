"""What a user asks for of secure aggregation."""

from __future__ import annotations

from pydantic import Field

from fedloom.spec.table import Table


class SecureAggregationTable(Table):
    """Whether the server sees only the sum of what clients send, never one of them."""

    enabled: bool = Field(False, description="clients mask what they send, so that only the sum can be read")
    threshold: int | None = Field(
        None,
        examples=[3],
        ge=2,
        description="so many clients of a round must stay until its end, or it fails and reveals nothing; left out: "
        "two thirds of those drawn, rounded up",
    )

    sketch_width: int | None = Field(
        None,
        examples=[32],
        ge=1,
        description="methods that add products (loom, flora, flexlora, fedex, fedalt): most directions that a layer's "
        "sum can have; left out: as many as the ranks of the round's clients add up to, which is exact",
    )

    def threshold_of(self, clients: int) -> int:
        """The threshold of a round of so many clients."""
        return max(2, -(-2 * clients // 3)) if self.threshold is None else self.threshold
