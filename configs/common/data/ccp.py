"""CCP: street photographs of one person each, of about 550 x 830 pixels."""

from .cihp import dataloader

dataloader.train.dataset.names = "ccp_train"
dataloader.test.dataset.names = "ccp_val"
