"""The threads and the memory of the CPU kernels.

Threads are plain Python threads around kernels that release the interpreter lock. numba's own pool
(OpenMP) would be a second one beside torch's, whose threads spin for a while after each operation
and so take the cores from it.
"""

import itertools
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch

_kept = threading.local()


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="kernels")


if hasattr(os, "register_at_fork"):
    # A forked child (a DataLoader's worker, say) has none of its parent's threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)


def run_tasks(task: Callable[[int], None], count: int) -> None:
    """Calls task(0) ... task(count - 1), spread over torch.get_num_threads() threads; waits for
    all."""
    counter = itertools.count()

    def work() -> None:
        while (index := next(counter)) < count:
            task(index)

    threads = torch.get_num_threads()
    futures = [_pool(threads - 1).submit(work) for _ in range(min(threads, count) - 1)]
    work()
    for future in futures:
        future.result()


def split_range(size: int, parts: int) -> list[tuple[int, int]]:
    """At most so many ranges (begin, end) of about one length, none empty, that make up [0,
    size)."""
    edges = [size * part // parts for part in range(parts + 1)]
    return [pair for pair in itertools.pairwise(edges) if pair[0] < pair[1]]


def scratch(name: str, *shape: int) -> np.ndarray:
    """Unfilled float32 memory that this thread keeps and hands out again under the same name.

    Fresh memory of this size costs a page fault for each 4 KiB, at times a fifth of a training
    step.
    """
    size = math.prod(shape)
    kept = _kept.__dict__
    if name not in kept or not size <= kept[name].size <= max(4 * size, 1 << 20):
        kept[name] = np.empty(size, np.float32)
    return kept[name][:size].reshape(shape)
