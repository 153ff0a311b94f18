"""Drawn videos in VIP's layout.

Made by ``python -m aiparsing_d2.drawn_scenes --layout vip``.
"""

from .vip import dataloader

dataloader.train.dataset.names = "drawn_vip_train"
dataloader.test.dataset.names = "drawn_vip_val"
