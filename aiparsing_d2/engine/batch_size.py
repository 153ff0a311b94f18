"""Other batch sizes than a config was written for."""

from __future__ import annotations

import copy

from omegaconf import DictConfig

__all__ = ["scale_to_batch_size"]


def scale_to_batch_size(cfg: DictConfig, batch_size: int) -> DictConfig:
    """Scales a LazyConfig to another batch size, so that a run sees as many images as before.

    What Detectron2's ``DefaultTrainer.auto_scale_workers`` does for yacs configs, by the batch size
    instead of the number of workers: the rate grows in proportion to the batch (the linear scaling
    rule, which is one for SGD), the number of iterations and the periods of evaluation and
    checkpoints shrink in proportion. Drops and warm-up need no scaling, as ``lr_multiplier`` counts
    in fractions of the run.

    Args:
        cfg: with ``dataloader.train.total_batch_size``, ``optimizer.lr`` and ``train``'s
            ``max_iter``, ``eval_period`` and ``checkpointer.period``.
        batch_size: images of all GPUs together.

    Returns:
        A scaled copy; an equal one if the config has that batch size already.

    Raises:
        ValueError: the batch size is not a positive integer.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"the batch size must be a positive integer, got {batch_size!r}")
    cfg = copy.deepcopy(cfg)
    old_batch_size = cfg.dataloader.train.total_batch_size
    if batch_size == old_batch_size:
        return cfg

    def scale_iterations(iterations: int) -> int:
        return max(round(iterations * old_batch_size / batch_size), 1)

    cfg.dataloader.train.total_batch_size = batch_size
    cfg.optimizer.lr = cfg.optimizer.lr * batch_size / old_batch_size
    train = cfg.train
    train.max_iter = scale_iterations(train.max_iter)
    train.checkpointer.period = scale_iterations(train.checkpointer.period)
    if train.eval_period > 0:  # 0: only after the last iteration
        train.eval_period = scale_iterations(train.eval_period)
    return cfg
