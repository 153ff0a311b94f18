"""Drawn scenes in CIHP's layout, made by ``python -m aiparsing_d2.drawn_scenes``."""

from .cihp import dataloader

dataloader.train.dataset.names = "drawn_cihp_train"
dataloader.test.dataset.names = "drawn_cihp_val"
