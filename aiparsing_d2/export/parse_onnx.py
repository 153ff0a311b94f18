#!/usr/bin/env python3
"""Parse pictures with an exported model: people and their parts, without torch.

Lies beside model.onnx and model.onnx.json, which it reads; needs only numpy, onnxruntime, Pillow.

    python parse_onnx.py photo.jpg other.png --output parsed/

For photo.jpg there are then photo.json (people with box, scores and parts), photo.parts.png (label
of every pixel, in the labels' colours) and photo.instances.png (16 bits: n of people[n - 1], 0 for
nobody), all in pixels of the picture as its EXIF or XMP turns it. Files that are there are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

FOLDER = Path(__file__).resolve().parent
MAX_IOU = 0.5  # people whose maps share more of their pixels are one person
RESULTS = (".json", ".parts.png", ".instances.png")
ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 274, 258, 262, 0  # of TIFF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(file: Path) -> Image.Image:
    """Read a picture, turned as it says, with grey values of 12 or 16 bits scaled to 8.

    Raises:
        OSError: there is no such file, or it is no picture that can be read.
    """
    with open(file, "rb") as content:
        # A damaged file may make Pillow's parsers raise anything.
        try:
            with Image.open(content) as opened:
                if opened.format == "EPS":  # Pillow would have Ghostscript run it
                    raise ValueError("it is a PostScript program")
                turn = _turn(opened)
                picture = opened.copy()
                kind, tags = opened.format, getattr(opened, "tag_v2", {})
        except Exception as error:
            raise OSError(
                f"no picture that can be read: {error or type(error).__name__}"
            ) from error
    # Before version 11, Pillow gives the values of such PNGs 32 bits.
    if picture.mode.startswith("I;16") or (picture.mode == "I" and kind in ("PNG", "PPM")):
        (bits,) = tags.get(BITS_PER_SAMPLE, (16,))
        values = (np.asarray(picture) >> (bits - 8)).astype(np.uint8)
        picture = Image.fromarray(~values if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else values)
    return picture if turn is None else picture.transpose(turn)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """How a picture that is not decoded yet has to be turned, by what stands before its pixels."""
    if picture.format == "TIFF":  # Pillow turns these itself
        return None
    try:
        # Not picture.getexif(), which decodes a PNG to look for EXIF behind the pixels.
        return TURNS.get(Image.Image.getexif(picture).get(ORIENTATION))
    except Exception:  # broken metadata do not make the pixels unreadable
        return None


class Parser:
    """The model of a folder that ``aiparsing export`` wrote."""

    def __init__(self, folder: Path = FOLDER):
        self.about = json.loads((folder / "model.onnx.json").read_text(encoding="utf-8"))
        there = onnxruntime.get_available_providers()
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in there]
        self.session = onnxruntime.InferenceSession(
            str(folder / self.about["file"]), providers=providers
        )

    def __call__(self, picture: Image.Image, score_threshold: float | None = None) -> list[dict]:
        """Give the people, by descending score, each once.

        Args:
            picture: turned already, of 8 bits in any mode; :func:`read_picture` gives such.
            score_threshold: lowest score of a person; that of model.onnx.json if not given.

        Returns:
            For each person "box" (x0, y0, x1, y1), "score", "detection_score", with a score head
            "parsing_score", "part_scores" (by label, mean probability over the part's pixels), and
            "map": uint8, labels of the window "window" (x0, y0, x1, y1).

        Raises:
            ValueError: the picture's values have no known range, as those of 32 bits.
        """
        people: list[dict] = []
        for person in self.all_people(picture, score_threshold):
            if all(not _are_same(person, better) for better in people):
                people.append(person)
        return people

    def all_people(self, picture: Image.Image, score_threshold: float | None = None) -> list[dict]:
        """Give the same people, also those who were found twice."""
        if score_threshold is None:
            score_threshold = self.about["score_threshold"]
        if picture.mode[0] in "IF":  # Pillow would cut most of their values off
            raise ValueError(f"the range of its values (mode {picture.mode}) is not known")
        width, height = picture.size
        resized = self._resize(picture.convert("RGB"))
        inputs = {"image": resized, "score_threshold": np.array(score_threshold, np.float32)}
        names = [output.name for output in self.session.get_outputs()]
        found = dict(zip(names, self.session.run(None, inputs)))

        inclusive = self.about["inclusive_boxes"]
        scale = np.array([width / resized.shape[1], height / resized.shape[0]] * 2, np.float32)
        limits = np.array([width, height] * 2, np.float32)
        boxes = found["boxes"] * scale
        if not inclusive:
            boxes = boxes.clip(0, limits)
        people = []
        for i, box in enumerate(boxes):
            if not inclusive and not (box[2:] > box[:2]).all():
                continue
            probabilities = self._probabilities(found["part_logits"][i])
            part_map, confidence, window = paste(probabilities, box, (width, height), inclusive)
            person: dict = {"box": self._box_toward_parts(box, found["part_ends"][i])}
            for name in ("scores", "detection_scores", "parsing_scores"):
                if name in found:
                    person[name.removesuffix("s")] = float(found[name][i])
            areas = np.bincount(part_map.ravel(), minlength=len(probabilities))
            totals = np.bincount(part_map.ravel(), confidence.ravel(), len(probabilities))
            person["part_scores"] = (totals / np.maximum(areas, 1)).tolist()
            people.append({**person, "window": window, "map": part_map})
        return people

    def _box_toward_parts(self, box: np.ndarray, part_ends: np.ndarray) -> np.ndarray:
        """Move the sides, which then are exclusive ends, toward where the parts end."""
        box = box + self.about["inclusive_boxes"] * np.array([0, 0, 1, 1], np.float32)
        extent = np.tile(box[2:] - box[:2], 2)
        ends = np.tile(box[:2], 2) + part_ends * extent
        return box + self.about["part_box_weight"] * (ends - box)

    def _resize(self, picture: Image.Image) -> np.ndarray:
        """Bring the shorter side to the model's size, as far as the longer one allows."""
        width, height = picture.size
        rule = self.about["resize"]
        scale = rule["short_side"] / min(width, height)
        new_width, new_height = width * scale, height * scale
        if max(new_width, new_height) > rule["longest_side"]:
            scale = rule["longest_side"] / max(new_width, new_height)
            new_width, new_height = new_width * scale, new_height * scale
        size = int(new_width + 0.5), int(new_height + 0.5)
        return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Upsample a person's logits (C, M, M), corners aligned, and give (C, T, T)."""
        side = logits.shape[1]
        target = side * self.about["upsample_factor"]
        positions = np.arange(target) * ((side - 1) / max(target - 1, 1))
        weights = bilinear_weights(positions, side)
        logits = weights @ logits @ weights.T
        odds = np.exp(logits - logits.max(axis=0))
        return odds / odds.sum(axis=0)


def paste(
    probabilities: np.ndarray, box: np.ndarray, picture_size: tuple[int, int], inclusive: bool
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    """Resize probabilities (C, T, T), with a border of one zero cell, to a box of the picture.

    Args:
        probabilities: of a person's labels.
        box: x0, y0, x1, y1 in pixels of the picture.
        picture_size: width, height.
        inclusive: whether x1 and y1 are the last pixels' indices, see "inclusive_boxes".

    Returns:
        uint8 labels of the window, their probabilities, and the window x0, y0, x1, y1, ends
        exclusive.
    """
    side = probabilities.shape[1]
    weights, window = [], []
    for low, high, size in zip(box[:2].tolist(), box[2:].tolist(), picture_size):
        if inclusive:
            # The box grows with the zero border and is cut to whole pixels.
            center, reach = (low + high) / 2, (high - low) / 2 * ((side + 2) / side)
            start, end = int(center - reach), int(center + reach) + 1
            end = max(end, start + 1)
            border = (end - start) / (side + 2)
            low, high = start + border, end - border
        else:
            start, end = int(np.floor(low)), int(np.ceil(high))
        start, end = (min(max(x, 0), size) for x in (start, end))
        end = max(end, start)
        # Centres of the pixels in cells of the box.
        cells = (np.arange(start, end) + 0.5 - low) / max(high - low, 1e-6) * side - 0.5
        # Rounding must not let a trace of the last cell label pixels of the border alone.
        reach = side / 2 * (1 + 1 / side - 1e-7)
        cells[np.abs(cells - (side - 1) / 2) > reach] = -2
        weights.append(bilinear_weights(cells, side))
        window.append((start, end))
    resized = weights[1] @ probabilities @ weights[0].T
    (x0, x1), (y0, y1) = window
    return resized.argmax(axis=0).astype(np.uint8), resized.max(axis=0), (x0, y0, x1, y1)


def bilinear_weights(positions: np.ndarray, size: int) -> np.ndarray:
    """Weights (P, size) of cells 0 .. size - 1 at P positions; beyond them there are zeros."""
    return np.maximum(1 - np.abs(positions[:, None] - np.arange(size)), 0).astype(np.float32)


def _are_same(person: dict, other: dict) -> bool:
    """Whether two people's maps share more than half of their pixels."""
    x0, y0 = np.maximum(person["window"][:2], other["window"][:2])
    x1, y1 = np.minimum(person["window"][2:], other["window"][2:])
    if x0 >= x1 or y0 >= y1:
        return False
    masks = []
    for one in (person, other):
        left, top = one["window"][:2]
        masks.append(one["map"][y0 - top : y1 - top, x0 - left : x1 - left] > 0)
    shared = np.count_nonzero(masks[0] & masks[1])
    total = sum(np.count_nonzero(one["map"]) for one in (person, other))
    return shared > MAX_IOU * (total - shared)


def save(
    people: list[dict],
    about: dict,
    picture_size: tuple[int, int],
    path: Path,
    results: Sequence[str] = RESULTS,
) -> None:
    """Write those of the three files of a picture, whose names begin with ``path``'s."""
    width, height = picture_size
    parts = np.zeros((height, width), np.uint8)
    owners = np.zeros((height, width), np.uint16)
    # Of those who overlap the best is seen, so it is painted last.
    for number, person in reversed(list(enumerate(people, start=1))):
        x0, y0, x1, y1 = person["window"]
        seen = person["map"] > 0
        parts[y0:y1, x0:x1][seen] = person["map"][seen]
        owners[y0:y1, x0:x1][seen] = number
    image = Image.fromarray(parts)
    image.putpalette([channel for color in about["part_colors"] for channel in color])
    if ".parts.png" in results:
        image.save(path.with_name(path.name + ".parts.png"))
    if ".instances.png" in results:
        Image.fromarray(owners).save(path.with_name(path.name + ".instances.png"))
    described = []
    for person in people:
        areas = np.bincount(person["map"].ravel(), minlength=len(about["part_names"]))
        parts = {
            about["part_names"][n]: {
                "label": n,
                "score": person["part_scores"][n],
                "area": int(area),
            }
            for n, area in enumerate(areas)
            if n and area
        }
        scores = {name: value for name, value in person.items() if name.endswith("score")}
        described.append({"box": person["box"].tolist(), **scores, "parts": parts})
    content = {"height": height, "width": width, "people": described}
    if ".json" in results:
        path.with_name(path.name + ".json").write_text(json.dumps(content, indent=1), "utf-8")


def main() -> int:
    """Parse the pictures that the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--threshold", type=float, metavar="T", help="default: that of model.onnx.json"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    args = parser.parse_args()
    parse = Parser()
    parsed: dict[str, Path] = {}
    num_failed = 0
    for file in args.pictures:
        try:
            if file.stem in parsed:
                raise ValueError(f"its results would replace those of {parsed[file.stem]}")
            path = args.output / file.stem
            there = [end for end in RESULTS if path.with_name(path.name + end).exists()]
            kept = [] if args.overwrite else there
            missing = [end for end in RESULTS if end not in kept]
            done = []
            if missing:
                picture = read_picture(file)
                people = parse(picture, args.threshold)
                args.output.mkdir(parents=True, exist_ok=True)
                save(people, parse.about, picture.size, path, missing)
                done.append(f"people: {len(people)}")
            if kept:
                names = " and ".join(path.name + end for end in kept)
                done.append(f"{names} kept (--overwrite makes them anew)")
        except (OSError, ValueError) as error:
            num_failed += 1
            print(f"{file}: {error}", file=sys.stderr)
        else:
            parsed[file.stem] = file
            print(f"{file}: {', '.join(done)}")
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
