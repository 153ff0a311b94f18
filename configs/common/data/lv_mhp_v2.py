"""LV-MHP-v2: training and testing as for CIHP."""

from .cihp import dataloader

dataloader.train.dataset.names = "lv_mhp_v2_train"
dataloader.test.dataset.names = "lv_mhp_v2_val"
