"""The benchmark of trunks in pieces runs both ways, and pieces are fewer bytes once a round has added something."""

import pieces


def test_pieces_are_never_more_bytes_than_the_trunk_whole():
    whole, parts = (pieces.megabytes_by_round(way, rounds=3, layers=1) for way in (False, True))
    assert list(whole) == list(parts) == [1, 2, 3]
    assert parts[1] < 1.05 * whole[1]
    assert parts[2] < 0.9 * whole[2]
    assert parts[3] < 0.7 * whole[3]
