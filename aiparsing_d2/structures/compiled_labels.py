"""Labels of the pixels of a person's window by compiled loops, where numba is installed.

What :mod:`.window_labels` says, without its shortcuts: a row of cells after the other, all classes
become exponentials; a pixel between cells that one class wins is of this class, the classes of
the others are mixed. Pixels that rounding could decide are computed again in float64, and handed
back if even so the operators' own rounding could decide.

The loop over the cells of a row does two classes at a time and vectorises. Along a row of a mesh
logits are linear, so that each exponential is the one before times a constant.

Shape shorthand as there, and
    lane: the place of a cell in a row, `slot * _WIDTH + mesh`: the k-th cells of all meshes are
    side by side. Of the `_LANES` lanes some have no cell; what is computed there is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import float32, float64, int64, njit, uint8, uint64

__all__ = ["LabelledPixels", "fits", "label_pixels"]

# Known to the compiler, the distances between arrays let it vectorise.
_WIDTH, _SLOTS = 64, 5
_LANES = _WIDTH * _SLOTS
_NODES = 80  # floats of a row of nodes: one more than _WIDTH, rounded up
_UNDECIDED = 255
# If more pixels than these stay doubtful, the person's logits are flat.
_MAX_DOUBTS = 64
_LOG2_E = np.float32(1.4426950408889634)
# Added to a float32, it leaves the nearest integer in the lowest bits.
_ROUNDING = np.float32(12582912)
# Less than the logits of any class: of one that makes their number even.
_NOTHING = np.float32(-120)
# Products and sums may be fused; all else is as written.
_OPTIONS: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy"}


def _power_coefficients() -> list[np.float32]:
    """Of a polynomial that is 2^x to 1e-7 where abs(x) <= 1/2."""
    x = np.cos(np.pi * (np.arange(64) + 0.5) / 64) / 2
    fit = np.polynomial.Chebyshev.fit(x, 2**x, 5, domain=[-0.5, 0.5], w=2**-x)
    return [np.float32(c) for c in fit.convert(kind=np.polynomial.Polynomial).coef]


_C0, _C1, _C2, _C3, _C4, _C5 = _power_coefficients()


class LabelledPixels(NamedTuple):
    """What becomes of a window.

    Attributes:
        labels: uint8 (h, w).
        totals: float64 (255,), sums of the classes' samples over their pixels without ties.
        counts: int64 (255,), numbers of these pixels.
        tied: int64 (k,), pixels whose label only the operators can tell.
        tied_samples: float32 (k,), the highest samples there.
    """

    labels: np.ndarray
    totals: np.ndarray
    counts: np.ndarray
    tied: np.ndarray
    tied_samples: np.ndarray


class _Lanes(NamedTuple):
    """How the lanes lie between nodes.

    Attributes:
        of_cells: uint64 (T,) the cells' lanes.
        begins: float32 (_WIDTH,), weight of the second node in the first cell of a mesh.
        steps: float32 (_WIDTH,), how much it grows from cell to cell.
        deviation: how far weights are from that at most.
    """

    of_cells: np.ndarray
    begins: np.ndarray
    steps: np.ndarray
    deviation: float


def fits(side: int, size: int) -> bool:
    """Whether the loops are for M = side and T = size."""
    return 2 <= side <= _WIDTH + 1 and size - 1 < (side - 1) * _SLOTS


@lru_cache(maxsize=8)
def _lay_lanes(meshes: bytes, weights: bytes) -> _Lanes:
    mesh = np.frombuffer(meshes, np.int64)
    weight = np.frombuffer(weights, np.float32).astype(np.float64)
    slot = np.arange(len(mesh)) - np.searchsorted(mesh, mesh)
    first, last = (np.searchsorted(mesh, np.arange(_WIDTH), side) for side in ("left", "right"))
    count = last - first
    begins, steps = np.zeros((2, _WIDTH), dtype=np.float32)
    begins[count > 0] = weight[first[count > 0]]
    many = count > 1
    steps[many] = (weight[last[many] - 1] - weight[first[many]]) / (count[many] - 1)
    deviation = np.abs(begins[mesh] + slot * steps[mesh].astype(np.float64) - weight).max()
    return _Lanes((slot * _WIDTH + mesh).astype(np.uint64), begins, steps, float(deviation))


def label_pixels(
    nodes: np.ndarray,
    lowest: float,
    highest: float,
    meshes: np.ndarray,
    weights: np.ndarray,
    rows: tuple[np.ndarray, np.ndarray],
    columns: tuple[np.ndarray, np.ndarray],
) -> LabelledPixels:
    """Label the pixels of a window.

    Args:
        nodes: float32 (C, M, M) logits, contiguous.
        lowest, highest: of them.
        meshes: int64 (T,), of the cells along either axis, in 0..M-2.
        weights: float32 (T,), of their mesh's second node.
        rows, columns: of the pixels, the cells int64 (2, n) and their weights float32 (2, n); those
            without any weight are the first and the last.
    """
    num_classes = len(nodes)
    lanes = _lay_lanes(meshes.tobytes(), weights.tobytes())
    # What rounding could change, relative to a sample and in units of 2^-23: in proportion to
    # logits, of the operators; to their differences, here; of sums; of exponentials and products.
    difference = highest - lowest
    units = 4 * max(-lowest, highest) + 20 * difference + num_classes + 50
    margin = 2.0**-23 * units + 2 * lanes.deviation * difference
    height, width = rows[0].shape[1], columns[0].shape[1]
    labels = np.zeros((height, width), dtype=np.uint8)
    totals, counts = np.zeros(_UNDECIDED), np.zeros(_UNDECIDED, dtype=np.int64)
    tied, tied_samples = np.empty(labels.size, np.int64), np.empty(labels.size, np.float32)
    even = num_classes + num_classes % 2
    num_tied = _label(
        nodes,
        np.float32(highest),
        np.float32(1 - margin),
        meshes,
        weights,
        lanes.begins,
        lanes.steps,
        lanes.of_cells[columns[0]],
        *map(np.ascontiguousarray, (*rows, *columns)),
        np.full(2 * even * _NODES, _NOTHING),
        np.empty(2 * even * _LANES, np.float32),
        np.empty(4 * _LANES, np.float32),
        np.empty((6, _LANES), np.float32),
        np.empty((3, _LANES), np.uint8),
        np.empty((2, num_classes), np.float32),
        np.empty((2, 4, num_classes)),
        np.empty(width, np.int64),
        np.empty(max(num_classes, 4), np.int64),
        labels,
        totals,
        counts,
        tied,
        tied_samples,
    )
    return LabelledPixels(labels, totals, counts, tied[:num_tied], tied_samples[:num_tied])


@njit(**_OPTIONS)
def _power(x):
    """2^x for x in -126..126, to 2e-7."""
    rounded = x + _ROUNDING
    x = x - (rounded - _ROUNDING)
    y = ((((_C5 * x + _C4) * x + _C3) * x + _C2) * x + _C1) * x + _C0
    exponent = np.int32(np.float32(rounded).view(np.int32) << np.int32(23))
    return np.int32(np.float32(y).view(np.int32) + exponent).view(np.float32)


@njit(**_OPTIONS)
def _exponentiate(above, below, weight, begins, steps, powers, tallies, num_classes):
    """Powers of a row of cells, and which classes are best.

    Args:
        above, below: float32 (num_classes * _NODES,), the rows of nodes around, as exponents.
        weight: of the lower.
        begins, steps: see :class:`_Lanes`.
        powers: float32 (num_classes * _LANES,), filled.
        tallies: float32 (4 * _LANES,), filled: sum, best, second best, the best's class.
        num_classes: an even number.
    """
    for i in range(4 * _LANES):
        tallies[i] = 0
    for c in range(0, num_classes, 2):
        number_x, number_y = np.float32(c), np.float32(c + 1)
        a, b, out = above[c * _NODES :], below[c * _NODES :], powers[c * _LANES :]
        for j in range(_WIDTH):
            x = a[j] + weight * (b[j] - a[j])
            d = a[j + 1] + weight * (b[j + 1] - a[j + 1]) - x
            x, step_x = _power(x + begins[j] * d), _power(steps[j] * d)
            k = j + _NODES
            y = a[k] + weight * (b[k] - a[k])
            d = a[k + 1] + weight * (b[k + 1] - a[k + 1]) - y
            y, step_y = _power(y + begins[j] * d), _power(steps[j] * d)
            for slot in range(_SLOTS):
                i = slot * _WIDTH + j
                out[i] = x
                out[_LANES + i] = y
                tallies[i] += x + y
                best, second = tallies[_LANES + i], tallies[2 * _LANES + i]
                high = y if y > x else x
                low = x if y > x else y
                number = number_y if y > x else number_x
                other = high if high < best else best
                other = low if low > other else other
                tallies[2 * _LANES + i] = other if other > second else second
                tallies[3 * _LANES + i] = number if high > best else tallies[3 * _LANES + i]
                tallies[_LANES + i] = high if high > best else best
                x *= step_x
                y *= step_y


@njit(**_OPTIONS)
def _choose(tallies, keep, inverse, best, second, winners):
    """Of a row of cells: 1 / sum, the two best probabilities, the class that is clearly best."""
    for i in range(_LANES):
        inverse[i] = np.float32(1) / tallies[i]
        best[i] = tallies[_LANES + i] * inverse[i]
        second[i] = tallies[2 * _LANES + i] * inverse[i]
        is_clear = tallies[2 * _LANES + i] < tallies[_LANES + i] * keep
        winners[i] = np.uint8(tallies[3 * _LANES + i] if is_clear else np.float32(_UNDECIDED))


@njit(**_OPTIONS)
def _decide(nodes, meshes, weights, rows, row_weights, columns, column_weights, y, x, work):
    """Best class of a pixel in float64, or -1 where the operators' rounding could tell another."""
    num_classes = nodes.shape[0]
    samples, doubts = work[0], work[1]
    for corner in range(4):
        p, q = corner // 2, corner % 2
        row, column = rows[p, y], columns[q, x]
        share = np.float64(row_weights[p, y]) * np.float64(column_weights[q, x])
        v, u = np.float64(weights[row]), np.float64(weights[column])
        m, n = meshes[row], meshes[column]
        highest = -np.inf
        for c in range(num_classes):
            upper, lower = (1 - v) * (1 - u) * nodes[c, m, n], v * (1 - u) * nodes[c, m + 1, n]
            right, last = (1 - v) * u * nodes[c, m, n + 1], v * u * nodes[c, m + 1, n + 1]
            samples[corner, c] = upper + lower + right + last
            # Units of rounding in the operators: six sums and products, the exponential, others.
            doubts[corner, c] = 6 * (abs(upper) + abs(lower) + abs(right) + abs(last)) + 12
            highest = max(highest, samples[corner, c])
        total = 0.0
        for c in range(num_classes):
            doubts[corner, c] += highest - samples[corner, c]
            samples[corner, c] = math.exp(samples[corner, c] - highest)
            total += samples[corner, c]
        for c in range(num_classes):
            samples[corner, c] *= share / total
            doubts[corner, c] *= samples[corner, c]
    best, value = 0, -1.0
    for c in range(num_classes):
        sample = samples[0, c] + samples[1, c] + samples[2, c] + samples[3, c]
        if sample > value:
            best, value = c, sample
    for c in range(num_classes):
        lead, doubt = 0.0, 0.0
        for corner in range(4):
            difference = samples[corner, best] - samples[corner, c]
            lead += difference
            # The sum's rounding scales both alike.
            doubt += doubts[corner, best] + doubts[corner, c] + num_classes * abs(difference)
        if c != best and lead <= doubt * 2.0**-24:
            return -1
    return best


def _compiled(function: Callable[..., int]) -> Callable[..., int]:
    """Compile for the types of :func:`label_pixels`, or take what numba has kept."""
    integers, floats, table = int64[::1], float32[::1], float32[:, ::1]
    signature = int64(
        float32[:, :, ::1], float32, float32, integers, floats,
        floats, floats, uint64[:, ::1],
        int64[:, ::1], table, int64[:, ::1], table,
        floats, floats, floats, table, uint8[:, ::1],
        table, float64[:, :, ::1], integers, integers,
        uint8[:, ::1], float64[::1], integers, integers, floats,
    )  # fmt: skip
    try:
        return njit(signature, nogil=True, cache=True, **_OPTIONS)(function)
    except Exception:  # nowhere to keep it, or what was kept is damaged
        return njit(signature, nogil=True, **_OPTIONS)(function)


@_compiled
def _label(
    nodes, highest, keep, meshes, weights,
    begins, steps, lanes,
    rows, row_weights, columns, column_weights,
    spread, powers, tallies, probabilities, winners,
    mixed, work, undecided, candidates,
    labels, totals, counts, tied, tied_samples,
):  # fmt: skip
    """See :func:`label_pixels`; gives the number of tied pixels."""
    num_classes, side = nodes.shape[0], nodes.shape[1]
    height, width = labels.shape
    even = num_classes + num_classes % 2
    top, bottom, left, right = 0, height, 0, width
    while top < bottom and row_weights[0, top] == 0 and row_weights[1, top] == 0:
        top += 1
    while top < bottom and row_weights[0, bottom - 1] == 0 and row_weights[1, bottom - 1] == 0:
        bottom -= 1
    while left < right and column_weights[0, left] == 0 and column_weights[1, left] == 0:
        left += 1
    while left < right and column_weights[0, right - 1] == 0 and column_weights[1, right - 1] == 0:
        right -= 1
    if left == right:
        bottom = top
    counts[0] += height * width - (bottom - top) * (right - left)

    # Rows of nodes and of cells take turns in two places each.
    node_a, node_b, row_a, row_b = -1, -1, -1, -1
    num_tied = 0
    stop = top
    while stop < bottom:
        start = stop
        upper, lower = rows[0, start], rows[1, start]
        upper_weight, lower_weight = np.float32(0), np.float32(0)
        while stop < bottom and rows[0, stop] == upper and rows[1, stop] == lower:
            upper_weight += row_weights[0, stop]
            lower_weight += row_weights[1, stop]
            stop += 1

        for row in (upper, lower):
            place = row % 2
            if row == (row_b if place else row_a):
                continue
            if place:
                row_b = row
            else:
                row_a = row
            mesh = meshes[row]
            for node in (mesh, mesh + 1):
                if node == (node_b if node % 2 else node_a):
                    continue
                if node % 2:
                    node_b = node
                else:
                    node_a = node
                for c in range(num_classes):
                    target = (node % 2 * even + c) * _NODES
                    for j in range(side):
                        spread[target + j] = (nodes[c, node, j] - highest) * _LOG2_E
            length = even * _NODES
            _exponentiate(
                spread[mesh % 2 * length :], spread[(mesh + 1) % 2 * length :], weights[row],
                begins, steps, powers[place * even * _LANES :], tallies, even,
            )  # fmt: skip
            _choose(
                tallies, keep, probabilities[place], probabilities[2 + place],
                probabilities[4 + place], winners[place],
            )  # fmt: skip

        # Pixels between cells that one class wins.
        a, b = upper % 2, lower % 2
        inverse_a, best_a, second_a = probabilities[a], probabilities[2 + a], probabilities[4 + a]
        inverse_b, best_b, second_b = probabilities[b], probabilities[2 + b], probabilities[4 + b]
        winner_a, winner_b, common = winners[a], winners[b], winners[2]
        for i in range(_LANES):
            tallies[i] = upper_weight * best_a[i] + lower_weight * best_b[i]
        for i in range(_LANES):
            common[i] = winner_a[i] if winner_a[i] == winner_b[i] else np.uint8(_UNDECIDED)
        num_undecided = 0
        label, total, begin = _UNDECIDED, 0.0, left
        for x in range(left, right):
            i, j = lanes[0, x], lanes[1, x]
            here = common[i] if common[i] == common[j] else np.uint8(_UNDECIDED)
            if here != label:
                if label != _UNDECIDED:
                    totals[label] += total
                    counts[label] += (stop - start) * (x - begin)
                label, total, begin = np.int64(here), 0.0, x
            if here == _UNDECIDED:
                undecided[num_undecided] = x
                num_undecided += 1
            else:
                total += column_weights[0, x] * tallies[i] + column_weights[1, x] * tallies[j]
            labels[start, x] = here
        if label != _UNDECIDED:
            totals[label] += total
            counts[label] += (stop - start) * (right - begin)
        for y in range(start + 1, stop):
            for x in range(left, right):
                labels[y, x] = labels[start, x]

        # The others. Classes that win none of the four cells have the second best's there at most.
        offset_a = np.uint64(upper % 2 * even * _LANES)
        offset_b = np.uint64(lower % 2 * even * _LANES)
        for k in range(num_undecided):
            x = undecided[k]
            i, j = lanes[0, x], lanes[1, x]
            left_weight, right_weight = column_weights[0, x], column_weights[1, x]
            weight_ai, weight_aj = left_weight * inverse_a[i], right_weight * inverse_a[j]
            weight_bi, weight_bj = left_weight * inverse_b[i], right_weight * inverse_b[j]
            limit_a = left_weight * second_a[i] + right_weight * second_a[j]
            limit_b = left_weight * second_b[i] + right_weight * second_b[j]
            number = 0
            for winner in (winner_a[i], winner_a[j], winner_b[i], winner_b[j]):
                if winner == _UNDECIDED:
                    number = 0
                    break
                is_new = True
                for n in range(number):
                    if candidates[n] == winner:
                        is_new = False
                if is_new:
                    candidates[number] = winner
                    number += 1
            while True:
                if number == 0:
                    number = num_classes
                    for n in range(number):
                        candidates[n] = n
                for n in range(number):
                    a = offset_a + np.uint64(candidates[n] * _LANES)
                    b = offset_b + np.uint64(candidates[n] * _LANES)
                    mixed[0, n] = weight_ai * powers[a + i] + weight_aj * powers[a + j]
                    mixed[1, n] = weight_bi * powers[b + i] + weight_bj * powers[b + j]
                if number == num_classes:
                    break
                for y in range(start, stop):
                    best = np.float32(0)
                    for n in range(number):
                        sample = row_weights[0, y] * mixed[0, n] + row_weights[1, y] * mixed[1, n]
                        best = max(best, sample)
                    if row_weights[0, y] * limit_a + row_weights[1, y] * limit_b >= best * keep:
                        number = 0
                        break
                if number > 0:
                    break
            for y in range(start, stop):
                best, second, chosen = np.float32(-1), np.float32(-1), 0
                for n in range(number):
                    sample = row_weights[0, y] * mixed[0, n] + row_weights[1, y] * mixed[1, n]
                    if sample > best:
                        best, second, chosen = sample, best, candidates[n]
                    elif sample > second:
                        second = sample
                if second >= best * keep:
                    decided = -1
                    if num_tied < _MAX_DOUBTS:
                        decided = _decide(
                            nodes, meshes, weights, rows, row_weights, columns, column_weights,
                            y, x, work,
                        )  # fmt: skip
                    if decided < 0:
                        tied[num_tied] = y * width + x
                        tied_samples[num_tied] = best
                        num_tied += 1
                        continue
                    chosen = decided
                labels[y, x] = chosen
                totals[chosen] += best
                counts[chosen] += 1
    return num_tied
