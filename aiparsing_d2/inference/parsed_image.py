"""What a model found in one picture."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

from aiparsing_d2.counted import counted
from aiparsing_d2.data.coco_format import COCO_PERSON_ID
from aiparsing_d2.data.image_files import check_image_size
from aiparsing_d2.structures import PartMaps, PersonMasks
from aiparsing_d2.structures.painting import paint_by_score, visible_labels, visible_people
from aiparsing_d2.structures.part_labels import IGNORE_LABEL, PartLabels
from aiparsing_d2.whole_files import whole_file

from .parsed_person import ParsedPerson

if TYPE_CHECKING:
    import supervision

__all__ = ["ParsedImage"]

# Fields of the instances that a model may lack; identities are those of a video's frames.
_OPTIONAL_FIELDS = ("box_scores", "pred_mious", "pred_part_scores", "track_ids")
# Longest side of the picture in a notebook.
_NOTEBOOK_SIDE = 1000


@dataclass(eq=False)
class ParsedImage:
    """The people of a picture, in pixels of the picture as it is looked at: turned by its EXIF.

    Its length is the number of people, and it gives a :class:`ParsedPerson` for an index.

    Attributes:
        instances: on the CPU, as :class:`~aiparsing_d2.modeling.AIParsing` gives them, by
            descending score; for Detectron2's tools and ``ParsingEvaluator``.
        part_labels: the label set.
        image: uint8 (H, W, 3), RGB; None in a loaded result, until it is set.
    """

    instances: Instances
    part_labels: PartLabels
    image: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.instances)

    def __iter__(self) -> Iterator[ParsedPerson]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> ParsedPerson:
        """Give a person, the one with the highest score first."""
        index = range(len(self))[index]
        fields = self.instances.get_fields()
        values = {name: fields[name][index].numpy() for name in _OPTIONAL_FIELDS if name in fields}
        detection_score, parsing_score = values.get("box_scores"), values.get("pred_mious")
        track_id = values.get("track_ids")
        return ParsedPerson(
            box=fields["pred_boxes"].tensor[index].numpy(),
            score=float(fields["scores"][index]),
            detection_score=None if detection_score is None else float(detection_score),
            parsing_score=None if parsing_score is None else float(parsing_score),
            part_scores=values.get("pred_part_scores"),
            part_maps=fields["pred_part_maps"][index],
            part_labels=self.part_labels,
            image=self.image,
            track_id=None if track_id is None else int(track_id),
        )

    def __repr__(self) -> str:
        height, width = self.image_size
        return f"ParsedImage({counted(len(self), 'person')}, {height} x {width})"

    @property
    def people(self) -> list[ParsedPerson]:
        """All people, by descending score."""
        return list(self)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.instances.image_size

    def semantic_map(self) -> np.ndarray:
        """Label of every pixel: uint8 (H, W). Of people who overlap, the higher score is seen."""
        return visible_labels(self._painted())

    def instance_map(self) -> np.ndarray:
        """Who is seen at every pixel: uint16 (H, W), 0 = nobody, n + 1 = ``people[n]``."""
        return visible_people(self._painted())

    def _painted(self) -> np.ndarray:
        maps = self.instances.pred_part_maps.to_cropped_maps()
        return paint_by_score(maps, self.instances.scores.numpy(), [-np.inf], self.image_size)[
            -np.inf
        ]

    def to_json(self, **options: Any) -> str:
        """Write :meth:`to_dict` as JSON.

        Args:
            options: of ``json.dumps``, e.g. ``indent=2``.
        """
        return json.dumps(self.to_dict(), **options)

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the image as values that JSON knows.

        Returns:
            "height", "width", "part_names" (by label) and "people": "box" (XYXY), "score",
            "detection_score", "parsing_score" (null where the model has none), "segmentation" and
            "parts", the latter by name with "label", "score", "area" in pixels and "segmentation".
            Segmentations are COCO's compressed run lengths. In a frame of a video a person has a
            "track_id", too.
        """
        height, width = self.image_size
        return {
            "height": height,
            "width": width,
            "part_names": list(self.part_labels.names),
            "people": [_describe(person) for person in self],
        }

    def to_coco(self, image_id: int | str = 1) -> list[dict[str, Any]]:
        """Give the people as results for COCO's tools, such as ``COCO.loadRes``.

        Args:
            image_id: the picture's "id" among COCO's images.

        Returns:
            For each person "image_id", "category_id" 1, "bbox" (XYWH), "score", "area",
            "segmentation" (run lengths) and, which COCO does not have, "parts": run lengths by
            name.
        """
        results = []
        for person in self:
            x0, y0, x1, y1 = person.box.tolist()
            results.append(
                {
                    "image_id": image_id,
                    "category_id": COCO_PERSON_ID,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": person.score,
                    "area": person.area(),
                    "segmentation": person.rle(),
                    "parts": person.part_rles(),
                }
            )
        return results

    def to_supervision(self) -> supervision.Detections:
        """Give the people as ``supervision.Detections``, with masks (bool (N, H, W)).

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("this needs supervision: pip install supervision") from error
        if not len(self):
            return supervision.Detections.empty()
        return supervision.Detections(
            xyxy=self.instances.pred_boxes.tensor.numpy(),
            mask=PersonMasks(self.instances.pred_part_maps).numpy(),
            confidence=self.instances.scores.numpy(),
            class_id=np.zeros(len(self), dtype=int),
            tracker_id=self.instances.track_ids.numpy()
            if self.instances.has("track_ids")
            else None,
            data={"class_name": np.full(len(self), "person")},
        )

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Write everything but the image into a file of numpy's (npz), for :meth:`load`.

        Args:
            path: the file, whose name ends in .npz.
            overwrite: whether an earlier file may be replaced.

        Raises:
            FileExistsError: there is a file already.
            ValueError: the name ends otherwise.
        """
        if Path(path).suffix != ".npz":
            raise ValueError(
                f"{path} does not end in .npz; for a picture, save what plot() gives as an image"
            )
        fields = self.instances.get_fields()
        part_maps = fields["pred_part_maps"]
        labels = [np.zeros(0, np.uint8), *(m.numpy().ravel() for m in part_maps.maps)]
        arrays = {
            "image_size": np.array(self.image_size),
            "part_names": np.array(self.part_labels.names),
            "part_colors": np.array(self.part_labels.colors),
            "part_flip_pairs": np.array(self.part_labels.flip_pairs, dtype=int).reshape(-1, 2),
            "pred_boxes": fields["pred_boxes"].tensor.numpy(),
            "windows": part_maps.windows.numpy(),
            "labels": np.concatenate(labels),
        }
        arrays.update(
            (name, fields[name].numpy()) for name in ("scores", *_OPTIONAL_FIELDS) if name in fields
        )
        with whole_file(Path(path), "wb", overwrite=overwrite) as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> ParsedImage:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it was not written by :meth:`save`.
        """
        with open(path, "rb"):  # whose error says why it cannot be opened
            pass
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            instances = _to_instances(arrays)
            part_labels = PartLabels(
                *(arrays[f"part_{name}"].tolist() for name in ("names", "colors", "flip_pairs"))
            )
            _check_labels(arrays["labels"], part_labels)
        # Damaged archives make zipfile, zlib and numpy stumble over anything.
        except Exception as e:
            reason = f"{type(e).__name__}: {e}"
            raise ValueError(f"{path} is not a file of ParsedImage.save ({reason})") from e
        return cls(instances, part_labels)

    def plot(
        self,
        *,
        boxes: bool = True,
        legend: bool = False,
        color_by: Literal["part", "person"] = "part",
        alpha: float = 0.7,
        scale: float = 1.0,
    ) -> np.ndarray:
        """Draw parts, outlines, boxes and scores over the picture.

        Args:
            boxes: whether to draw the boxes, with scores and identities.
            legend: whether the names of the parts that occur stand below the picture, without
                parts of a few pixels: less than 0.1 % of the largest person's.
            color_by: "part", or "person" for one colour a person.
            alpha: opacity of the colours, 0..1.
            scale: size of the drawing relative to the picture.

        Returns:
            uint8 (H', W', 3), RGB; higher by the legend.

        Raises:
            ValueError: the result was loaded and has no image.
        """
        if self.image is None:
            raise ValueError("a loaded result has no image to draw over: set .image to its RGB")
        from aiparsing_d2.visualization import (
            draw_parsing,
            noticeable_labels,
            part_legend,
            with_legend,
        )

        instances = self.instances
        drawing = draw_parsing(
            self.image,
            instances.pred_part_maps,
            self.part_labels,
            boxes=instances.pred_boxes if boxes else None,
            scores=instances.scores,
            track_ids=instances.track_ids if instances.has("track_ids") else None,
            color_by=color_by,
            alpha=alpha,
            scale=scale,
        )
        if legend and color_by == "part":
            picture = self._painted()
            labels = noticeable_labels(visible_labels(picture), visible_people(picture))
            drawing = with_legend(drawing, part_legend(self.part_labels, labels))
        return drawing

    def _repr_png_(self) -> bytes | None:
        if self.image is None:
            return None
        file = io.BytesIO()
        scale = min(1.0, _NOTEBOOK_SIDE / max(self.image_size))
        Image.fromarray(self.plot(legend=True, scale=scale)).save(file, "PNG")
        return file.getvalue()


def _to_instances(arrays: Mapping[str, np.ndarray]) -> Instances:
    """Make the people of what :meth:`ParsedImage.save` writes.

    Raises:
        Exception: an array is missing, or is another than what is written.
    """
    _check_array(arrays, "image_size", "iu", (2,))
    height, width = arrays["image_size"].tolist()
    check_image_size(height, width)
    windows = arrays["windows"]
    _check_array(arrays, "windows", "iu", (len(windows), 4))
    _check_array(arrays, "labels", "u", (None,))
    _check_array(arrays, "pred_boxes", "f", (len(windows), 4))
    shapes = (windows[:, 2:] - windows[:, :2])[:, ::-1]
    ends = np.cumsum(shapes.prod(axis=1), dtype=np.int64)
    if len(arrays["labels"]) != (ends[-1] if len(ends) else 0):
        raise ValueError("the labels are not those of the windows")
    crops = np.split(arrays["labels"], ends)[: len(windows)]
    maps = [torch.from_numpy(c.reshape(*s)) for c, s in zip(crops, shapes, strict=True)]
    instances = Instances(
        (height, width),
        pred_boxes=Boxes(torch.from_numpy(arrays["pred_boxes"])),
        pred_part_maps=PartMaps(maps, torch.from_numpy(windows), (height, width)),
        pred_classes=torch.zeros(len(windows), dtype=torch.int64),
    )
    for name in ("scores", *(name for name in _OPTIONAL_FIELDS if name in arrays)):
        per_part = (len(arrays["part_names"]),) if name == "pred_part_scores" else ()
        kind = "i" if name == "track_ids" else "f"
        _check_array(arrays, name, kind, (len(windows), *per_part))
        instances.set(name, torch.from_numpy(arrays[name]))
    instances.pred_masks = PersonMasks(instances.pred_part_maps)
    return instances


def _check_array(
    arrays: Mapping[str, np.ndarray], name: str, kinds: str, shape: tuple[int | None, ...]
) -> None:
    array = arrays[name]
    fits = len(array.shape) == len(shape) and all(
        expected in (None, found) for expected, found in zip(shape, array.shape)
    )
    if not fits or array.dtype.kind not in kinds:
        raise ValueError(f"{name} is {array.dtype} {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} holds infinite numbers or NaN")


def _check_labels(labels: np.ndarray, part_labels: PartLabels) -> None:
    labels = labels[labels != IGNORE_LABEL]
    if labels.max(initial=0) >= part_labels.num_classes:
        raise ValueError(
            f"there are {part_labels.num_classes} labels, but a map has {labels.max()}"
        )


def _describe(person: ParsedPerson) -> dict[str, Any]:
    """Make a person's entry of :meth:`ParsedImage.to_dict`."""
    parts = {}
    areas = np.bincount(person.window_map.ravel())
    scores = person.part_scores
    for name, code in person.part_rles().items():
        label = person.part_labels.names.index(name)
        parts[name] = {
            "label": label,
            "score": None if scores is None else float(scores[label]),
            "area": int(areas[label]),
            "segmentation": code,
        }
    identity = {} if person.track_id is None else {"track_id": person.track_id}
    return {
        **identity,
        "box": person.box.tolist(),
        "score": person.score,
        "detection_score": person.detection_score,
        "parsing_score": person.parsing_score,
        "segmentation": person.rle(),
        "parts": parts,
    }
