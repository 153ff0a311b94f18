"""From CCP's tags to CIHP's parts, with body landmarks to tell left from right and face from arm.

Lengths are in units of the torso's length, from mid-shoulder to mid-hip.

Shape shorthand:
    H, W: size of the photograph in pixels. N: number of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS

from .landmarks import Landmark
from .tags import CIHP_LABEL_OF_TAG, SHOES, SKIN, SUIT

__all__ = ["cihp_parts", "has_labelled_head"]

_LABEL = {name: label for label, name in enumerate(CIHP_PART_LABELS.names)}
_ARMS = (_LABEL["Left-arm"], _LABEL["Right-arm"])
_LEGS = (_LABEL["Left-leg"], _LABEL["Right-leg"])
_SHOES = (_LABEL["Left-shoe"], _LABEL["Right-shoe"])

# From the mouth to the chin, as a share of the way from the eyes to the mouth.
_CHIN = 0.5
# From the wrist to the fingertips, in ways from the wrist to the knuckles.
_FINGERTIPS = 2.0
# A patch of skin with a larger share nearest to the axes of arms is all arms.
_ONE_LIMB_SHARE = 0.6
# Of a patch of skin, a part with a smaller share belongs to the patch's largest part.
_SMALLEST_SHARE_OF_PATCH = 0.06
# A patch of shoes with a larger share on one side is that side's alone.
_ONE_SHOE_SHARE = 0.8
# Pieces of shoes nearer than this are of one shoe: straps, and what a trouser leg cuts.
_SHOE_GAP = 0.06
# Two shoes differ in size by less than this factor, or one of them is a stray piece.
_SHOE_SIZE_RATIO = 5.0

# A part's place: label, start and end of a segment (x, y), radius in pixels.
_Place = tuple[int, np.ndarray, np.ndarray, float]


def cihp_parts(tags: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """CIHP's part labels of a person of CCP.

    Args:
        tags: uint8 (H, W), values 0 .. 58.
        landmarks: (33, 2), x and y in pixels, in MediaPipe's order.

    Returns:
        uint8 (H, W): labels 0 .. 19, and 255 at what CIHP has no label for.
    """
    parts = CIHP_LABEL_OF_TAG[tags]
    body = _Body(landmarks)
    _label_suit(parts, np.isin(tags, SUIT), body)
    _label_skin(parts, np.isin(tags, SKIN), body)
    _label_shoes(parts, np.isin(tags, SHOES), body)
    return parts


def has_labelled_head(is_person: np.ndarray, landmarks: np.ndarray) -> bool:
    """Whether the person's mask has a pixel between eyes and mouth.

    If not, the annotator left the head out, or the landmarks are those of somebody else.

    Args:
        is_person: bool (H, W).
        landmarks: (33, 2), x and y in pixels, in MediaPipe's order.
    """
    body = _Body(landmarks)
    eyes, mouth = body.middle(Landmark.EYES), body.middle(Landmark.MOUTH)
    rows, columns = np.ogrid[: is_person.shape[0], : is_person.shape[1]]
    x, y = (eyes + mouth) / 2
    is_head = (columns - x) ** 2 + (rows - y) ** 2 <= max(
        float(np.linalg.norm(mouth - eyes)), 1.0
    ) ** 2
    return bool(is_person[is_head].any())


class _Body:
    """What the labels need to know of a person's landmarks."""

    def __init__(self, landmarks: np.ndarray) -> None:
        self._landmarks = landmarks
        self.shoulders = self.middle(Landmark.SHOULDERS)
        self.hips = self.middle(Landmark.HIPS)
        self.torso = max(float(np.linalg.norm(self.hips - self.shoulders)), 1.0)

    def middle(self, indices: Sequence[int]) -> np.ndarray:
        return self._landmarks[list(indices)].mean(axis=0)

    def skin_places(self) -> list[_Place]:
        """Where the skin of which part is."""
        eyes, mouth = self.middle(Landmark.EYES), self.middle(Landmark.MOUTH)
        chin = mouth + _CHIN * (mouth - eyes)
        chest = self.shoulders + 0.45 * (self.hips - self.shoulders)
        face, torso = _LABEL["Face"], _LABEL["Torso-skin"]
        points = self._landmarks
        places = [
            (face, eyes, mouth, 0.1),
            (face, *points[list(Landmark.EARS)], 0.1),
            (torso, chin, self.shoulders, 0.06),
            (torso, self.shoulders, chest, 0.16),
            (torso, *points[list(Landmark.SHOULDERS)], 0.07),
            (torso, chest, self.hips, 0.0),
        ]
        for side in (0, 1):
            shoulder, elbow, wrist = (
                points[pair[side]]
                for pair in (Landmark.SHOULDERS, Landmark.ELBOWS, Landmark.WRISTS)
            )
            knuckles = points[[Landmark.LITTLE_FINGERS[side], Landmark.INDEX_FINGERS[side]]]
            fingertips = wrist + _FINGERTIPS * (knuckles.mean(axis=0) - wrist)
            hip, knee, ankle, toe = (
                points[pair[side]]
                for pair in (Landmark.HIPS, Landmark.KNEES, Landmark.ANKLES, Landmark.TOES)
            )
            places += [
                (_ARMS[side], shoulder, elbow, 0.07),
                (_ARMS[side], elbow, wrist, 0.06),
                (_ARMS[side], wrist, fingertips, 0.09),
                (_LEGS[side], hip, knee, 0.13),
                (_LEGS[side], knee, ankle, 0.08),
                (_LEGS[side], ankle, toe, 0.06),
            ]
        return [(label, start, end, self.torso * radius) for label, start, end, radius in places]

    def is_above_hips(self, patch: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Which pixels lie on the shoulders' side of the hips, bool (N,)."""
        rows, columns = patch
        down = self.hips - self.shoulders
        return (columns - self.hips[0]) * down[0] + (rows - self.hips[1]) * down[1] < 0

    def foot_places(self) -> list[_Place]:
        """Where the feet are."""
        corners = (Landmark.ANKLES, Landmark.HEELS, Landmark.TOES)
        places = []
        for side in (0, 1):
            ankle, heel, toe = (self._landmarks[pair[side]] for pair in corners)
            for start, end in ((ankle, heel), (heel, toe), (ankle, toe)):
                places.append((_SHOES[side], start, end, 0.0))
        return places


def _label_suit(parts: np.ndarray, is_suit: np.ndarray, body: _Body) -> None:
    """Return a jacket above the hips, trousers below."""
    rows = np.arange(len(parts))[:, None]
    parts[is_suit & (rows < body.hips[1])] = _LABEL["Coat"]
    parts[is_suit & (rows >= body.hips[1])] = _LABEL["Pants"]


def _label_skin(parts: np.ndarray, is_skin: np.ndarray, body: _Body) -> None:
    """Return the part whose place is nearest, without specks.

    A hand or an arm before the trunk or a thigh is told by its own axis, which runs through it,
    whatever the radius of what is behind. Skin above the hips is no leg.
    """
    places = body.skin_places()
    labels = np.array([label for label, *_ in places], dtype=np.uint8)
    is_arm, is_leg = np.isin(labels, _ARMS), np.isin(labels, _LEGS)
    axes = [(label, start, end, 0.0) for label, start, end, _ in places]
    for patch in _patches(is_skin):
        distances = _distances(patch, places)
        if is_arm[_distances(patch, axes).argmin(axis=1)].mean() > _ONE_LIMB_SHARE:
            distances[:, ~is_arm] = np.inf
        distances[np.ix_(body.is_above_hips(patch), is_leg)] = np.inf
        nearest = labels[distances.argmin(axis=1)]
        counts = np.bincount(nearest)
        is_speck = counts[nearest] < _SMALLEST_SHARE_OF_PATCH * len(nearest)
        nearest[is_speck] = counts.argmax()
        parts[patch] = nearest


def _label_shoes(parts: np.ndarray, is_shoe: np.ndarray, body: _Body) -> None:
    """Return the side of the nearer foot. Two shoes apart from each other are one of each side."""
    places = body.foot_places()

    def distances(patch: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """(N, 2): to the left and to the right foot."""
        return _distances(patch, places).reshape(-1, 2, 3).min(axis=2)

    shoes = _patches(is_shoe, gap=_SHOE_GAP * body.torso)
    shoes = sorted(shoes, key=lambda shoe: -len(shoe[0]))
    if len(shoes) >= 2 and len(shoes[0][0]) < _SHOE_SIZE_RATIO * len(shoes[1][0]):
        first, second = (distances(shoe).mean(axis=0) for shoe in shoes[:2])
        first_is_left = first[0] + second[1] <= first[1] + second[0]
        parts[shoes[0]], parts[shoes[1]] = _SHOES if first_is_left else _SHOES[::-1]
        shoes = shoes[2:]
    for shoe in shoes:
        of_shoe = np.zeros_like(is_shoe)
        of_shoe[shoe] = True
        for patch in _patches(of_shoe):
            nearest = distances(patch).argmin(axis=1)
            if max(nearest.mean(), 1 - nearest.mean()) > _ONE_SHOE_SHARE:
                nearest[:] = nearest.mean() > 0.5
            parts[patch] = np.array(_SHOES, dtype=np.uint8)[nearest]


def _patches(mask: np.ndarray, gap: float = 0.0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of each connected patch of a mask; gaps up to ``gap`` pixels connect."""
    bridged = mask.astype(np.uint8)
    if gap > 0:
        size = 2 * int(gap / 2) + 1
        bridged = cv2.dilate(bridged, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    _, components = cv2.connectedComponents(bridged, connectivity=8)
    rows, columns = np.nonzero(mask)
    owners = components[rows, columns]
    order = np.argsort(owners, kind="stable")
    ends = np.flatnonzero(np.diff(owners[order])) + 1
    return [(rows[of], columns[of]) for of in np.split(order, ends) if len(of)]


def _distances(patch: tuple[np.ndarray, np.ndarray], places: Sequence[_Place]) -> np.ndarray:
    """Distances of N pixels to the places, less their radii, in pixels: (N, number of places)."""
    points = np.stack(patch[::-1], axis=1).astype(np.float64)
    distances = np.empty((len(points), len(places)))
    for column, (_, start, end, radius) in enumerate(places):
        along = end - start
        share = (points - start) @ along / max(float(along @ along), 1e-9)
        nearest = start + np.clip(share, 0, 1)[:, None] * along
        distances[:, column] = np.linalg.norm(points - nearest, axis=1) - radius
    return distances
