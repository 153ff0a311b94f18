"""Learning-rate schedules, as multipliers of the base rate."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler

# Training images (of VIP: frames). At 8 a batch, and rounded down, an epoch of them takes 3,535,
# 1,925 and 2,003 iterations.
CIHP_IMAGES = 28_280
LV_MHP_V2_IMAGES = 15_403
VIP_IMAGES = 16_024


def step_schedule(max_iter: int, drop_iters: tuple[int, ...], warmup_iters: int = 500):
    """Divides the rate by 10 at each of ``drop_iters``, after a constant warm-up at a third."""
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[0.1**i for i in range(len(drop_iters) + 1)],
            milestones=[*drop_iters, max_iter],
        ),
        warmup_factor=1.0 / 3,
        warmup_length=warmup_iters / max_iter,
        warmup_method="constant",
    )


def set_epochs(train, num_images: int, epochs: int, batch_size: int = 8):
    """Sets the run's length, a checkpoint after every epoch and an evaluation after every fifth."""
    iters_per_epoch = num_images // batch_size
    train.max_iter = epochs * iters_per_epoch
    train.checkpointer.period = iters_per_epoch
    train.eval_period = 5 * iters_per_epoch


def paper_schedule(max_iter: int):
    """The paper's drops, after 50 and 65 of 75 epochs, in a run of any length."""
    return step_schedule(
        max_iter, drop_iters=(round(max_iter * 50 / 75), round(max_iter * 65 / 75))
    )


def cosine_schedule(max_iter: int, warmup_iters: int):
    """Linear warm-up, then a half cosine down to 0."""
    return L(WarmupParamScheduler)(
        scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
        warmup_factor=0.01,
        warmup_length=warmup_iters / max_iter,
        warmup_method="linear",
    )
