"""A script that does the work of a benchmark in some version of the package.

It is started by :mod:`.versions` with that version on ``PYTHONPATH``, and so uses only what all
versions have. It reads a line at a time from its standard input: "outputs", upon which it writes
what the work gives to a file, or "run", upon which it does the work and answers with milliseconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

Work = Callable[[], dict[str, Any]]

# Work that is shorter is done several times in a run.
_SHORTEST_RUN = 0.02


def infer(inputs: Mapping[str, Any]) -> Work:
    """From a picture's tensor to part maps, by a model in a precision."""
    from detectron2.config import instantiate
    from forced_people import ForcedPeople

    from aiparsing_d2 import model_zoo

    model = instantiate(model_zoo.get_config(inputs["config"]).model).eval()
    model.load_state_dict(inputs["state"])
    if hasattr(model.proposal_generator, "score_thresh"):
        model.proposal_generator.score_thresh = 0.0
    model = optimized(model.to(inputs["device"]), inputs["precision"])
    people = ForcedPeople(model)
    people.set(inputs["boxes"].to(inputs["device"]), inputs["logits"].to(inputs["device"]))
    height, width = inputs["size"]
    image = {"image": inputs["image"], "height": height, "width": width}

    @torch.no_grad()
    def work() -> dict[str, Any]:
        (result,) = model([image])
        part_maps = result["instances"].pred_part_maps
        return {"logits": people.found, "part_maps": part_maps}

    return work


def optimized(model: Any, precision: str) -> Any:
    """Return a model for inference; "default" is what the version's predictor does by itself."""
    if precision != "default":
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if precision == "none":
        return model
    try:
        from aiparsing_d2.modeling import optimize_for_inference
    except ImportError:
        if precision == "default":
            return model
        raise
    if precision == "tf32":
        precision = "fp32"
    return optimize_for_inference(model, "fp32" if precision == "default" else precision)


def paste(inputs: Mapping[str, Any]) -> Work:
    """From logits to part maps."""
    from aiparsing_d2.structures import ROIPartLogits

    logits = ROIPartLogits(inputs["logits"].to(inputs["device"]), inputs["factor"])
    boxes, size = inputs["boxes"].to(inputs["device"]), tuple(inputs["size"])

    def work() -> dict[str, Any]:
        part_maps, scores = logits.to_part_maps(boxes, size)
        return {"part_maps": part_maps, "scores": scores}

    return work


def compose(inputs: Mapping[str, Any]) -> Work:
    """From people's maps to the pictures of a submission."""
    try:
        from aiparsing_d2.submissions import composition
    except ImportError:  # where it was in November 2026
        from aiparsing_d2.evaluation.submissions import composition  # type: ignore[no-redef]

    from aiparsing_d2.evaluation import CroppedMaps, Prediction
    from aiparsing_d2.evaluation.image_statistics import ScoreThresholds

    maps = CroppedMaps([x.numpy() for x in inputs["maps"]], inputs["windows"].numpy())
    prediction = Prediction(maps, inputs["scores"].numpy())
    size, num_classes = tuple(inputs["size"]), inputs["classes"]

    def work() -> dict[str, Any]:
        make = getattr(composition, "compose", None) or composition.Composition
        made = make(prediction, size, num_classes, ScoreThresholds(), 0.01)
        regions = made.part_regions
        return {
            "category_map": made.category_map,
            "person_map": made.person_map,
            "region_map": regions.region_map,
            "region_scores": regions.scores,
        }

    return work


def main() -> None:
    """Do the work that the first argument names, with the inputs and outputs in a folder."""
    task, folder = sys.argv[1:]
    # What libraries print is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    inputs = torch.load(os.path.join(folder, "inputs.pt"), weights_only=True)
    torch.set_num_threads(inputs["threads"])
    import aiparsing_d2

    work = {"infer": infer, "paste": paste, "compose": compose}[task](inputs)
    _answer(answers, package=os.path.dirname(aiparsing_d2.__file__))
    times = 1
    for line in sys.stdin:
        if line == "outputs\n":
            started = time.perf_counter()
            outputs = work()
            _synchronize(inputs["device"])
            times = max(1, int(_SHORTEST_RUN / (time.perf_counter() - started)))
            torch.save({k: _tensor(v) for k, v in outputs.items()}, f"{folder}/outputs.pt")
            _answer(answers)
        else:
            _answer(answers, ms=_milliseconds(work, inputs["device"], times))


def _milliseconds(work: Work, device: str, times: int) -> float:
    _synchronize(device)
    started = time.perf_counter()
    for _ in range(times):
        work()
    _synchronize(device)
    return 1e3 * (time.perf_counter() - started) / times


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def _tensor(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.astype(np.float64 if value.dtype.kind == "f" else np.int64))
    return value.to_full().cpu()  # part maps


def _answer(answers: Any, **content: Any) -> None:
    print(json.dumps(content), file=answers, flush=True)


if __name__ == "__main__":
    main()
