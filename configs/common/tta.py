"""Test-time augmentation by data set (paper, Sec. IV-A): short sides x mirroring.

A leaf takes one of them as ``test_time_augmentation``. ``enabled`` makes ``train_net.py
--eval-only`` evaluate with it too; ``wrapper`` is complete but for the model.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling import DatasetMapperTTA

from aiparsing_d2.modeling import AIParsingWithTTA
from aiparsing_d2.structures.part_labels import get_part_labels


def _test_time_augmentation(min_sizes: list[int], nms_thresh: float = 0.5) -> dict:
    return dict(
        enabled=False,
        wrapper=L(AIParsingWithTTA)(
            mapper=L(DatasetMapperTTA)(
                min_sizes=min_sizes,
                # Of the long side; photos hardly reach it.
                max_size=4000,
                flip=True,
            ),
            part_labels=L(get_part_labels)(dataset_names="${dataloader.test.dataset.names}"),
            # Boxes with a score beyond the first are merged, by soft-NMS beyond the second IoU.
            score_thresh=0.05,
            nms_thresh=nms_thresh,
            max_people=100,
        ),
    )


cihp = _test_time_augmentation([500, 600, 700, 800, 850])
vip = _test_time_augmentation([500, 600, 700, 800, 850])
# Crowds: people who overlap more remain.
lv_mhp_v2 = _test_time_augmentation([500, 600, 700, 800, 850, 1000], nms_thresh=0.75)
# Around the 192 pixels that the demo's model was trained at.
demo = _test_time_augmentation([176, 192, 208])
# Around the 384 and 448 pixels that the models of photographs are used at.
photographs = _test_time_augmentation([352, 384, 416])
photographs_large = _test_time_augmentation([400, 448, 512])
