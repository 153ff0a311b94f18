"""Speed of inference, model beside model, at given numbers of people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor

from aiparsing_d2.modeling import AIParsing, parsing_postprocess

from .drawn_inputs import draw_image, people_boxes
from .measured_models import MODELS, REFERENCE, ModelSettings, RoICounter, build, facts
from .measuring import Case, Clock, allow_tf32, autocast, size_in_bytes
from .report import Report, available, shown_number, shown_ratio, shown_size, shown_time

__all__ = ["measure_inference"]


@torch.no_grad()
def infer(
    model: GeneralizedRCNN,
    image: Tensor,
    people: Tensor,
    output_size: Sequence[int],
) -> tuple[Instances, Tensor]:
    """Find people in an image, then go on with given ones.

    Args:
        model: in evaluation mode.
        image: uint8 (3, H, W), as a mapper leaves it.
        people: boxes (N, 4) in its frame, on the model's device.
        output_size: (height, width) that results are pasted at.

    Returns:
        The people at the output's size, and the finest feature map.
    """
    inputs = model.preprocess_image([{"image": image}])
    features = model.backbone(inputs.tensor)
    proposals, _ = model.proposal_generator(inputs, features, None)
    # What the RoI heads of either model do at test before they turn to parts or masks.
    model.roi_heads._forward_box(features, proposals)
    given = Instances(
        tuple(image.shape[1:]),
        pred_boxes=Boxes(people.clone()),  # postprocessing scales in place
        scores=people.new_full((len(people),), 0.9),
        pred_classes=torch.zeros(len(people), dtype=torch.int64, device=people.device),
    )
    (found,) = model.roi_heads.forward_with_given_boxes(features, [given])
    height, width = output_size
    if isinstance(model, AIParsing):
        inclusive_boxes = getattr(model.proposal_generator, "inclusive_boxes", False)
        result = parsing_postprocess(found, height, width, inclusive_boxes)
    else:
        result = detector_postprocess(found, height, width)
    if len(result) != len(people):
        raise AssertionError(f"{len(people)} people were given, {len(result)} came out")
    return result, next(iter(features.values()))


def measure_inference(settings: ModelSettings, people: Sequence[int]) -> Report:
    """Measure the models at test.

    Args:
        settings: see there.
        people: numbers of people in the image.
    """
    report = Report(
        notes=[
            "Of one image, from uint8 pixels on the host to part maps (Mask R-CNN: masks) of the "
            "image's size on the device: network, decoding and suppression of as many candidates "
            "as the detector may have, pasting.",
            "Table IX of the paper: an RTX 2080 Ti, CIHP's images and people.",
        ]
    )
    device, size = settings.device, settings.image_size
    models = {key: build(key, device, settings.channels_last).eval() for key in settings.models}
    counters = {key: RoICounter(model) for key, model in models.items()}
    images = {key: draw_image(MODELS[key].input_size(size), 4, seed=0)[0] for key in models}
    precisions = available(settings.precisions, device, report)
    for count, precision in product(people, precisions):
        cases = {}
        for key, model in models.items():
            boxes = people_boxes(count, images[key].shape[1:]).to(device)

            def run(
                clock: Clock,
                model: GeneralizedRCNN = model,
                image: Tensor = images[key],
                boxes: Tensor = boxes,
                precision: str = precision,
            ) -> Tensor:
                with autocast(precision, device):
                    _, features = infer(model, image, boxes, size)
                clock.mark("inference")
                return features

            resident = size_in_bytes([*model.parameters(), *model.buffers()])
            cases[MODELS[key].name] = Case(run, facts(key, size), counters[key], resident)
        allow_tf32(precision == "tf32")
        shared = {"people": count, "precision": precision}
        report.add_group(settings, cases, shared, MODELS[REFERENCE].name)
    reference = MODELS[REFERENCE].paper_fps
    for row in report.rows:
        row["images_per_second"] = row["ms"] and 1000 / row["ms"]
        fps = MODELS[row["key"]].paper_fps
        row["paper_fps"], row["paper_ratio"] = fps, fps and reference / fps
    report.columns = {
        "model": lambda row: row["model"],
        "input": shown_size,
        "people": lambda row: row["people"],
        "precision": lambda row: row["precision"],
        "ms": lambda row: shown_time(row, "ms", ".1f"),
        "images/s": lambda row: shown_number(row["images_per_second"], ".1f"),
        "time / AIParsing's": shown_ratio,
        "peak MiB": lambda row: shown_number(row["peak_mib"], ".0f"),
        "Table IX images/s": lambda row: shown_number(row["paper_fps"], ".1f"),
        "Table IX time / AIParsing's": lambda row: shown_number(row["paper_ratio"], ".2f"),
    }
    return report
