"""What this project and its users need of the installed Detectron2, whichever one it is."""

from pathlib import Path

import detectron2
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.common import MapDataset
from detectron2.engine import create_ddp_model, hooks, launch
from detectron2.evaluation import COCOEvaluator
from detectron2.layers import ShapeSpec
from detectron2.layers.mask_ops import paste_mask_in_image_old
from detectron2.modeling import Backbone
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.structures import Boxes, BoxMode, Instances, polygons_to_bitmask
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.events import EventStorage
from detectron2.utils.visualizer import Visualizer


@pytest.fixture
def model_zoo():
    if (Path(detectron2.__file__).parents[1] / "setup.py").is_file():
        pytest.skip("a bare checkout has no model zoo: its installation puts the configs there")
    from detectron2 import model_zoo

    return model_zoo


def test_model_zoo_serves_both_kinds_of_config(model_zoo):
    yaml_config = model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.yaml")
    assert yaml_config.MODEL.META_ARCHITECTURE == "RetinaNet"
    lazy_config = model_zoo.get_config("common/models/fcos.py")
    assert lazy_config.model.num_classes == 80
    assert Path(model_zoo.get_config_file("common/train.py")).is_file()


def test_lazy_config_survives_saving_and_takes_overrides(model_zoo, tmp_path):
    config = model_zoo.get_config("COCO-Detection/fcos_R_50_FPN_1x.py")
    LazyConfig.apply_overrides(config, ["train.max_iter=3"])
    LazyConfig.save(config, str(tmp_path / "config.yaml"))
    assert LazyConfig.load(str(tmp_path / "config.yaml")).train.max_iter == 3


class OneLevelBackbone(Backbone):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 32, kernel_size=8, stride=8)

    def forward(self, x):
        return {"p3": self.conv(x)}

    def output_shape(self):
        return {"p3": ShapeSpec(channels=32, stride=8)}


@pytest.mark.parametrize("objects_per_image", [(0,), (0, 2), (1, 1)])
def test_group_norm_fcos_trains_on_images_with_and_without_objects(objects_per_image):
    torch.manual_seed(0)
    model = FCOS(
        backbone=OneLevelBackbone(),
        head=FCOSHead(
            input_shape=[ShapeSpec(channels=32, stride=8)],
            num_classes=1,
            conv_dims=[32],
            norm="GN",
        ),
        head_in_features=["p3"],
        num_classes=1,
        pixel_mean=[0.0, 0.0, 0.0],
        pixel_std=[255.0, 255.0, 255.0],
    )
    batch = []
    for count in objects_per_image:
        target = Instances((64, 64))
        target.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 40.0, 48.0]]).repeat(count, 1))
        target.gt_classes = torch.zeros(count, dtype=torch.int64)
        batch.append({"image": torch.full((3, 64, 64), 128.0), "instances": target})
    with EventStorage():
        losses = model(batch)
    assert set(losses) == {"loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr"}
    # The box and centre-ness losses are sums over the anchors of objects.
    assert (losses["loss_fcos_loc"] > 0) == (sum(objects_per_image) > 0)
    assert (losses["loss_fcos_ctr"] > 0) == (sum(objects_per_image) > 0)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.fixture
def square_dataset():
    """A registered data set of one 32 x 32 image with one 10 x 20 object."""
    name = "test_detectron2_features_square"
    annotation = {
        "bbox": [4.0, 6.0, 14.0, 26.0],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": 0,
        "iscrowd": 0,
    }
    record = {"file_name": "x", "image_id": 1, "height": 32, "width": 32}
    DatasetCatalog.register(name, lambda: [{**record, "annotations": [annotation]}])
    MetadataCatalog.get(name).thing_classes = ["object"]
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.mark.parametrize(
    ("predicted", "expected_ap"),
    # IoU 1 passes all ten thresholds; IoU 10 x 16 / (10 x 20) = 0.8 those up to 0.75, and the one
    # of 0.8 (equality counts): 7 of 10.
    [([4.0, 6.0, 14.0, 26.0], 100.0), ([4.0, 6.0, 14.0, 22.0], 70.0)],
)
def test_coco_evaluation_works_with_or_without_compiled_code(
    square_dataset, tmp_path, predicted, expected_ap
):
    evaluator = COCOEvaluator(square_dataset, tasks=("bbox",), output_dir=str(tmp_path))
    evaluator.reset()
    output = Instances((32, 32))
    output.pred_boxes = Boxes(torch.tensor([predicted]))
    output.scores = torch.tensor([0.9])
    output.pred_classes = torch.tensor([0])
    evaluator.process([{"image_id": 1}], [{"instances": output}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(expected_ap)


def test_polygons_become_boolean_masks():
    mask = polygons_to_bitmask([np.array([0.0, 0.0, 4.0, 0.0, 4.0, 2.0, 0.0, 2.0])], 4, 6)
    assert mask.dtype == bool
    assert mask.sum() == 8 and mask[:2, :4].all()


def test_masks_are_pasted():
    pasted = paste_mask_in_image_old(
        torch.ones(28, 28), torch.tensor([2.0, 1.0, 7.0, 5.0]), 8, 10, 0.5
    )
    assert pasted.shape == (8, 10)
    assert pasted[2:5, 3:7].all() and not pasted[:, 9].any()


def test_samples_that_the_mapper_rejects_are_replaced():
    dataset = MapDataset([10, 11], lambda x: x if x == 11 else None)
    assert dataset[0] == 11


def test_hook_saves_the_state_of_torch_schedulers():
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    optimizer.step()
    scheduler.step()
    assert hooks.LRScheduler(optimizer, scheduler).state_dict()["last_epoch"] == 1


def test_visualizer_draws_masks_boxes_and_labels():
    image = np.full((40, 60, 3), 128, dtype=np.uint8)
    visualizer = Visualizer(image, MetadataCatalog.get("test_detectron2_features_none"))
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 20:50] = True
    drawn = visualizer.overlay_instances(
        boxes=np.array([[20, 10, 50, 30]]), masks=[mask], labels=["object"]
    ).get_image()
    assert drawn.shape == image.shape
    assert (drawn[20, 35] != 128).any()  # inside the mask
    assert (drawn[2:6, 2:6] == 128).all()  # far from it


def test_environment_report_names_detectron2():
    assert "detectron2._C" in collect_env_info()


def average_over_two_processes():
    """Runs in each process that is launched below."""
    rank = comm.get_rank()
    assert comm.get_world_size() == 2
    assert comm.all_gather({"rank": rank, "data": [0] * (rank + 1)}) == [
        {"rank": 0, "data": [0]},
        {"rank": 1, "data": [0, 0]},
    ]
    model = create_ddp_model(torch.nn.Linear(1, 1), device_ids=None)
    model(torch.full((1, 1), float(rank))).sum().backward()
    assert model.module.weight.grad.item() == 0.5  # the mean of 0 and 1
    torch.distributed.barrier()  # nobody leaves while another may still be receiving
    torch.distributed.destroy_process_group()  # else the end may abort: threads still run


def test_two_processes_train_on_the_cpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # launch takes GPUs where there are any
    launch(average_over_two_processes, 2, dist_url="auto")
