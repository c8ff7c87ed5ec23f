"""The benchmark of the planner's size plans what it says."""

import plan_size


def test_kinds_and_gaps_are_counted():
    few, many = (plan_size.measured(clients=6, kinds=kinds, blocks=3, gap=1e-3) for kinds in (2, 6))
    assert (few["kinds"], many["kinds"], many["modules"]) == (2, 6, 21)
    for row in (few, many):
        assert 0 < row["worth"] < 1
        assert 0 <= row["gap"] <= row["widest_gap"] <= 2e-3
    table = plan_size.table([few, many]).splitlines()
    assert len(table) == 4
    assert table[3].startswith("| 6 | 6 | 21 |")


def test_clients_differ_only_as_often_as_is_said():
    problem = plan_size.problem(clients=10, kinds=3, blocks=2)
    assert len({client.kind for client in problem.clients}) == 3
    assert len({client.name for client in problem.clients}) == 10
