"""Drawn videos in VIP's layout, made by ``python -m aiparsing_d2.data.drawn_scenes``."""

from .vip import dataloader

dataloader.train.dataset.names = "drawn_vip_train"
dataloader.test.dataset.names = "drawn_vip_val"
