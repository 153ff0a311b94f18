"""Labels of the pixels of a person's window, without resizing what cannot change a label.

Three operators define them: logits over a box are interpolated bilinearly to T x T cells (aligned
corners), become probabilities by a softmax over the classes, and these are sampled bilinearly at
pixel centres, with zeros around the box. A pixel's label is the class of the highest sample.

Mixing keeps an order that all the mixed share. So

1. between four nodes that class a wins, a wins all cells;
2. between nodes that only a and b win, with every other class below the mean of the logits of a and
   b at all of them, a or b wins a cell: the sign of their interpolated difference tells;
3. a pixel between cells that a wins is of class a. The operators' arithmetic is left for the pixels
   between others, and their own bits for the few that rounding could decide.

Where numba is installed, :mod:`.compiled_labels` does the same in less time.

Shape shorthand:
    C: classes. M: side of the logits. T: side of the cells. h, w: pixels of the window.
    Node: one of the M x M logits. Mesh: the square between four nodes, with S x S slots for cells,
    some of them empty. L = (M - 1) * S: side of all slots.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["PixelCenters", "compiled_loops", "label_window", "locate_pixels"]

_UNDECIDED = 255
# Pixels computed at a time: their temporaries stay in a core's cache.
_CHUNK = 2**13
# Logits so far apart that float32 holds their exponentials at full precision.
_MAX_RANGE = 80


class _Axis(NamedTuple):
    """Bilinear interpolation along one axis: target i mixes two of m sources.

    Attributes:
        sources: int64 (2, n), in 0..m-1.
        weights: float32 (2, n); 0 and 0 for a target beyond the axis.
    """

    sources: np.ndarray
    weights: np.ndarray


class PixelCenters(NamedTuple):
    """Pixel centres of a window along one axis.

    Attributes:
        positions: float32 (n,), in the frame where the box spans [-1, 1].
        axis: the cells that the operators mix there.
        beyond: bool (n,), where there is none.
    """

    positions: Tensor
    axis: _Axis
    beyond: np.ndarray


def locate_pixels(positions: Sequence[np.ndarray], size: int) -> list[PixelCenters]:
    """Tell which cells ``grid_sample`` mixes at pixel centres, and with which weights.

    Args:
        positions: of any number of windows' axes, float32 (n,) each, see :class:`PixelCenters`.
        size: T.
    """
    if not positions:
        return []
    x = torch.from_numpy(np.concatenate(positions))
    grid = torch.stack([x, torch.zeros_like(x)], dim=1)[None, None]
    weights = F.grid_sample(_remainders(size)[:, :, None], grid, align_corners=False)[0, :, 0]
    axis = _axis(weights, ((x.double() + 1) * size - 1) / 2, size)
    beyond = axis.weights.max(axis=0) == 0
    ends = np.cumsum([len(p) for p in positions])
    parts = [slice(end - len(p), end) for p, end in zip(positions, ends)]
    return [PixelCenters(x[i], _Axis(*(field[:, i] for field in axis)), beyond[i]) for i in parts]


def _remainders(count: int) -> Tensor:
    """Which of `count` sources have remainder 0, 1, 2 by three: float32 (1, 3, count).

    Interpolated, they are the weights of the two neighbours to the bit.
    """
    return F.one_hot(torch.arange(count) % 3, 3).t()[None].float()


def _axis(weights: Tensor, positions: Tensor, count: int) -> _Axis:
    """From interpolated :func:`_remainders` (3, n) at positions (n,) among `count` sources."""
    nearest = positions.round().long().numpy()
    targets = np.arange(len(nearest))
    # Of the source before the nearest one, of this, and of the next.
    w = [weights.numpy()[(nearest + step) % 3, targets] for step in (-1, 0, 1)]
    is_before = w[0] > 0
    first = nearest - is_before
    pair = np.stack([np.where(is_before, w[0], w[1]), np.where(is_before, w[1], w[2])])
    sources = np.stack([first, first + 1])
    # A source without weight, perhaps beyond the axis, has no say.
    return _Axis(np.where(pair > 0, sources, sources[::-1]).clip(0, count - 1), pair)


class _Mixtures:
    """Bilinear interpolation along two axes, from a table whose rows are sources, row by row."""

    def __init__(self, rows: _Axis, columns: _Axis, num_columns: int):
        first, second = rows.sources * num_columns
        self._row_sources = np.stack([first, first, second, second], axis=1)
        self._column_sources = np.stack([*columns.sources] * 2, axis=1)
        first, second = rows.weights
        self._row_weights = np.stack([first, first, second, second], axis=1)
        self._column_weights = np.stack([*columns.weights] * 2, axis=1)

    def at(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give targets (n,) their four sources and weights: (n, 4)."""
        sources = self._row_sources.take(y, axis=0)
        sources += self._column_sources.take(x, axis=0)
        weights = self._row_weights.take(y, axis=0)
        weights *= self._column_weights.take(x, axis=0)
        return sources, weights


def _mix(table: np.ndarray, sources: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sums of rows (n, 4) of a table (k, C): float32 (n, C)."""
    return F.embedding_bag(
        torch.from_numpy(sources),
        torch.from_numpy(table),
        mode="sum",
        per_sample_weights=torch.from_numpy(weights),
    ).numpy()


class _Upsampling(NamedTuple):
    """From M x M nodes to T x T cells.

    Attributes:
        meshes: int64 (T,), along either axis, in 0..M-2.
        weights: float32 (T,), of their mesh's second node.
        cells: the cells as mixtures of nodes.
        slots: int64 (T,), in which of the L slots the cells are, along either axis.
        ends: float32 (S, M - 1), of the cells the weights of their mesh's second node.
    """

    meshes: np.ndarray
    weights: np.ndarray
    cells: _Mixtures
    slots: np.ndarray
    ends: np.ndarray


@lru_cache(maxsize=8)
def _upsampling(num_nodes: int, size: int) -> _Upsampling:
    positions = torch.arange(size) * ((num_nodes - 1) / (size - 1))
    shares = _remainders(num_nodes)[..., None]
    if size != num_nodes:
        shares = F.interpolate(shares, (size, 1), mode="bilinear", align_corners=True)
    axis = _axis(shares[0, :, :, 0], positions, num_nodes)
    mesh = axis.sources.min(axis=0).clip(max=num_nodes - 2)
    slot = np.arange(size) - np.searchsorted(mesh, mesh)
    weights = np.where(axis.sources > mesh, axis.weights, np.float32(0)).max(axis=0)
    ends = np.zeros((slot.max() + 1, num_nodes - 1), dtype=np.float32)
    ends[slot, mesh] = weights
    cells = _Mixtures(axis, axis, num_nodes)
    return _Upsampling(mesh, weights, cells, mesh * len(ends) + slot, ends)


@lru_cache(maxsize=1)
def compiled_loops() -> ModuleType | None:
    """:mod:`.compiled_labels`, or None without a numba that works here.

    The first call of an installation compiles for some seconds.
    """
    if find_spec("numba") is None:
        return None
    try:
        from numba import config

        # As debuggers ask. The loops would take seconds a person.
        if getattr(config, "DISABLE_JIT", 0):
            return None
        from . import compiled_labels
    except Exception as error:  # such as a version of numpy that this numba does not know
        warnings.warn(f"numba does not work here, part maps take longer: {error}", stacklevel=2)
        return None
    return compiled_labels


def label_window(
    logits: Tensor,
    size: int,
    xs: PixelCenters,
    ys: PixelCenters,
    probabilities: Callable[[], Tensor],
    with_means: bool = True,
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Label the pixels of a window.

    Args:
        logits: float32 (C, M, M) on the CPU.
        size: T.
        xs, ys: of the window's w columns and h rows.
        probabilities: gives what the first two operators do, (1, C, T, T), for pixels that rounding
            decides; most people have none.
        with_means: whether to add up the samples.

    Returns:
        uint8 (h, w) labels, equal to those of the operators, and float64 (C,) the mean of each
        class's samples over its pixels, 0 without any. None if only the operators can tell, because
        logits are not finite, or far apart, or there are hundreds of classes or a single node.
    """
    num_classes, side = logits.shape[:2]
    if num_classes >= _UNDECIDED or side == 1:
        return None
    nodes = _class_rows(logits)
    lowest, highest = float(nodes.min()), float(nodes.max())
    if not highest - lowest <= _MAX_RANGE:  # or not finite
        return None
    shape = len(ys.beyond), len(xs.beyond)
    if 0 in shape:
        return np.zeros(shape, dtype=np.uint8), np.zeros(num_classes)
    upsampling = _upsampling(side, size)
    loops = compiled_loops()
    if loops is None or not loops.fits(side, size):
        # Of the roundings in the operators and here, relative to a sample: some in proportion to
        # the logits; some, and one a class, in exponentials, sums and products.
        margin = np.float32(2.0**-23 * (4 * max(-lowest, highest) + num_classes + 24))
        labels, totals = _label_by_arrays(
            nodes, margin, size, upsampling, xs, ys, probabilities, with_means
        )
        if totals is None:
            return labels, None
        counts = torch.from_numpy(labels).flatten().bincount(minlength=num_classes).numpy()
        return labels, totals / np.maximum(counts, 1)

    found = loops.label_pixels(
        np.ascontiguousarray(nodes).reshape(num_classes, side, side),
        lowest,
        highest,
        upsampling.meshes,
        upsampling.weights,
        ys.axis,
        xs.axis,
    )
    labels, totals, counts = found.labels, found.totals, found.counts
    if len(found.tied):
        flat = labels.reshape(-1)
        _label_tied(flat, found.tied, probabilities(), xs, ys)
        winners = flat[found.tied]
        totals = totals + np.bincount(winners, found.tied_samples, _UNDECIDED)
        counts = counts + np.bincount(winners, minlength=_UNDECIDED)
    return labels, totals[:num_classes] / np.maximum(counts[:num_classes], 1)


def _label_by_arrays(
    nodes: np.ndarray,
    margin: np.float32,
    size: int,
    upsampling: _Upsampling,
    xs: PixelCenters,
    ys: PixelCenters,
    probabilities: Callable[[], Tensor],
    with_totals: bool,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Label the pixels of a window without loops; gives the sums of samples, not the means."""
    num_classes = len(nodes)
    nodes = nodes - nodes.max(axis=0)
    table = _transposed(nodes)

    slot_labels = _label_slots(nodes, table, margin, upsampling)
    columns = _agreed(slot_labels, upsampling.slots, xs)
    labels = _agreed(_transposed(columns), upsampling.slots, ys)

    softmax = _Softmax(table, size, upsampling.cells)
    if with_totals:
        softmax.compute_everywhere()
    pixels = np.flatnonzero(labels == _UNDECIDED)
    flat = labels.reshape(-1)
    cells = _Mixtures(ys.axis, xs.axis, size)
    flat[pixels], best, is_tied = _label_pixels(pixels, labels.shape[1], cells, softmax, margin)
    if is_tied.any():
        _label_tied(flat, pixels[is_tied], probabilities(), xs, ys)
    if not with_totals:
        return labels, None
    cell_labels = slot_labels.take(upsampling.slots, axis=0).take(upsampling.slots, axis=1).T
    cell_totals = softmax.of_labels(cell_labels.ravel()) * _decided_weights(pixels, size, xs, ys)
    totals = np.bincount(cell_labels.ravel(), cell_totals, _UNDECIDED + 1)
    totals = totals + np.bincount(flat[pixels], best, _UNDECIDED + 1)
    return labels, totals[:num_classes]


def _label_pixels(
    pixels: np.ndarray, width: int, cells: _Mixtures, softmax: _Softmax, margin: np.float32
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label pixels (n,) by their samples.

    Returns:
        uint8 (n,) labels, float32 (n,) their samples, and bool (n,), whether rounding decided.
    """
    labels = np.empty(len(pixels), dtype=np.uint8)
    best = np.empty(len(pixels), dtype=np.float32)
    is_tied = np.empty(len(pixels), dtype=bool)
    for start in range(0, len(pixels), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        samples = _transposed(softmax.samples(*cells.at(*np.divmod(pixels[chunk], width))))
        best[chunk] = samples.max(axis=0)
        low, labels[chunk] = _lowest_and_highest(samples >= best[chunk] * (1 - margin))
        is_tied[chunk] = low != labels[chunk]
    return labels, best, is_tied


def _decided_weights(
    undecided: np.ndarray, size: int, xs: PixelCenters, ys: PixelCenters
) -> np.ndarray:
    """Cells' weights in all pixels of the window but some: float64 (T * T,)."""
    # In double precision, what cancels leaves nothing.
    rows, columns = (_Axis(c.axis.sources, c.axis.weights.astype(np.float64)) for c in (ys, xs))
    of_rows, of_columns = (
        np.bincount(a.sources.ravel(), a.weights.ravel(), size) for a in (rows, columns)
    )
    weights = np.multiply.outer(of_rows, of_columns).reshape(-1)
    cells = _Mixtures(rows, columns, size)
    for start in range(0, len(undecided), _CHUNK):
        chunk = undecided[start : start + _CHUNK]
        sources, pixel_weights = cells.at(*np.divmod(chunk, len(xs.beyond)))
        weights -= np.bincount(sources.ravel(), pixel_weights.ravel(), size**2)
    return weights


def _transposed(array: np.ndarray) -> np.ndarray:
    """Transpose into a new array (OpenCV's takes a fifth of numpy's time, but no empty array)."""
    return cv2.transpose(array) if array.size else array.T


def _class_rows(logits: Tensor) -> np.ndarray:
    """(C, M, M), of any strides, as an array (C, M * M)."""
    by_node = logits.permute(1, 2, 0)
    if by_node.is_contiguous():
        return _transposed(by_node.flatten(0, 1).numpy())
    return logits.flatten(1).numpy()


def _lowest_and_highest(is_class: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest class that bool (C, n) names: uint8 (n,) each."""
    is_class = is_class.view(np.uint8)
    codes = np.arange(len(is_class), dtype=np.uint8)[:, None]
    high = (is_class * codes).max(axis=0)
    return codes[-1] - (is_class * codes[::-1]).max(axis=0), high


def _common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Labels that are the same in both, else `_UNDECIDED`."""
    return a | -(a != b).view(np.uint8)


def _agreed(labels: np.ndarray, slots: np.ndarray, centers: PixelCenters) -> np.ndarray:
    """Labels (n, k) of pixels between slots (L, k)."""
    first, second = slots.take(centers.axis.sources)
    agreed = _common(labels.take(first, axis=0), labels.take(second, axis=0))
    agreed[centers.beyond] = 0
    return agreed


def _label_slots(
    nodes: np.ndarray, table: np.ndarray, margin: np.float32, upsampling: _Upsampling
) -> np.ndarray:
    """Label the cells that logits decide.

    Args:
        nodes, table: float32 (C, M * M) and (M * M, C), logits relative to the highest.
        margin: what rounding could change.
        upsampling: from nodes to cells.

    Returns:
        uint8 (L, L), columns first, `_UNDECIDED` where the logits do not.
    """
    num_classes, num_nodes = nodes.shape
    side = round(num_nodes**0.5)
    low, high = (m.reshape(side, side).T for m in _lowest_and_highest(nodes >= -margin))
    low, high = np.minimum(low[:-1], low[1:]), np.maximum(high[:-1], high[1:])
    low, high = np.minimum(low[:, :-1], low[:, 1:]), np.maximum(high[:, :-1], high[:, 1:])
    num_slots = len(upsampling.ends)
    labels = _common(low, high).repeat(num_slots, axis=1).repeat(num_slots, axis=0)

    meshes = np.flatnonzero(low != high)
    x, y = np.divmod(meshes, side - 1)
    a, b = low.reshape(-1)[meshes], high.reshape(-1)[meshes]
    corners = y * side + x + np.array([[0], [side], [1], [side + 1]])
    value_a, value_b = (table.reshape(-1).take(corners * num_classes + c) for c in (a, b))
    mean = (value_a + value_b) * np.float32(0.5) - margin
    values = _transposed(table.take(corners.reshape(-1), axis=0)).reshape(num_classes, 4, -1)
    above = (values >= mean).view(np.uint8).sum(axis=0, dtype=np.uint8)
    others = above - (value_a >= mean) - (value_b >= mean)
    pairs = np.flatnonzero(others.max(axis=0) == 0)

    x, y, a, b = x[pairs], y[pairs], a[pairs], b[pairs]
    left, left_below, right, right_below = (value_a - value_b)[:, pairs]
    ends_x, ends_y = upsampling.ends.take(x, axis=1), upsampling.ends.take(y, axis=1)
    left = left + (left_below - left) * ends_y
    right = right + (right_below - right) * ends_y
    lead = ends_x[:, None] * (right - left)
    lead += left
    wins_a, wins_b = (-(v > margin).view(np.uint8) for v in (lead, -lead))
    slot = np.arange(num_slots)
    places = (slot[:, None] * len(labels) + slot)[..., None] + (x * len(labels) + y) * num_slots
    labels.reshape(-1)[places] = (wins_a & a) | (wins_b & b) | ~(wins_a | wins_b)
    return labels


class _Softmax:
    """Probabilities at cells, computed where they are needed."""

    def __init__(self, table: np.ndarray, size: int, cells: _Mixtures):
        self._table, self._size, self._cells = table, size, cells
        self._everywhere: tuple[np.ndarray, np.ndarray] | None = None

    def compute_everywhere(self) -> None:
        """Keep all cells from now on."""
        side = round(len(self._table) ** 0.5)
        values = torch.from_numpy(self._table).view(1, side, side, -1).permute(0, 3, 1, 2)
        if side != self._size:
            values = F.interpolate(
                values, (self._size, self._size), mode="bilinear", align_corners=True
            )
        values = values.permute(0, 2, 3, 1).reshape(self._size**2, -1)
        self._everywhere = _exponentials(values.numpy())

    def of_labels(self, labels: np.ndarray) -> np.ndarray:
        """Probability of each cell's label (T * T,); anything for labels that are no class."""
        assert self._everywhere is not None
        values, sums = self._everywhere
        return (
            np.take_along_axis(
                values, np.minimum(labels, values.shape[1] - 1)[:, None].astype(np.int64), axis=1
            )[:, 0]
            / sums
        )

    def samples(self, sources: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Mix probabilities at cells (n, 4) with weights (n, 4): float32 (n, C)."""
        if self._everywhere is not None:
            values, sums = self._everywhere
        else:
            is_used = np.zeros(self._size**2, dtype=bool)
            is_used[sources] = True
            used = np.flatnonzero(is_used)
            number = np.empty(self._size**2, dtype=np.int64)
            number[used] = np.arange(len(used))
            sources = number.take(sources)
            values, sums = _exponentials(
                _mix(self._table, *self._cells.at(*np.divmod(used, self._size)))
            )
        return _mix(values, sources, weights / sums.take(sources))


def _exponentials(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exponentials of float32 (n, C), and their sums (n,)."""
    values = np.exp(values)
    # A product by numpy has threads that wait beside torch's, one by torch is rounded by autocast.
    return values, torch.from_numpy(values).sum(dim=1).numpy()


def _label_tied(
    labels: np.ndarray,
    pixels: np.ndarray,
    probabilities: Tensor,
    xs: PixelCenters,
    ys: PixelCenters,
) -> None:
    """Label some pixels by the last operator, from what the others give."""
    for start in range(0, len(pixels), _CHUNK):
        chunk = pixels[start : start + _CHUNK]
        y, x = np.divmod(chunk, len(xs.beyond))
        grid = torch.stack([xs.positions[x], ys.positions[y]], dim=1)[None, None]
        samples = F.grid_sample(probabilities, grid, align_corners=False)
        labels[chunk] = samples[0, :, 0].max(dim=0).indices.numpy()
