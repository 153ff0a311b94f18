"""VIP: training and testing as for CIHP."""

from .cihp import dataloader

dataloader.train.dataset.names = "vip_train"
dataloader.test.dataset.names = "vip_val"
