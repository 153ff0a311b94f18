"""Convolution, resize and group normalisation in numpy, from their definitions."""

from __future__ import annotations

import numpy as np


def to_array(tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def conv2d(x: np.ndarray, conv, stride: int = 1, padding: int = 0, groups: int = 1) -> np.ndarray:
    """(C, H, W) with the weights of a torch convolution; one output position after the other."""
    weight, bias = to_array(conv.weight), to_array(conv.bias)
    size = weight.shape[-1]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    height, width = ((side - size) // stride + 1 for side in x.shape[1:])
    out = np.empty((len(weight), height, width))
    in_per_group, out_per_group = len(x) // groups, len(weight) // groups
    for o, (kernel, offset) in enumerate(zip(weight, bias)):
        first = o // out_per_group * in_per_group
        for i in range(height):
            for j in range(width):
                rows = slice(i * stride, i * stride + size)
                columns = slice(j * stride, j * stride + size)
                patch = x[first : first + in_per_group, rows, columns]
                out[o, i, j] = (patch * kernel).sum() + offset
    return out


def resize_aligned(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(C, H, W) to size, bilinear, the corner cells' centres kept in place."""

    def weights(source: int, target: int) -> np.ndarray:
        matrix = np.zeros((target, source))
        for t in range(target):
            position = t * (source - 1) / (target - 1)
            low = min(int(position), source - 1)
            high = min(low + 1, source - 1)
            matrix[t, low] += 1 - (position - low)
            matrix[t, high] += position - low
        return matrix

    vertical, horizontal = weights(x.shape[1], size[0]), weights(x.shape[2], size[1])
    return np.einsum("ti,cij,uj->ctu", vertical, x, horizontal)


def group_norm(x: np.ndarray, norm) -> np.ndarray:
    """(C, H, W) with the weights of a torch group normalisation."""
    groups = x.reshape(norm.num_groups, -1)
    mean, variance = groups.mean(axis=1, keepdims=True), groups.var(axis=1, keepdims=True)
    normalized = ((groups - mean) / np.sqrt(variance + norm.eps)).reshape(x.shape)
    weight, bias = to_array(norm.weight), to_array(norm.bias)
    return normalized * weight[:, None, None] + bias[:, None, None]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    exp = np.exp(x - x.max(axis=axis, keepdims=True))
    return exp / exp.sum(axis=axis, keepdims=True)
