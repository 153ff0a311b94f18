"""CCP: street photographs of one whole person each, of about 550 x 830 pixels.

Training pastes people of other photographs into each, and cuts pictures out of the result: several
people, of all sizes, cut at every side. Without that, a model finds one whole person in the middle
and nobody else.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from aiparsing_d2.data.copy_paste import CopyPaste, LazyRecords

from .cihp import dataloader

dataloader.train.dataset.names = "ccp_train"
dataloader.test.dataset.names = "ccp_val"

_mapper = dataloader.train.mapper
_mapper.copy_paste = L(CopyPaste)(
    records=L(LazyRecords)(names="${....dataset.names}"),
    part_labels="${..part_labels}",
    prob=0.6,
    num_people=(1, 4),
    height_range=(1 / 6, 1.3),
)
# Half of the time a part of the picture, of down to a quarter of each side: half bodies, portraits,
# people cut at any edge. Whole pictures come at about the size that they have at test.
_mapper.augmentations = [
    L(T.RandomApply)(
        tfm_or_aug=L(T.RandomCrop)(crop_type="relative_range", crop_size=(0.25, 0.25)), prob=0.5
    ),
    L(T.ResizeScale)(min_scale=0.6, max_scale=1.15, target_height=512, target_width=384),
    L(T.FixedSizeCrop)(crop_size=(512, 384), pad=False),
    L(T.RandomFlip)(horizontal=True),
    L(T.RandomBrightness)(intensity_min=0.7, intensity_max=1.3),
    L(T.RandomContrast)(intensity_min=0.7, intensity_max=1.3),
    L(T.RandomSaturation)(intensity_min=0.6, intensity_max=1.4),
    # Pictures without colour.
    L(T.RandomApply)(
        tfm_or_aug=L(T.RandomSaturation)(intensity_min=0.0, intensity_max=0.0), prob=0.1
    ),
]
_mapper.recompute_boxes = True
