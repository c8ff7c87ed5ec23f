"""Many small decompositions at once, one thread each: one alone is slower on several threads than on a single one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_one_at_a_time = Lock()  # the number of threads is the library's, not ours: two would restore each other's


def each_on_a_thread(act: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """act(item) for every item, in their order: as many at once as torch has threads, each on a single one.

    So the bits of a result depend neither on the number of threads nor on the other items.
    """
    grad = torch.is_grad_enabled()  # of this thread alone

    def acted(item: Item) -> Result:
        with torch.set_grad_enabled(grad):
            return act(item)

    with _single_threaded() as threads:
        workers = min(threads, len(items))
        if workers <= 1:
            return [act(item) for item in items]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(acted, items))


@contextmanager
def _single_threaded() -> Iterator[int]:
    """Torch on one thread, and how many it had."""
    with _one_at_a_time:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield threads
        finally:
            torch.set_num_threads(threads)
