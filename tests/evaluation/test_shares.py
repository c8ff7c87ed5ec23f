"""Shares by module become shares by block, token and run."""

import pytest

from fedloom.evaluation.shares import TokenShares, block_of, by_block


@pytest.mark.parametrize(
    ("module", "block"),
    [
        ("model.layers.3.self_attn.q_proj", "model.layers.3"),
        ("transformer.h.11.attn.c_attn", "transformer.h.11"),
        ("encoder.block.0.layer.1.DenseReluDense.wi", "encoder.block.0"),
        ("vit2.embed.proj", "vit2.embed.proj"),
        ("classifier", "classifier"),
    ],
)
def test_a_block_ends_at_the_first_number(module, block):
    assert block_of(module) == block


def test_blocks_are_means_in_the_order_of_their_numbers():
    values = {"m.10.q": (0.0, 1.0), "m.2.q": (0.2, 0.4), "m.2.v": (0.4, 0.8), "pooler": (1.0, 0.0)}
    found = by_block(values)
    assert list(found) == ["m.2", "m.10", "pooler"]
    assert found["m.2"] == pytest.approx([0.3, 0.6])
    shares = TokenShares("run", "A", "fedalt", 1, ("a", "b"), values)
    assert shares.by_token == pytest.approx([0.4, 0.55])
    assert shares.mean == pytest.approx(0.475)
