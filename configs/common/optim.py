"""Optimisers. The model is set by train_net.py."""

import torch
from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

# Paper, "Implementation details"; biases learn twice as fast and, like norms, do not decay.
SGD = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(
        base_lr="${..lr}",
        bias_lr_factor=2.0,
        weight_decay_bias=0.0,
        weight_decay_norm=0.0,
    ),
    lr=0.005,
    momentum=0.9,
    weight_decay=1e-4,
)

AdamW = L(torch.optim.AdamW)(
    params=L(get_default_optimizer_params)(
        base_lr="${..lr}", weight_decay_bias=0.0, weight_decay_norm=0.0
    ),
    lr=1e-3,
    betas=(0.9, 0.999),
    weight_decay=0.05,
)
