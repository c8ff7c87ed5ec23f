"""How many threads work on what is small: one each, as several take longer to wake up than they save."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

SMALL = 2**20  # numbers: one thread adds them up or copies them in the time in which others wake up and finish

_one_at_a_time = RLock()  # the number of threads is the library's, not ours: two would restore each other's


def each_on_a_thread(act: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """act(item) for every item, in their order: as many at once as torch has threads, each on a single one.

    So the bits of a result depend neither on the number of threads nor on the other items.
    """
    grad = torch.is_grad_enabled()  # of this thread alone

    def acted(item: Item) -> Result:
        with torch.set_grad_enabled(grad):
            return act(item)

    with single_threaded() as threads:
        workers = min(threads, len(items))
        if workers <= 1:
            return [act(item) for item in items]
        # A new thread begins with the system's number of threads, whatever torch was told elsewhere.
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(acted, items))


def threads_for(numbers: int) -> AbstractContextManager[object]:
    """Torch on a single thread for operations on tensors of so few numbers, as it is for larger ones."""
    return single_threaded() if numbers <= SMALL else nullcontext()


@contextmanager
def single_threaded() -> Iterator[int]:
    """Torch on one thread, and how many it had."""
    with _one_at_a_time:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield threads
        finally:
            torch.set_num_threads(threads)
