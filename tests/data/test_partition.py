"""The laws of a partition: each row to exactly one client, the same every time, skewed as asked."""

from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedloom.data.partition import partition
from fedloom.errors import DataError
from fedloom.spec.experiment import PartitionTable


def rows_of(values):
    return [{"kind": value} for value in values]


def clients(count):
    return [f"c{number}" for number in range(count)]


TABLES = st.one_of(
    st.just(PartitionTable(kind="iid")),
    st.just(PartitionTable(kind="column", column="kind")),
    st.floats(0.05, 50).map(lambda alpha: PartitionTable(kind="dirichlet", column="kind", alpha=alpha)),
)


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=80), st.integers(1, 5), TABLES, st.integers(0, 99))
def test_each_row_goes_to_exactly_one_client_and_the_same_seed_repeats_it(values, count, table, seed):
    rows = rows_of(values)
    try:
        shares = partition(rows, clients(count), table, seed)
    except DataError:  # a client without two rows; see test_an_impossible_partition_is_refused
        assume(False)
    assert list(shares) == clients(count)
    assert sorted(position for share in shares.values() for position in share) == list(range(len(rows)))
    assert all(len(share) >= 2 and share == sorted(share) for share in shares.values())
    assert shares == partition(rows, clients(count), table, seed)
    if table.kind == "column":
        owners = Counter(value for share in shares.values() for value in {values[row] for row in share})
        assert set(owners.values()) == {1}


@pytest.mark.parametrize("table", [PartitionTable(), PartitionTable(kind="dirichlet", column="kind", alpha=5)])
def test_another_seed_divides_otherwise(table):
    rows = rows_of("abcd" * 50)
    assert partition(rows, clients(3), table, 1) != partition(rows, clients(3), table, 2)


def test_iid_shares_are_equal():
    sizes = [len(share) for share in partition(rows_of("a" * 11), clients(3), PartitionTable(), 7).values()]
    assert sorted(sizes) == [3, 4, 4]


def test_values_are_spread_by_size():
    shares = partition(rows_of("aaaaaabbbbccd" + "d"), clients(2), PartitionTable(kind="column", column="kind"), 0)
    assert {client: len(share) for client, share in shares.items()} == {"c0": 8, "c1": 6}


def skew(alpha):
    """The mean over clients of the share of the most frequent value."""
    values = "abcde" * 200
    table = PartitionTable(kind="dirichlet", column="kind", alpha=alpha)
    shares = partition(rows_of(values), clients(5), table, 3).values()
    return sum(max(Counter(values[row] for row in share).values()) / len(share) for share in shares) / 5


def test_a_small_alpha_is_more_unequal():
    assert skew(0.1) > 0.5 > 0.25 > skew(1000)


@pytest.mark.parametrize(
    ("values", "count", "table", "words"),
    [
        ("ab", 2, PartitionTable(), ["client 'c0'", "fewer clients"]),
        ("aabb", 3, PartitionTable(kind="column", column="kind"), ["client 'c2'", "found 0"]),
        ("ab" * 9, 9, PartitionTable(kind="dirichlet", column="kind", alpha=0.01), ["larger alpha", "fewer clients"]),
        ("ab", 1, PartitionTable(kind="column", column="kinds"), ["'kinds'", "row 1", "Did you mean kind?"]),
        ("ab", 1, PartitionTable(kind="column"), ["needs a column"]),
    ],
)
def test_an_impossible_partition_is_refused(values, count, table, words):
    with pytest.raises(DataError) as caught:
        partition(rows_of(values), clients(count), table, 0)
    for word in words:
        assert word in str(caught.value)
