"""From a picture to its people, with one object."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, overload

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.data import transforms as T
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.data.transforms import AugInput
from detectron2.modeling import build_model
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from yaml import YAMLError

import aiparsing_d2.data.datasets  # noqa: F401  registers the label sets
import aiparsing_d2.modeling  # noqa: F401  registers what yacs configs name
from aiparsing_d2 import model_zoo
from aiparsing_d2.config import add_aiparsing_config
from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper
from aiparsing_d2.engine import (
    ConfigError,
    FittingCheckpointer,
    check_consistency,
    check_init_checkpoint,
    load_lazy_config,
)
from aiparsing_d2.engine.config_error import building
from aiparsing_d2.engine.data_set_registration import data_set_names
from aiparsing_d2.modeling.inference_optimization import optimize_for_inference
from aiparsing_d2.modeling.postprocessing import parsing_postprocess
from aiparsing_d2.structures.part_labels import PartLabels, get_part_labels

from .parsed_image import ParsedImage
from .pictures import Picture, read_picture
from .repeated_people import different_people

__all__ = ["DEFAULT_CONFIG", "ParsingPredictor", "PreparedPicture"]

DEFAULT_CONFIG = "photographs/aiparsing_lite0_FPN_ccp"
"""The config whose weights the package carries."""

Config: TypeAlias = str | os.PathLike | DictConfig | CfgNode


class PreparedPicture(NamedTuple):
    """A picture, and what the model is given of it.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        tensor: (C, H', W'), resized, in the channel order of the model.
    """

    image: np.ndarray
    tensor: torch.Tensor


class ParsingPredictor:
    """Finds the people of a picture and their parts, each person once.

    Resize, channel order and label set are those of the config's test set. For training, scoring
    and test-time augmentation there are ``train_net.py`` and Detectron2's own tools.

    Attributes:
        model: a ``GeneralizedRCNN`` with a parsing branch, in evaluation mode.
        precision: "fp32", "bf16" or "fp16", or None for a model as its config builds it.
        part_labels: its label set.
    """

    def __init__(
        self,
        config: Config = DEFAULT_CONFIG,
        weights: str | os.PathLike | None = None,
        *,
        device: str | torch.device | None = None,
        score_threshold: float = 0.38,
        precision: str | None = "fp32",
        channels_last: bool | None = None,
        compile: bool = False,
        cuda_graphs: bool = False,
    ):
        """
        Args:
            config: a name of the model zoo, a file (LazyConfig or yacs), or a config.
            weights: a file or URL with all weights of the model. None: those that
                ``model_zoo.get_checkpoint`` knows for a name of the model zoo.
            device: the default is a GPU where there is one.
            score_threshold: lowest score of a person, in 0..1.
            precision, channels_last, compile, cuda_graphs: of the network, see
                :func:`~aiparsing_d2.modeling.optimize_for_inference`. Without a precision the
                network is left as its config builds it.

        Raises:
            ValueError: there is no such config, it describes no test set, no weights are given for
                it, the threshold is out of range, or there is no such device or precision.
            FileNotFoundError: the weights do not exist, or the config has none of its own.
            ConfigError: the config cannot be read or built, the weights do not fit the model, or
                model and test set each other.
        """
        device = _available_device(device)
        self.score_threshold = score_threshold
        if not weights:
            weights = _carried_weights(config)
        elif "://" not in str(weights) and not os.path.isfile(weights):
            raise FileNotFoundError(f"there is no file {weights}, which is to be the weights")
        check_init_checkpoint(str(weights))
        self.model: Any
        named = isinstance(config, (str, os.PathLike))
        with building(os.fspath(config) if named else "the config"):
            config = _load_config(config)
            build = _build_yacs if isinstance(config, CfgNode) else _build_lazy
            self.model, self._mapper, self.part_labels = build(config, str(device))
        FittingCheckpointer(self.model).load(str(weights))
        self.model.eval()
        if precision is not None:
            self.model = optimize_for_inference(
                self.model,
                precision,
                channels_last=channels_last,
                compile=compile,
                cuda_graphs=cuda_graphs,
            )
        self.precision = getattr(self.model, "inference_precision", None)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def image_format(self) -> str:
        """Order of the channels that the model reads: "BGR" or "RGB", or "L"."""
        return self._mapper.image_format

    @property
    def augmentations(self) -> list[T.Augmentation]:
        """What is done to a picture before the model sees it."""
        return list(self._mapper.augmentations.augs)

    @property
    def score_threshold(self) -> float:
        """Lowest score of a person, in 0..1; may be changed."""
        return self._score_threshold

    @score_threshold.setter
    def score_threshold(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise ValueError(f"the score threshold must be in 0..1, got {value}")
        self._score_threshold = value

    @overload
    def __call__(self, picture: Picture, *, channel_order: str = "BGR") -> ParsedImage: ...

    @overload
    def __call__(
        self, picture: list[Picture] | tuple[Picture, ...], *, channel_order: str = "BGR"
    ) -> list[ParsedImage]: ...

    def __call__(
        self,
        picture: Picture | list[Picture] | tuple[Picture, ...],
        *,
        channel_order: str = "BGR",
    ) -> ParsedImage | list[ParsedImage]:
        """Parse a picture, or several.

        Args:
            picture: see :func:`~aiparsing_d2.inference.read_picture`; or a list or tuple of
                pictures of any sizes and kinds.
            channel_order: "BGR" or "RGB", of arrays and tensors.

        Returns:
            The people of the picture; of a list, a list.

        Raises:
            TypeError, ValueError, OSError: a picture cannot be read.
        """
        if isinstance(picture, (list, tuple)):
            return list(self.iterate(picture, channel_order=channel_order))
        return next(self.iterate([picture], channel_order=channel_order))

    def iterate(
        self, pictures: Iterable[Picture], *, channel_order: str = "BGR", batch_size: int = 4
    ) -> Iterator[ParsedImage]:
        """Parse pictures one after the other, without keeping them.

        A picture's result does not depend on the others: only neighbours whose padding is the same
        as if they were alone share a batch.

        Args:
            pictures: any number, of any sizes and kinds.
            channel_order: "BGR" or "RGB", of arrays and tensors.
            batch_size: most pictures that the model sees at once.

        Yields:
            The people of each picture, in the order of the pictures.
        """
        batch: list[PreparedPicture] = []
        for picture in pictures:
            prepared = self.prepare(picture, channel_order=channel_order)
            size = self._padded_size(prepared.tensor)
            if batch and size != self._padded_size(batch[0].tensor):
                yield from self._parse(batch)
                batch = []
            batch.append(prepared)
            if len(batch) == batch_size:
                yield from self._parse(batch)
                batch = []
        if batch:
            yield from self._parse(batch)

    def prepare(self, picture: Picture, *, channel_order: str = "BGR") -> PreparedPicture:
        """Read and resize a picture for :meth:`parse_prepared`; threads may do so at once.

        Raises:
            TypeError, ValueError, OSError: it cannot be read.
        """
        image = read_picture(picture, channel_order)
        # As the mapper of the test set does.
        pixels = _in_format(image, self._mapper.image_format)
        aug_input = AugInput(pixels)
        try:
            self._mapper.augmentations(aug_input)
        except ValueError as error:  # a side that shrinks to nothing
            size = f"{image.shape[0]} x {image.shape[1]} (height x width)"
            raise ValueError(f"a picture of {size} cannot be resized: {error}") from error
        pixels = np.ascontiguousarray(aug_input.image.transpose(2, 0, 1))
        return PreparedPicture(image, torch.as_tensor(pixels))

    def parse_prepared(self, picture: PreparedPicture) -> ParsedImage:
        """Parse a picture that :meth:`prepare` gave: what calling the predictor does."""
        return self._parse([picture])[0]

    def _padded_size(self, tensor: torch.Tensor) -> tuple[int, ...]:
        """Size (H, W) to which the model pads an input that is alone."""
        divisor = max(self.model.backbone.size_divisibility, 1)
        return tuple(-(-side // divisor) * divisor for side in tensor.shape[1:])

    @torch.no_grad()
    def _parse(self, batch: list[PreparedPicture]) -> list[ParsedImage]:
        model = self.model
        inputs = model.preprocess_image([{"image": tensor} for _, tensor in batch])
        features = model.backbone(inputs.tensor)
        proposals, _ = model.proposal_generator(inputs, features, None)
        detections = model.roi_heads.detect(features, proposals)
        # Most of the time goes to the parsing head, so it sees only whom it can lift to the
        # threshold: a score is at most the root of the detection's, unless mIoUs may exceed 1.
        clamped = getattr(model.roi_heads.parsing_head, "clamp_mious", False)
        least = self.score_threshold**2 if clamped else 0.0
        detections = [found[found.scores >= least] for found in detections]
        parsed = model.roi_heads.forward_with_given_boxes(features, detections)
        # The convention of the model's boxes, see FCOSProposalGenerator.
        inclusive_boxes = getattr(model.proposal_generator, "inclusive_boxes", False)
        part_box_weight = getattr(model, "part_box_weight", 0.0)
        results = []
        for (image, _), instances in zip(batch, parsed, strict=True):
            instances = instances[instances.scores >= self.score_threshold]
            instances = instances[instances.scores.argsort(descending=True, stable=True)]
            height, width = image.shape[:2]
            instances = parsing_postprocess(
                instances, height, width, inclusive_boxes, part_box_weight
            )
            instances = instances.to("cpu")
            instances = instances[different_people(instances.pred_part_maps)]
            results.append(ParsedImage(instances, self.part_labels, image))
        return results


def _in_format(image: np.ndarray, image_format: str) -> np.ndarray:
    """Do what Detectron2 does with an RGB image of Pillow, without its copies of the picture."""
    if image_format == "RGB":
        return image
    if image_format == "BGR":
        return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return convert_PIL_to_numpy(Image.fromarray(image), image_format)


def _available_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        found = f"{torch.cuda.device_count()} GPUs" if torch.cuda.is_available() else "no GPU"
        raise ValueError(
            f"there is no device {str(device)!r} here (torch finds {found}); without a device a "
            "GPU is taken where there is one, else the CPU"
        ) from error
    return device


def _carried_weights(config: Config) -> str:
    if isinstance(config, (DictConfig, CfgNode)) or os.path.isfile(config):
        raise ValueError(
            "give weights=..., the file that was trained with this config; only names of the model "
            "zoo may have weights of their own"
        )
    return model_zoo.get_checkpoint(os.fspath(config))


def _load_config(config: Config) -> DictConfig | CfgNode:
    if isinstance(config, (DictConfig, CfgNode)):
        return config
    if not os.path.isfile(config):
        return model_zoo.get_config(os.fspath(config))
    file = Path(config)
    try:
        return _read_config(file)
    except (ConfigError, OSError):  # which name a file
        raise
    except (SyntaxError, YAMLError) as error:
        # Detectron2 names the file only, and where in it as the cause.
        reason = " ".join(str(error.__cause__ or error).split())
        raise ConfigError(f"{file} cannot be read: {reason}") from error
    except Exception as error:  # a config in Python is a program, which may raise anything
        calls = traceback.extract_tb(error.__traceback__)
        lines = [call.lineno for call in calls if call.filename == str(file)]
        place = f", line {lines[-1]}" if lines else ""
        reason = f"{' '.join(str(error).split())} ({type(error).__name__})"
        raise ConfigError(f"{file}{place} cannot be read: {reason}") from error


def _read_config(file: Path) -> DictConfig | CfgNode:
    # Keys of yacs are in capitals, those of a LazyConfig are names of variables.
    if file.suffix != ".py" and re.search(r"^[A-Z_]+:", file.read_text("utf-8"), re.MULTILINE):
        cfg = get_cfg()
        add_aiparsing_config(cfg)
        cfg.merge_from_file(str(file))
        return cfg
    return load_lazy_config(str(file))


def _build_yacs(
    cfg: CfgNode, device: str
) -> tuple[torch.nn.Module, ParsingDatasetMapper, PartLabels]:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = device
    mapper = ParsingDatasetMapper(cfg, is_train=False)
    try:
        part_labels = get_part_labels(cfg.DATASETS.TEST)
    except KeyError as error:
        raise ValueError(
            f"DATASETS.TEST: {error.args[0]} Any registered data set with the same parts will do."
        ) from error
    return build_model(cfg), mapper, part_labels


def _build_lazy(
    cfg: DictConfig, device: str
) -> tuple[torch.nn.Module, ParsingDatasetMapper, PartLabels]:
    for key in ("model", "dataloader.test.mapper", "dataloader.test.dataset.names"):
        if OmegaConf.select(cfg, key) is None:
            raise ValueError(f"the config has no {key}; give a config of a whole run")
    check_consistency(cfg, evaluation_only=True)
    model = instantiate(cfg.model).to(device)
    part_labels = get_part_labels(data_set_names(cfg, "test"))
    return model, instantiate(cfg.dataloader.test.mapper), part_labels
