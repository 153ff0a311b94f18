import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import nn

from aiparsing_d2.checkpoint import (
    ConversionError,
    WeightFile,
    convert_torchvision,
    write_weights,
)

STAGES = ("res2", "res3", "res4", "res5")


@pytest.fixture
def theirs():
    """A thin ResNeXt with statistics unlike those of an untrained one."""
    torch.manual_seed(0)
    # Stages of 1, 1, 2 and 1 blocks; 4 groups of 2 channels in the first.
    network = torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [1, 1, 2, 1], groups=4, width_per_group=2
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def our_body(num_blocks=(1, 1, 2, 1), **kwargs):
    return L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=[
            L(ResNet.make_stage)(
                block_class=BottleneckBlock,
                num_blocks=blocks,
                stride_per_block=[1 if i == 0 else 2] + [1] * (blocks - 1),
                in_channels=64 if i == 0 else 128 * 2**i,
                bottleneck_channels=8 * 2**i,
                out_channels=256 * 2**i,
                num_groups=4,
                stride_in_1x1=False,
                norm="FrozenBN",
            )
            for i, blocks in enumerate(num_blocks)
        ],
        out_features=list(STAGES),
        **kwargs,
    )


class Detector(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.backbone = nn.ModuleDict({"bottom_up": body})
        self.head = nn.Linear(2, 2)


@torch.no_grad()
def test_features_are_torchvisions(theirs, tmp_path):
    model = Detector(instantiate(our_body())).eval()
    file = WeightFile("resnext.pth", theirs.state_dict())
    conversion = convert_torchvision(file, model)
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in theirs.modules())
    assert set(conversion.dropped) >= {"fc.weight", "fc.bias"}
    assert len(conversion.dropped) == norms + 2
    assert len(conversion.sources) + len(conversion.dropped) == len(theirs.state_dict())

    write_weights(tmp_path / "ours.pth", conversion.weights)
    DetectionCheckpointer(model).load(str(tmp_path / "ours.pth"))
    x = torch.randn(1, 3, 65, 90)
    features = model.backbone["bottom_up"](x)
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    for name, stage in zip(STAGES, (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4)):
        x = stage(x)
        torch.testing.assert_close(features[name], x, rtol=1e-4, atol=1e-4)


def test_another_depth_is_an_error(theirs):
    file = WeightFile("resnext.pth", theirs.state_dict())
    with pytest.raises(ConversionError, match=r"layer3\.1\.conv1\.weight: the model of the config"):
        convert_torchvision(file, Detector(instantiate(our_body((1, 1, 1, 1)))))
    with pytest.raises(ConversionError, match=r"bottom_up\.res3\.1\.conv1\.weight: shape"):
        convert_torchvision(file, Detector(instantiate(our_body((1, 2, 2, 1)))))


def test_the_backbone_may_be_the_whole_model(theirs):
    conversion = convert_torchvision(
        WeightFile("resnext.pth", theirs.state_dict()), instantiate(our_body())
    )
    assert "stem.conv1.weight" in conversion.weights


def test_needs_one_resnet(theirs):
    with pytest.raises(ConversionError, match="model of the config has 0"):
        convert_torchvision(WeightFile("resnext.pth", theirs.state_dict()), nn.Linear(2, 2))
