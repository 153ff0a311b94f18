"""CCP's photographs and drawn scenes in CIHP's layout, four to one; tested on photographs.

The pattern for any mix of data sets that have the same parts.
"""

from detectron2.config import LazyCall as L
from detectron2.data.samplers import RepeatFactorTrainingSampler

from aiparsing_d2.data.repeat_factors import repeat_factors_from_weights

from .ccp import dataloader

# People of photographs are pasted into both.
dataloader.train.mapper.copy_paste.records.names = "ccp_train"
dataloader.train.dataset.names = ["ccp_train", "drawn_cihp_train"]
dataloader.train.sampler = L(RepeatFactorTrainingSampler)(
    repeat_factors=L(repeat_factors_from_weights)(names="${...dataset.names}", weights=[0.8, 0.2])
)
