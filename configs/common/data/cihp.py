"""CIHP: training with multi-scale and flip, testing at short side 800."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from omegaconf import OmegaConf

import aiparsing_d2.data.datasets  # registers the splits
from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper
from aiparsing_d2.evaluation import ParsingEvaluator
from aiparsing_d2.structures.part_labels import get_part_labels

dataloader = OmegaConf.create()

dataloader.train = L(build_detection_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names="cihp_train", filter_empty=False),
    mapper=L(ParsingDatasetMapper)(
        is_train=True,
        augmentations=[
            L(T.ResizeShortestEdge)(
                short_edge_length=(640, 800), sample_style="range", max_size=1333
            ),
            L(T.RandomFlip)(horizontal=True),
        ],
        image_format="BGR",
        part_labels=L(get_part_labels)(dataset_names="${...dataset.names}"),
    ),
    total_batch_size=8,
    num_workers=4,
)

dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="cihp_val", filter_empty=False),
    mapper=L(ParsingDatasetMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
        image_format="${...train.mapper.image_format}",
    ),
    num_workers=4,
)

dataloader.evaluator = L(ParsingEvaluator)(
    dataset_name="${dataloader.test.dataset.names}", output_dir="${train.output_dir}"
)
