"""The processes of one run, as ``torchrun`` starts them: rank 0 leads, the others help it.

Only rank 0 prepares, writes and talks. It sends the others tasks; each task is work that all ranks do
together.
"""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from models.run.errors import InputError

# Ranks wait for each other while rank 0 prepares; a rank that has ended is noticed at once.
_PATIENCE = timedelta(days=2)


class LostRank(InputError):
    """Another process of the run has ended."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, seen from one of them."""

    number: int = 0
    """Of this process, from 0."""
    count: int = 1
    """Of all processes."""
    local_count: int = 1
    """Of the processes on this machine."""

    @property
    def leads(self) -> bool:
        """Whether this process prepares, writes and talks."""
        return self.number == 0

    def start_sum(self, tensors: list[Tensor]) -> list[dist.Work]:
        """Begins to sum tensors over all ranks, in place; the works must be waited for."""
        with _name_loss():
            return [dist.all_reduce(tensor, async_op=True) for tensor in tensors]

    def wait_for(self, works: list[dist.Work]) -> None:
        """Waits for the works of ``start_sum``."""
        with _name_loss():
            for work in works:
                work.wait()

    def agree(self, value: object = None) -> object:
        """The value of rank 0, in every rank; of the types that JSON has."""
        if self.count == 1:
            return value
        with _name_loss():
            content = json.dumps(value).encode() if self.leads else b""
            size = torch.tensor([len(content)])
            dist.broadcast(size, 0)
            buffer = torch.zeros(int(size), dtype=torch.uint8)
            if self.leads:
                buffer[:] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            dist.broadcast(buffer, 0)
        return json.loads(buffer.numpy().tobytes())

    @contextmanager
    def work_together(self) -> Iterator[None]:
        """Work that all ranks do at once: rank 0 leaves the other ranks of its machine their
        threads, which it has while they wait."""
        borrowed = torch.get_num_threads()
        if self.leads:
            torch.set_num_threads(max(1, borrowed // self.local_count))
        try:
            yield
        finally:
            torch.set_num_threads(borrowed)


ALONE = Ranks()
"""A run of one process."""


def join_ranks() -> Ranks:
    """The ranks that ``torchrun`` started; ``ALONE`` for a script that was started by itself.

    Rank 0 gets the threads of the other ranks of its machine, see ``Ranks.work_together``.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "RANK" not in os.environ:
        return ALONE
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dist.init_process_group(timeout=_PATIENCE)
    ranks = Ranks(dist.get_rank(), count, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if ranks.leads:
        torch.set_num_threads(torch.get_num_threads() * ranks.local_count)
    return ranks


def leave_ranks() -> None:
    """Ends the connection to the other ranks, once all work is done."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _name_loss() -> Iterator[None]:
    """Turns torch's error about a lost connection into a sentence."""
    try:
        yield
    except RuntimeError as error:
        raise LostRank(
            "another process of this run has ended; all finished work is kept, and the same "
            "command goes on from there"
        ) from error
