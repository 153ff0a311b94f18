"""Learning-rate schedules, as multipliers of the base rate."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler


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


def cosine_schedule(max_iter: int, warmup_iters: int):
    """Linear warm-up, then a half cosine down to 0."""
    return L(WarmupParamScheduler)(
        scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
        warmup_factor=0.01,
        warmup_length=warmup_iters / max_iter,
        warmup_method="linear",
    )
