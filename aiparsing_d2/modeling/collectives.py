"""What the processes of a run tell each other to compute the losses of the whole batch.

Every process has to call these, one without anybody in its images too. A run of one process
exchanges nothing.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor

__all__ = ["exchange", "gather_counts", "mean_over_processes"]


def mean_over_processes(numbers: Tensor) -> Tensor:
    """Average numbers over the processes of the run.

    ``DistributedDataParallel`` averages the gradients of the processes. So a sum over the pixels of
    each process has to be divided by the mean of the processes' counts, not by their sum, to become
    the mean over the pixels of all.

    Args:
        numbers: (K,) of any type.

    Returns:
        float32 (K,). With one process the numbers as they are.
    """
    if comm.get_world_size() == 1:
        return numbers
    total = numbers.double()
    dist.all_reduce(total)
    return (total / comm.get_world_size()).float()


def gather_counts(counts: Tensor) -> Tensor:
    """Collect the counts (K,) of all processes.

    Returns:
        (processes, K), the same in all.
    """
    if comm.get_world_size() == 1:
        return counts[None]
    gathered = [torch.empty_like(counts) for _ in range(comm.get_world_size())]
    dist.all_gather(gathered, counts)
    return torch.stack(gathered)


def exchange(values: Tensor, to_send: list[int], to_receive: list[int]) -> Tensor:
    """Send each process its share of some values, and receive a share of those of each.

    Args:
        values: (sum of ``to_send``,), those for process 0 first.
        to_send, to_receive: numbers of values for and from each process.

    Returns:
        (sum of ``to_receive``,), those from process 0 first.
    """
    received = values.new_empty(sum(to_receive))
    dist.all_to_all_single(received, values.contiguous(), to_receive, to_send)
    return received
