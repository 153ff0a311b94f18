"""The conventions of the authors' code on boxes and maps, one number after the other.

Boxes are inclusive: x1 and y1 are the last pixel's indices.
"""

from __future__ import annotations

import cv2
import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, dtype=np.float64)))


def detections(levels, strides, height, width, per_level=1000, per_image=50):
    """Boxes and scores, best first.

    Args:
        levels: per level logits (H, W), distances (4, H, W), centre-ness (H, W).
    """
    candidates = []
    for (logits, distances, centerness), stride in zip(levels, strides):
        found = []
        for row in range(logits.shape[0]):
            for column in range(logits.shape[1]):
                probability = sigmoid(logits[row, column])
                if not probability > 0.03:
                    continue
                x, y = column * stride + stride // 2, row * stride + stride // 2
                left, top, right, bottom = distances[:, row, column].tolist()
                box = [
                    min(max(x - left, 0), width - 1),
                    min(max(y - top, 0), height - 1),
                    min(max(x + right, 0), width - 1),
                    min(max(y + bottom, 0), height - 1),
                ]
                found.append((probability * sigmoid(centerness[row, column]), box))
        candidates += sorted(found, key=lambda pair: -pair[0])[:per_level]
    candidates.sort(key=lambda pair: -pair[0])
    kept = []
    for score, box in candidates:
        if all(iou(box, other) <= 0.6 for _, other in kept):
            kept.append((score, box))
    kept = kept[:per_image]
    return np.array([box for _, box in kept]).reshape(-1, 4), np.array([score for score, _ in kept])


def iou(a, b):
    def area(x0, y0, x1, y1):
        return (x1 - x0 + 1) * (y1 - y0 + 1)

    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    if x1 - x0 + 1 <= 0 or y1 - y0 + 1 <= 0:
        return 0.0
    shared = area(x0, y0, x1, y1)
    return shared / (area(*a) + area(*b) - shared)


def merge(boxes, scores, threshold):
    """Soft suppression with linear decay: boxes and scores, best first."""
    left = [(float(score), list(box)) for box, score in zip(boxes, scores) if score > 0.05]
    merged = []
    while left:
        best = max(left, key=lambda pair: pair[0])
        left.remove(best)
        merged.append(best)
        lowered = []
        for score, box in left:
            overlap = iou(best[1], box)
            score *= 1 - overlap if overlap > threshold else 1
            if score >= 1e-4:
                lowered.append((score, box))
        left = lowered
    return np.array([box for _, box in merged]), np.array([score for score, _ in merged])


def paste(probabilities, box, height, width):
    """(C, S, S) -> labels (H, W), and how far ahead of the second the best class is.

    Where all are 0, class 0 is as certain as can be.
    """
    size = probabilities.shape[-1]
    center_x, center_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half_width = (box[2] - box[0]) / 2 * (size + 2) / size
    half_height = (box[3] - box[1]) / 2 * (size + 2) / size
    # int() cuts toward zero.
    x0, x1 = int(center_x - half_width), int(center_x + half_width)
    y0, y1 = int(center_y - half_height), int(center_y + half_height)
    shape = (x1 - x0 + 1, y1 - y0 + 1)
    resized = np.stack(
        [
            cv2.resize(np.pad(p, 1).astype(np.float32), shape, interpolation=cv2.INTER_LINEAR)
            for p in probabilities
        ]
    )
    labels, leads = np.zeros((height, width), np.uint8), np.ones((height, width))
    for y in range(max(y0, 0), min(y1 + 1, height)):
        for x in range(max(x0, 0), min(x1 + 1, width)):
            values = resized[:, y - y0, x - x0]
            labels[y, x] = values.argmax()
            second, first = np.sort(values)[-2:]
            leads[y, x] = first - second if first > 0 else 1
    return labels, leads


def resize_image(image, factor):
    """(H, W, C) uint8 to float, bilinear, every position divided by one factor."""
    height, width = (round(side * factor) for side in image.shape[:2])
    pixels = image.astype(np.float64)
    out = np.empty((height, width, image.shape[2]))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) / factor - 0.5, 0), image.shape[0] - 1)
            u = min(max((x + 0.5) / factor - 0.5, 0), image.shape[1] - 1)
            i, j = int(v), int(u)
            a, b = v - i, u - j
            below, right = min(i + 1, image.shape[0] - 1), min(j + 1, image.shape[1] - 1)
            out[y, x] = (1 - a) * ((1 - b) * pixels[i, j] + b * pixels[i, right]) + a * (
                (1 - b) * pixels[below, j] + b * pixels[below, right]
            )
    return out
