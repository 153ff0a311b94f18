"""A model and what is around it, from a JPEG file to the files of a submission, in stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data.transforms import AugInput, AugmentationList
from detectron2.modeling import GeneralizedRCNN
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn

from aiparsing_d2 import model_zoo
from aiparsing_d2.data.image_files import read_image
from aiparsing_d2.evaluation.image_statistics import ScoreThresholds
from aiparsing_d2.evaluation.parsing_evaluator import to_prediction
from aiparsing_d2.modeling import optimize_for_inference, parsing_postprocess
from aiparsing_d2.submissions import SUBMISSION_FORMATS, instance_folders
from aiparsing_d2.submissions.composition import Composition

from .drawn_inputs import draw_image, people_boxes, people_logits
from .forced_people import ForcedPeople
from .layer_costs import stages_of
from .measured_models import RoICounter, with_small_activations
from .measuring import Case, Clock, allow_tf32, size_in_bytes

__all__ = [
    "AS_BUILT",
    "PRECISIONS",
    "Pipeline",
    "build_seeded",
    "draw_picture",
    "drawn_logits",
    "image_mapper",
]

AS_BUILT = "none"
PRECISIONS = (AS_BUILT, "fp32", "tf32", "bf16", "fp16")


def build_seeded(config: str) -> tuple[GeneralizedRCNN, DictConfig]:
    """Return a model of the zoo with random weights, always the same, on the CPU; and its config.

    As many candidates as may be are decoded and suppressed, and no part is left out, though the
    config has it: random weights find none likely, and rounding would decide which ones stay.

    Raises:
        ValueError: there is no such config.
    """
    cfg = model_zoo.get_config(config)
    if "model" not in cfg:
        raise ValueError(f"{config} is not a LazyConfig of a whole run")
    torch.manual_seed(0)
    model = with_small_activations(instantiate(cfg.model)).eval()
    if hasattr(model.proposal_generator, "score_thresh"):
        model.proposal_generator.score_thresh = 0.0
    head = getattr(model.roi_heads, "parsing_head", None)
    if hasattr(head, "min_part_probability"):
        head.min_part_probability = 0.0
    return model, cfg


def draw_picture(path: Path, size: tuple[int, int]) -> None:
    """Write a drawn scene as a JPEG file."""
    image, _ = draw_image(size, 4, seed=0)
    Image.fromarray(image.numpy()[::-1].transpose(1, 2, 0)).save(path, quality=90)


def image_mapper(cfg: DictConfig) -> Callable[[np.ndarray], Tensor]:
    """Return what resizes a picture (H, W, 3) for the model as its test set's mapper does."""
    augmentations = AugmentationList(instantiate(cfg.dataloader.test.mapper.augmentations))

    def map_image(image: np.ndarray) -> Tensor:
        aug_input = AugInput(image)
        augmentations(aug_input)
        return torch.as_tensor(np.ascontiguousarray(aug_input.image.transpose(2, 0, 1)))

    return map_image


def drawn_logits(model: GeneralizedRCNN, num_people: int) -> Tensor:
    """Return logits of drawn people, of the shape that a model's parsing branch gives."""
    heads = model.roi_heads
    side = 2 * heads.parsing_pooler.output_size[0]
    return people_logits(num_people, heads.parsing_head.num_classes, side)


class Pipeline:
    """A model in a precision, and what is around it.

    Attributes:
        case: the whole, for the last picture that was prepared.
        forced: see there.
        input_size: (height, width) of the model's input.
    """

    def __init__(
        self,
        model: GeneralizedRCNN,
        cfg: DictConfig,
        device: torch.device,
        precision: str,
        channels_last: bool | None = None,
        compile: bool = False,
        cuda_graphs: bool = False,
    ):
        """
        Args:
            model: as :func:`build_seeded` gives it; the pipeline's own from now on.
            cfg: its config.
            device: where it runs.
            precision: of ``PRECISIONS``.
            channels_last, compile, cuda_graphs: see
                :func:`~aiparsing_d2.modeling.optimize_for_inference`.
        """
        self.precision = precision
        if precision == AS_BUILT:
            self.model = model.to(device)
            if channels_last:
                self.model.to(memory_format=torch.channels_last)
        else:
            self.model = optimize_for_inference(
                model.to(device),
                "fp32" if precision == "tf32" else precision,
                channels_last=channels_last,
                compile=compile,
                cuda_graphs=cuda_graphs,
            )
        self.forced = ForcedPeople(self.model)
        self.stages = _Stages(self.model, compile and precision != AS_BUILT)
        self.counter = RoICounter(self.model)
        self.image_format = cfg.dataloader.test.mapper.image_format
        self.map_image = image_mapper(cfg)
        self.case: Case
        self.input_size: tuple[int, int]

    def prepare(self, picture: Path, folder: Path, count: int) -> None:
        """Make the case of a picture, whose results are written to a folder."""
        model, device = self.model, self.model.device
        head = model.roi_heads.parsing_head
        height, width = self.map_image(read_image(picture, self.image_format)).shape[1:]
        self.input_size = (height, width)
        logits = drawn_logits(model, count).to(device)
        self.forced.set(people_boxes(count, self.input_size).to(device), logits)
        submission = SUBMISSION_FORMATS["cihp"](folder, head.num_classes, ScoreThresholds())
        numbers = iter(range(10**9))

        @torch.no_grad()
        def run(clock: Clock) -> Tensor:
            allow_tf32(self.precision == "tf32")
            image = read_image(picture, self.image_format)
            clock.mark("reading")
            tensor = self.map_image(image)
            clock.mark("mapping")
            height, width = image.shape[:2]
            with self.stages.timed(clock):
                raw = model.inference([{"image": tensor}], do_postprocess=False)
            inclusive_boxes = getattr(model.proposal_generator, "inclusive_boxes", False)
            people = parsing_postprocess(raw[0], height, width, inclusive_boxes)
            clock.mark("pasting")
            prediction = to_prediction(people, (height, width))
            with mock.patch.object(instance_folders, "Composition", _marking(clock)):
                submission.write(f"{next(numbers):07d}", prediction, (height, width))
            clock.mark("writing")
            return self.forced.found

        resident = size_in_bytes([*model.parameters(), *model.buffers()])
        self.case = Case(run, {"precision": self.precision}, self.counter, resident)


class _Stages:
    """Marks the ends of a model's stages: hooks of the modules that layer costs are counted of.

    What a module does beside those inside it is a stage too.
    """

    def __init__(self, model: GeneralizedRCNN, compiled: bool):
        """
        Args:
            model: with hooks of its own already.
            compiled: whether backbone and heads are, which cannot be looked into.
        """
        self._clock: Clock | None = None
        self._open = ["the rest of the model"]
        names = {} if compiled else _stage_names(model)
        for path, name in names.items():
            module = model.get_submodule(path)
            module.register_forward_pre_hook(self._enter(name), prepend=True)
            module.register_forward_hook(self._leave)

    @contextmanager
    def timed(self, clock: Clock) -> Iterator[None]:
        """Mark the stages of a call on a clock."""
        self._clock = clock
        yield
        clock.mark(self._open[0])
        self._clock = None

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            if self._clock:
                self._clock.mark(self._open[-1])
                self._open.append(name)

        return hook

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._clock:
            self._clock.mark(self._open.pop())


def _stage_names(model: GeneralizedRCNN) -> dict[str, str]:
    """Names of stages by path of a module."""
    names = {path: stage.name for stage in stages_of(model) for path in stage.modules}
    # The detector's layers are a stage of their own here.
    generator = model.proposal_generator
    head = "rpn_head" if hasattr(generator, "rpn_head") else "head"
    names[f"proposal_generator.{head}"] = names["proposal_generator"]
    names["proposal_generator"] = "decoding and suppression"
    for pooler in ("box_pooler", "parsing_pooler"):
        if isinstance(getattr(model.roi_heads, pooler, None), nn.Module):
            names[f"roi_heads.{pooler}"] = "RoI pooling"
    return names


def _marking(clock: Clock) -> Callable[..., Composition]:
    """Return the composition that the writer calls, with marks around it."""

    def marked(*args: Any) -> Composition:
        clock.mark("to the host")
        composition = Composition(*args)
        # Each is made when it is first asked for.
        _ = composition.category_map, composition.part_regions, composition.person_map
        clock.mark("composing")
        return composition

    return marked
