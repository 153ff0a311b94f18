"""Training and evaluating the model of a LazyConfig, on CPU or GPU."""

from __future__ import annotations

import argparse
import copy
import logging
import os
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.data import DatasetFromList, build_detection_train_loader
from detectron2.data.samplers import TrainingSampler
from detectron2.engine import HookBase, default_setup, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.modeling import GeneralizedRCNN
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from detectron2.utils.logger import setup_logger
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import aiparsing_d2.data.datasets  # noqa: F401  registers the splits for configs saved as YAML
from aiparsing_d2.data.reproducible_samples import (
    ContinuedBatches,
    NumberedRecords,
    ReproducibleMapper,
)
from aiparsing_d2.evaluation import ParsingEvaluator
from aiparsing_d2.modeling.inference_optimization import optimize_for_inference

from .batch_size import scale_to_batch_size
from .checkpointing import (
    BoundedCheckpoints,
    FittingCheckpointer,
    PersistentBestCheckpointer,
    check_init_checkpoint,
    check_output_dir,
    has_checkpoint,
    remove_unfinished,
)
from .config_error import ConfigError, building
from .config_file import saving_whole_configs
from .consistency import check_consistency, evaluator_nodes
from .data_set_registration import keep_registrations
from .ema import ExponentialMovingAverage
from .finite_steps import FiniteStepTrainer
from .gradient_clipping import clip_gradients
from .launch import check_batch_size, check_device, create_ddp_model, share_buffers
from .lazy_config import load_lazy_config
from .memory_allocation import keep_freed_memory
from .mixed_precision import (
    build_trainer,
    precision_of_run,
    settle_precision,
    tell_precision,
)
from .overrides import apply_overrides
from .resumption import ContinuedWriter, RecordedEvaluation, RestOfIteration, open_writers
from .run_settings import check_settings
from .seeded_iterations import SeededIterations, seed_of_run
from .step_statistics import StepStatistics
from .termination import SaveOnTermination

__all__ = [
    "TrainingRun",
    "build_train_loader",
    "check_folder",
    "do_test",
    "do_test_with_tta",
    "do_train",
    "main",
    "prepare_training",
    "read_config",
]

logger = logging.getLogger(__name__)


def do_test(cfg: DictConfig, model: nn.Module, suffix: str = "") -> OrderedDict | None:
    """Evaluate on ``cfg.dataloader.test``.

    Returns:
        The evaluator's results, with ``suffix`` appended to the name of each group.
    """
    if not evaluator_nodes(cfg):
        return None
    with building("dataloader.evaluator"):
        evaluator = instantiate(cfg.dataloader.evaluator)
    precision = cfg.train.get("eval_precision")
    if precision is not None:
        model = _optimized_copy(model, precision)
        for each in evaluator if isinstance(evaluator, (list, ListConfig)) else [evaluator]:
            if isinstance(each, ParsingEvaluator):
                each.model_precision = model.inference_precision
        logger.info("Evaluating a copy of the model in %s", model.inference_precision)
    with building("dataloader.test"):
        loader = instantiate(cfg.dataloader.test)
    results = inference_on_dataset(model, loader, evaluator)
    results = OrderedDict((group + suffix, values) for group, values in results.items())
    print_csv_format(results)
    return results


def _optimized_copy(model: nn.Module, precision: str) -> GeneralizedRCNN:
    if isinstance(model, DistributedDataParallel):
        model = model.module
    if not isinstance(model, GeneralizedRCNN):
        raise ConfigError(
            f"train.eval_precision={precision} is for a GeneralizedRCNN, but the model is a "
            f"{type(model).__name__}; set train.eval_precision=null"
        )
    try:
        return optimize_for_inference(model, precision)
    except ValueError as error:
        raise ConfigError(f"train.eval_precision={precision}: {error}") from error


def do_test_with_tta(cfg: DictConfig, model: nn.Module) -> OrderedDict | None:
    """Evaluate with ``cfg.test_time_augmentation.wrapper`` around the model.

    The views are made from the images at their original size. Each evaluator writes into the
    folder "tta" inside its output folder.

    Returns:
        As :func:`do_test`, the names ending with "_TTA".
    """
    cfg = copy.deepcopy(cfg)
    cfg.dataloader.test.mapper.augmentations = []
    for _, evaluator in evaluator_nodes(cfg):
        if evaluator.get("output_dir"):
            evaluator.output_dir = os.path.join(evaluator.output_dir, "tta")
    cfg.test_time_augmentation.wrapper.model = model
    logger.info("Evaluating with test-time augmentation")
    with building("test_time_augmentation.wrapper"):
        wrapper = instantiate(cfg.test_time_augmentation.wrapper)
    return do_test(cfg, wrapper, suffix="_TTA")


def build_train_loader(cfg: DictConfig) -> Iterable[list[dict[str, Any]]]:
    """Build the training loader; with a seed, one that a resumed run can go on with.

    Returns:
        ``cfg.dataloader.train``, inside of :class:`ContinuedBatches` if ``train.seed`` is not
        negative and the loader is Detectron2's with a mapper.
    """
    node = cfg.dataloader.train
    target = node.get("_target_")
    is_detectron2s = (locate(target) if isinstance(target, str) else target) is (
        build_detection_train_loader
    )
    if cfg.train.get("seed", -1) < 0 or not is_detectron2s or "mapper" not in node:
        return instantiate(node)
    mapper = ReproducibleMapper(instantiate(node.mapper), cfg.train.seed)
    records = DatasetFromList(instantiate(node.dataset), copy=False)
    sampler = instantiate(node.get("sampler"))
    if sampler is None:
        sampler = TrainingSampler(len(records))
    batch_size = node.total_batch_size // comm.get_world_size()
    # Without groups by shape the workers make whole batches.
    in_turn = 1 if node.get("aspect_ratio_grouping", True) else batch_size
    # A plain dict of the config's own nodes, which keep their place for "${...}".
    parts = {key: node[key] for key in node if key != "sampler"}
    dataset = NumberedRecords(records, sampler, in_turn)
    batches = instantiate({**parts, "dataset": dataset, "mapper": mapper})
    return ContinuedBatches(batches, mapper, batch_size)


@dataclass
class TrainingRun:
    """What :func:`prepare_training` has made of a config.

    Attributes:
        trainer: with all hooks.
        evaluated_model: what is evaluated: the model in training, or its average.
        checkpointer: of both.
        start_iter: the first iteration to come.
    """

    trainer: FiniteStepTrainer
    evaluated_model: nn.Module
    checkpointer: FittingCheckpointer
    start_iter: int


def prepare_training(args: argparse.Namespace, cfg: DictConfig) -> TrainingRun:
    """Build all that a training needs, and load what it starts from or goes on with.

    Args:
        args: with ``resume`` (bool).
        cfg: a config with the following attributes:
            model: instantiates to a module
            dataloader.{train,test}: instantiate to data loaders
            dataloader.evaluator: instantiates to an evaluator of the test set; without one, which
                then may be missing too, nothing is evaluated
            optimizer: instantiates to an optimizer
            lr_multiplier: instantiates to a fvcore scheduler
            train: settings of configs/common/train.py, including
                output_dir (str), init_checkpoint (str), max_iter (int), device (str)
                amp (dict): enabled and precision, see precision_of_run; ddp (dict)
                ema (dict): enabled, and decay of ExponentialMovingAverage; optional
                checkpointer (dict): arguments of PeriodicCheckpointer
                best_checkpointer (dict): val_metric and mode of BestCheckpointer; optional
                nonfinite (str): see FiniteStepTrainer; optional
                clip_gradients (dict): max_norm and norm_type of all gradients; optional
                allow_unfitting_weights (bool): see FittingCheckpointer; optional
                eval_period, log_period (int): in iterations
                writers (list): instantiate to Detectron2's EventWriters; optional
                eval_precision (str): of the evaluated model; optional
                channels_last (bool): memory layout of the weights; optional
                seed (int): of all random numbers; negative: none, for main draws one; optional
                scale_to_batch_size (int): applied by read_config before this; optional
    """
    with building("model"):
        model = instantiate(cfg.model)
    logger.info("Model:\n%s", model)
    model.to(cfg.train.device)
    channels_last = cfg.train.get("channels_last")
    if channels_last is None:
        channels_last = torch.device(cfg.train.device).type == "cpu"
    if channels_last:
        model.to(memory_format=torch.channels_last)

    with building("optimizer"):
        cfg.optimizer.params.model = model
        optimizer = instantiate(cfg.optimizer)
    for options in (optimizer.defaults, *optimizer.param_groups):
        for name, value in options.items():
            if isinstance(value, ListConfig):  # which a checkpoint must not hold
                options[name] = tuple(value)
    clipping = cfg.train.get("clip_gradients") or {}
    if clipping.get("max_norm") is not None:
        clip_gradients(optimizer, **clipping)
    with building("dataloader.train"):
        train_loader = build_train_loader(cfg)
    if evaluator_nodes(cfg):
        # A test set that cannot be listed is told now, not after the training.
        with building("dataloader.test"):
            instantiate(cfg.dataloader.test)
    with building("lr_multiplier"):
        lr_multiplier = instantiate(cfg.lr_multiplier)

    model = create_ddp_model(model, **cfg.train.ddp)
    # Configs saved by earlier versions lack the newer keys.
    ema = cfg.train.get("ema", {})
    output_dir = cfg.train.output_dir if args.resume else None
    precision = precision_of_run(cfg.train.amp, cfg.train.device, output_dir)
    tell_precision(precision, cfg.train.device)
    nonfinite = cfg.train.get("nonfinite", "stop")
    trainer = build_trainer(
        model, train_loader, optimizer, precision, nonfinite, cfg.train.output_dir
    )
    average = ExponentialMovingAverage(model, ema.decay) if ema.get("enabled") else None
    evaluated_model = average.averaged_model if average else model
    checkpointer = FittingCheckpointer(
        evaluated_model,
        cfg.train.output_dir,
        allow_unfitting=cfg.train.get("allow_unfitting_weights", False),
        trainer=trainer,
    )

    loader = cfg.dataloader.train
    pastes_people = bool((loader.get("mapper") or {}).get("copy_paste"))
    if isinstance(train_loader, ContinuedBatches):
        checkpointer.add_checkpointable("train_loader", train_loader)

    rest = _hooks_after_checkpoints(cfg, checkpointer, evaluated_model)
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            StepStatistics(loader.get("num_workers"), pastes_people)
            if comm.is_main_process()
            else None,
            hooks.LRScheduler(scheduler=lr_multiplier),
            average,
            BoundedCheckpoints(checkpointer, **cfg.train.checkpointer)
            if comm.is_main_process()
            else None,
            SaveOnTermination(checkpointer),
            *rest,
            SeededIterations(cfg.train.seed) if cfg.train.get("seed", -1) >= 0 else None,
            RestOfIteration(rest),
        ]
    )

    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=args.resume)
    start_iter = 0
    if args.resume and checkpointer.has_checkpoint():
        # The checkpoint holds the iteration that was just finished.
        start_iter = trainer.iter + 1
    if isinstance(train_loader, ContinuedBatches) and not train_loader.state_dict()["samples"]:
        # Checkpoints of earlier versions do not tell.
        train_loader.skip(start_iter * cfg.dataloader.train.total_batch_size)
    if args.resume and comm.is_main_process():
        remove_unfinished(cfg.train.output_dir)
    return TrainingRun(trainer, evaluated_model, checkpointer, start_iter)


def do_train(args: argparse.Namespace, cfg: DictConfig) -> None:
    """Train a model.

    Args:
        args, cfg: see :func:`prepare_training`.
    """
    run = prepare_training(args, cfg)
    if run.start_iter >= cfg.train.max_iter:
        logger.info(
            "The run in %s has finished its %d iterations; evaluating it",
            cfg.train.output_dir,
            cfg.train.max_iter,
        )
        run.checkpointer.complete()
    run.trainer.train(run.start_iter, max(run.start_iter, cfg.train.max_iter))


def _hooks_after_checkpoints(
    cfg: DictConfig, checkpointer: FittingCheckpointer, model: nn.Module
) -> list[HookBase]:
    """Return what ends an iteration when its checkpoint has been written: see RestOfIteration."""

    def evaluate() -> Any:
        share_buffers(model)
        return do_test(cfg, model)

    def open_all(first: int) -> list[EventWriter]:
        with building("train.writers"):
            own = [instantiate(writer) for writer in train.get("writers") or ()]
        return [*open_writers(train.output_dir, train.max_iter, first), *own]

    train = cfg.train
    evaluation = RecordedEvaluation(train.eval_period, evaluate, train.output_dir)
    writer = ContinuedWriter(open_all, train.output_dir, train.log_period)
    settings = train.get("best_checkpointer")
    if not (settings and evaluator_nodes(cfg) and comm.is_main_process()):
        return [evaluation, writer]
    best = PersistentBestCheckpointer(train.eval_period, checkpointer, **settings)
    return [evaluation, best, writer]


def read_config(args: argparse.Namespace) -> DictConfig:
    """Read the config of a run, with its overrides, and check that its parts fit together.

    Args:
        args: of the command line: ``config_file``, ``opts`` and ``eval_only``.

    Raises:
        ConfigError: they do not.
    """
    cfg = load_lazy_config(args.config_file)
    cfg = apply_overrides(cfg, args.opts)
    check_settings(cfg, evaluation_only=args.eval_only)
    if cfg.train.get("scale_to_batch_size"):
        with building("train.scale_to_batch_size"):
            cfg = scale_to_batch_size(cfg, cfg.train.scale_to_batch_size)
    if not args.eval_only and cfg.dataloader.train.get("total_batch_size") is not None:
        check_batch_size(cfg.dataloader.train.total_batch_size)
    check_consistency(cfg, evaluation_only=args.eval_only)
    if cfg.dataloader.get("test") is None and "test_time_augmentation" in cfg:
        cfg.test_time_augmentation = None  # it is of the test set, and refers to it
    keep_registrations(cfg)
    return cfg


def check_folder(cfg: DictConfig, resume: bool = False) -> None:
    """Refuse an output folder in which a run would overwrite another; see check_output_dir."""
    best = cfg.train.get("best_checkpointer") or {}
    check_output_dir(cfg.train.output_dir, resume, best.get("file_prefix", "model_best"))


def main(args: argparse.Namespace) -> None:
    """Train or evaluate, in each process of a run.

    Args:
        args: of the command line: ``config_file``, ``opts``, ``resume`` and ``eval_only``.

    Raises:
        ConfigError: the settings, or the weights, do not fit.
        OSError: a file is missing, or there already.
    """
    cfg = read_config(args)
    if args.eval_only and not cfg.train.init_checkpoint:
        raise ConfigError(
            "weights to evaluate are needed: give train.init_checkpoint=/path/to/model.pth"
        )
    if args.eval_only:
        # The run's own config and logs stay as they are.
        cfg.train.output_dir = os.path.join(cfg.train.output_dir, "eval")
    elif os.path.exists(cfg.train.output_dir) and not os.path.isdir(cfg.train.output_dir):
        raise ConfigError(f"train.output_dir={cfg.train.output_dir} is a file, not a folder")
    else:
        check_folder(cfg, args.resume)
    check_device(cfg.train.device)
    is_resumed = args.resume and has_checkpoint(cfg.train.output_dir)
    # The other processes get from the main one what they cannot read.
    if comm.is_main_process() and not is_resumed:
        check_init_checkpoint(cfg.train.init_checkpoint)
    if not args.eval_only and cfg.train.get("seed", -1) < 0:
        cfg.train.seed = seed_of_run(cfg.train.output_dir if is_resumed else None)
    if not args.eval_only:
        begun_in = cfg.train.output_dir if is_resumed else None
        settle_precision(cfg.train.amp, cfg.train.device, begun_in)
    with saving_whole_configs():
        default_setup(cfg, args)
    setup_logger(cfg.train.output_dir, comm.get_rank(), name="aiparsing_d2")
    if torch.device(cfg.train.device).type == "cpu":
        keep_freed_memory()

    if args.eval_only:
        use_tta = (cfg.get("test_time_augmentation") or {}).get("enabled")
        if use_tta and "wrapper" not in cfg.test_time_augmentation:
            raise ConfigError(
                f"{args.config_file} has no test_time_augmentation to enable; import one of "
                "configs/common/tta.py there"
            )
        if use_tta and cfg.train.get("eval_precision") is not None:
            raise ConfigError(
                "test-time augmentation evaluates the model as it is trained; set "
                "train.eval_precision=null"
            )
        with building("model"):
            model = instantiate(cfg.model)
        model.to(cfg.train.device)
        model = create_ddp_model(model)
        allow_unfitting = cfg.train.get("allow_unfitting_weights", False)
        FittingCheckpointer(model, allow_unfitting=allow_unfitting).load(cfg.train.init_checkpoint)
        do_test(cfg, model)
        if use_tta:
            do_test_with_tta(cfg, model)
    else:
        if (cfg.get("test_time_augmentation") or {}).get("enabled"):
            logger.warning("test_time_augmentation.enabled changes nothing without --eval-only")
        do_train(args, cfg)
