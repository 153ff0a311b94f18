"""Memory of computed tensors."""

from __future__ import annotations

import weakref
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):
    """Notes the most bytes that computed tensors hold at one time."""

    def __init__(self):
        super().__init__()
        self.num_tensors = Counter()  # by the address of the storage they share
        self.live = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                address, num_bytes = storage.data_ptr(), storage.nbytes()
                self._count(address, num_bytes, 1)
                weakref.finalize(x, self._count, address, num_bytes, -1)
        return result

    def _count(self, address, num_bytes, change):
        before = self.num_tensors[address]
        self.num_tensors[address] += change
        self.live += num_bytes * (bool(before + change) - bool(before))
        self.peak = max(self.peak, self.live)
