"""Drawn scenes in LV-MHP-v2's layout.

Made by ``python -m aiparsing_d2.drawn_scenes --layout lv_mhp_v2``.
"""

from .lv_mhp_v2 import dataloader

dataloader.train.dataset.names = "drawn_lv_mhp_v2_train"
dataloader.test.dataset.names = "drawn_lv_mhp_v2_val"
