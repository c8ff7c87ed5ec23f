"""Halves of equal size and the summary of the importance benchmark, from cells that are made up."""

import importance

WIDTHS = {"a": 10, "b": 10, "c": 20, "d": 20, "e": 20}


def test_a_half_takes_no_more_than_half_of_the_parameters_in_the_given_order():
    assert importance.half(["d", "c", "a", "b", "e"], WIDTHS) == ("c", "d")
    assert importance.half(["a", "c", "d", "b"], WIDTHS) == ("a", "b", "c")


def test_the_important_half_is_by_share_for_each_parameter():
    shares = {"a": 0.3, "b": 0.1, "c": 0.4, "d": 0.15, "e": 0.05}  # 3, 1, 2, 0.75, 0.25 in a hundredth
    chosen = importance.choices(shares, WIDTHS, 0)
    assert chosen["important"] == ("a", "b", "c")
    assert chosen["unimportant"] == ("b", "d") or chosen["unimportant"] == ("d", "e")
    assert len({chosen[f"random {number}"] for number in range(importance.DRAWS)}) > 1
    assert chosen == importance.choices(shares, WIDTHS, 0)


def test_the_summary_compares_within_a_seed():
    def cell(seed, what, loss):
        return {"seed": seed, "what": what, "loss": loss, "accuracy": 0.5, "parameters": 40}

    cells = [
        {"seed": 0, "what": "warm-up", "importance_seconds": 1.0, "training_seconds": 99.0},
        {"seed": 1, "what": "warm-up", "importance_seconds": 2.0, "training_seconds": 51.0},
        *(cell(0, what, loss) for what, loss in (("all", 1), ("important", 2), ("random 0", 3), ("unimportant", 5))),
        *(cell(1, what, loss) for what, loss in (("all", 6), ("important", 7), ("random 0", 6.5), ("unimportant", 9))),
    ]
    found = importance.summary(cells)
    assert found["better_than_random"] == "1 of 2"
    assert found["means"]["random"]["loss"] == 4.75
    assert found["cost_share"] == 0.02
