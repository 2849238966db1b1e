"""Training on several processes: the parameters of all ranks are brought together every few steps.

Between two averages each rank trains alone, on its own pixels. A parameter then changes by the mean
of the changes of all ranks. Stich, "Local SGD converges fast and communicates little", 2019, is the
idea; the moments of Adam stay with their rank. Changes travel in bfloat16; what rounding leaves out
stays in the rank and travels the next time (Seide et al., "1-bit stochastic gradient descent", 2014).
The sum runs during the next step.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed import Work

from models.run import ALONE, Ranks


class Averaging:
    """Keeps tensors of all ranks together."""

    def __init__(self, tensors: list[Tensor], ranks: Ranks = ALONE):
        """
        Args:
            tensors: contiguous float32, changed in place here and by training; they start equal on
                all ranks.
        """
        self._shared = [_Shared(tensor.detach().view(-1), ranks) for tensor in tensors]
        self._ranks = ranks
        self._word = torch.zeros(0, dtype=torch.float64)
        self._works: list[Work] = []

    def begin(self) -> None:
        """Takes the present values, equal on all ranks, as the values that all ranks share."""
        for shared in self._shared:
            shared.common.copy_(shared.own)

    def start(self, word: Sequence[float] = ()) -> None:
        """Sends the changes since the values that all ranks share.

        Args:
            word: numbers, of which rank 0's reach all ranks; as many in each rank.
        """
        for shared in self._shared:
            shared.send()
        numbers = torch.tensor(word, dtype=torch.float64)
        self._word = numbers if self._ranks.leads else torch.zeros_like(numbers)
        self._works = self._ranks.start_sum([self._word])

    def finish(self) -> list[float]:
        """Takes over the changes of all ranks, and returns the word of rank 0; nothing to do unless
        changes were sent."""
        if not self._works:
            return []
        for shared in self._shared:
            shared.receive()
        self._ranks.wait_for(self._works)
        self._works = []
        return self._word.tolist()

    def settle(self) -> None:
        """Makes the tensors of all ranks equal: where training ends, and for a checkpoint."""
        self.finish()
        self.start()
        self.finish()
        for shared in self._shared:
            shared.own.copy_(shared.common)


class _Shared:
    """A tensor that all ranks have. Its buffers are kept, since fresh memory is slow."""

    def __init__(self, own: Float[Tensor, "P"], ranks: Ranks):
        self.own = own
        self.ranks = ranks
        self.common = own.clone()
        """The values that all ranks share."""
        self._buffer = torch.empty_like(own)
        self._changes = torch.empty_like(own, dtype=torch.bfloat16)
        """This rank's changes as they were sent."""
        self._sums = torch.empty_like(self._changes)
        """Becomes the sum of the changes of all ranks."""
        self._works: list[Work] = []

    def send(self) -> None:
        """Begins to sum the changes of all ranks."""
        torch.sub(self.own, self.common, out=self._buffer)
        self._changes.copy_(self._buffer)
        self._sums.copy_(self._changes)
        self._works = self.ranks.start_sum([self._sums])

    def receive(self) -> None:
        """Takes over the sum that was begun; the changes since then stay."""
        self.ranks.wait_for(self._works)
        self._works = []
        mean = self._buffer.copy_(self._sums).div_(self.ranks.count)
        self.common += mean
        self.own += mean.sub_(self._changes)
