"""The threads and the memory of the CPU kernels.

Kernels that release the interpreter lock run in plain Python threads. numba's own pool (OpenMP) would
compete with torch's pool, whose threads spin for a while after each operation and so hold the cores.
"""

import itertools
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numpy as np
import torch

PAIR = 2
"""Tasks at a time that use all threads for most of their work: each does its other work while the
other has the threads. More of them take memory and no less time."""
Item = TypeVar("Item")
Result = TypeVar("Result")
_kept = threading.local()


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="kernels")


if hasattr(os, "register_at_fork"):
    # A forked child, such as a worker of a DataLoader, has no threads of its parent.
    os.register_at_fork(after_in_child=_pool.cache_clear)


def run_tasks(task: Callable[[int], None], count: int) -> None:
    """Calls task(0) ... task(count - 1) in torch.get_num_threads() threads; returns when all have
    ended."""
    # Tasks are taken one by one, as some take longer; popleft() is atomic in CPython.
    waiting = deque(range(count))

    def work() -> None:
        while waiting:
            try:
                index = waiting.popleft()
            except IndexError:  # another thread has taken the last
                return
            try:
                task(index)
            except BaseException:
                waiting.clear()  # no thread begins another task after an error or a stop
                raise

    threads = torch.get_num_threads()
    futures = [_pool(threads - 1).submit(work) for _ in range(min(threads, count) - 1)]
    try:
        work()
        # Raises the error of a task, if there was one.
        for future in futures:
            future.result()
    finally:
        waiting.clear()  # a stop may come between two tasks


def run_ahead(
    task: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None
) -> Iterator[Result]:
    """task(item) for each item, in order, made by threads while the caller draws the next items and
    uses the results.

    Args:
        task: reads what other tasks read, and changes nothing of it.
        threads: torch.get_num_threads() if not given. As many results wait for the caller.
    """
    count = threads or torch.get_num_threads()
    pool = ThreadPoolExecutor(count, thread_name_prefix="ahead")
    coming: deque[Future] = deque()
    try:
        for item in items:
            coming.append(pool.submit(task, item))
            if len(coming) > count:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def split_range(size: int, parts: int) -> list[tuple[int, int]]:
    """Splits [0, size) into at most ``parts`` ranges (begin, end) of about the same length, none
    empty."""
    edges = [size * part // parts for part in range(parts + 1)]
    return [pair for pair in itertools.pairwise(edges) if pair[0] < pair[1]]


def take_scratch(name: str, *shape: int) -> np.ndarray:
    """Uninitialised float32 array whose memory this thread keeps for the next call with the same
    name.

    Fresh memory costs a page fault for each 4 KiB: up to a fifth of a training step.
    """
    size = math.prod(shape)
    kept = _kept.__dict__
    # memory four times too large, beyond 4 MiB, is replaced by less
    if name not in kept or not size <= kept[name].size <= max(4 * size, 1 << 20):
        kept[name] = np.empty(size, np.float32)
    return kept[name][:size].reshape(shape)
