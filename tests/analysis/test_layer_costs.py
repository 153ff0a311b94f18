from dataclasses import astuple
from pathlib import Path

import pytest
from detectron2.config import LazyConfig

from aiparsing_d2.analysis import layer_costs
from aiparsing_d2.cli import main
from aiparsing_d2.modeling.roi_heads import PGEC

ROOT = Path(__file__).parents[2]
YAML = str(ROOT / "configs/yaml/cihp/aiparsing_R_50_FPN_cihp_75ep.yaml")
_CLASSES = "MODEL.ROI_PARSING_HEAD.NUM_CLASSES"
DEMO = str(ROOT / "configs/demo/aiparsing_tiny_FPN_drawn_cihp.py")
PARSING_RCNN = str(ROOT / "configs/common/models/parsing_rcnn_fpn.py")


def build(config_file, overrides):
    return layer_costs.build_untrained(layer_costs.read_config(config_file, overrides))


# The sizes that the figures below are counted from.
SIZES = [
    "model.backbone.out_channels=64",
    "model.proposal_generator.head.num_convs=2",
    "model.roi_heads.parsing_pooler.output_size=16",
    "model.roi_heads.parsing_head.context.out_channels=96",
    "model.roi_heads.parsing_head.conv_dims=[96,96]",
    "model.roi_heads.parsing_head.edges_at_test=True",
    "model.roi_heads.parsing_head.score_head.in_channels=96",
    "model.roi_heads.parsing_head.score_head.conv_dim=16",
    "model.roi_heads.parsing_head.score_head.fc_dim=64",
]


@pytest.fixture(scope="module")
def demo_model():
    return build(DEMO, SIZES)


@pytest.fixture(scope="module")
def demo_costs(demo_model):
    """Of a 96x128 image with two people."""
    return {cost.name: cost for cost in layer_costs.analyze(demo_model, (96, 128), num_people=2)}


def test_the_stages_are_the_whole_model(demo_model, demo_costs):
    num_parameters = sum(p.numel() for p in demo_model.parameters())
    assert sum(cost.parameters for cost in demo_costs.values()) == num_parameters
    assert list(demo_costs) == [
        "backbone body",
        "FPN",
        "detection head",
        "context: PGEC",
        "non-local",
        "shared convolutions",
        "parsing predictor",
        "edge predictor",
        "score head",
        "resizing of part logits",
    ]


# A group normalisation counts 5 operations a value; biases and activations do not count.
GN = 5
# P3 to P7 of a 96x128 image.
LOCATIONS = 12 * 16 + 6 * 8 + 3 * 4 + 2 * 2 + 1
# Two RoIs of 16x16.
CELLS = 2 * 16 * 16


@pytest.mark.parametrize(
    "stage, parameters, multiply_adds, activations",
    [
        (
            "detection head",  # two towers of two, three outputs, five scales
            4 * (9 * 64**2 + 64 + 2 * 64) + (9 * 64 * 6 + 6) + 5,
            LOCATIONS * (4 * (9 * 64**2 + GN * 64) + 9 * 64 * 6),
            LOCATIONS * (4 * 64 + 6),
        ),
        (
            "non-local",  # keys and values of every other cell in both directions
            4 * (96**2 + 96) + 2 * 96,
            CELLS * (2 * 96**2 + GN * 96 + 2 * 64 * 96) + CELLS // 4 * 2 * 96**2,
            CELLS * (96 + 96 + 64 + 96) + CELLS // 4 * 2 * 96,
        ),
        (
            "shared convolutions",
            2 * (9 * 96**2 + 96) + 2 * 96,
            CELLS * (2 * 9 * 96**2 + GN * 96),
            CELLS * 2 * 96,
        ),
        (
            "parsing predictor",
            16 * 96 * 20 + 20,
            CELLS * 16 * 96 * 20,
            4 * CELLS * 20,
        ),
        (
            "edge predictor",
            4 * 96 * 2 + 2,
            CELLS * 4 * 96 * 2,
            4 * CELLS * 2,
        ),
        (
            "score head",
            (9 * 116 * 16 + 16) + (9 * 16 * 16 + 16) + (16 * 64 + 64) + (64 * 64 + 64) + 65,
            CELLS * 9 * 116 * 16 + CELLS // 4 * 9 * 16 * 16 + 2 * (16 * 64 + 64 * 64 + 64),
            CELLS * 16 + CELLS // 4 * 16 + 2 * (64 + 64 + 1),
        ),
    ],
)
def test_costs_by_hand(demo_costs, stage, parameters, multiply_adds, activations):
    cost = demo_costs[stage]
    assert cost.parameters == cost.trainable == parameters
    assert cost.multiply_adds == multiply_adds
    assert cost.activations == activations


def test_only_parsing_grows_with_the_people(demo_model, demo_costs):
    for cost in layer_costs.analyze(demo_model, (96, 128), num_people=6):
        before = demo_costs[cost.name]
        factor = 1 if cost.name in ("backbone body", "FPN", "detection head") else 3
        assert cost.multiply_adds == factor * before.multiply_adds
        assert cost.activations == factor * before.activations


@pytest.fixture(scope="module")
def parsing_rcnn_costs():
    """Of a 224x224 image, one small RoI and three proposals."""
    cfg = layer_costs.read_config(PARSING_RCNN, ["model.roi_heads.parsing_pooler.output_size=8"])
    return layer_costs.analyze(
        layer_costs.build_untrained(cfg), (224, 224), num_people=1, num_proposals=3
    )


def test_two_stage_model(parsing_rcnn_costs):
    costs = {cost.name: cost for cost in parsing_rcnn_costs}
    assert sum(cost.trainable for cost in costs.values()) == 54_285_097
    body = costs["backbone body"]
    assert body.parameters - body.trainable == 222_400  # stem and res2
    # He et al., "Deep Residual Learning", Table 1: 3.8 * 10 ** 9 multiply-adds.
    assert body.multiply_adds == pytest.approx(3.8e9, rel=0.03)
    locations = 56**2 + 28**2 + 14**2 + 7**2 + 4**2
    assert costs["detection head"].multiply_adds == locations * (9 * 256**2 + 256 * 3 * 5)
    per_proposal = 7 * 7 * 256 * 1024 + 1024 * 1024 + 1024 * (2 + 4)
    assert costs["box head"].multiply_adds == 3 * per_proposal
    assert "context: ASPP" in costs
    assert not {"edge predictor", "score head"} & set(costs)


def test_yacs_files_give_the_same(parsing_rcnn_costs):
    yaml = str(ROOT / "configs/yaml/cihp/parsing_rcnn_R_50_FPN_cihp_75ep.yaml")
    cfg = layer_costs.read_config(yaml, ["MODEL.ROI_PARSING_HEAD.POOLER_RESOLUTION", "8"])
    costs = layer_costs.analyze(
        layer_costs.build_untrained(cfg), (224, 224), num_people=1, num_proposals=3
    )
    assert list(map(astuple, costs)) == list(map(astuple, parsing_rcnn_costs))


@pytest.mark.parametrize("in_channels, out_channels, paper", [(64, 64, "-"), (256, 512, "1.2")])
def test_printed_beside_the_paper(tmp_path, capsys, in_channels, out_channels, paper):
    # As a run saves it.
    saved = tmp_path / "config.yaml"
    LazyConfig.save(LazyConfig.load(DEMO), str(saved))
    options = ["--config-file", str(saved), "--image-size", "64", "64", "--num-people", "1"]
    overrides = [
        f"model.backbone.out_channels={in_channels}",
        f"model.roi_heads.parsing_head.context.out_channels={out_channels}",
        "model.roi_heads.parsing_pooler.output_size=14",
    ]
    assert main(["analyze", *options, *overrides]) == 0
    printed = capsys.readouterr().out
    rows = {
        cells[0]: cells[1:]
        for line in printed.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) > 1
    }
    total, body = rows["total"], rows["backbone body"]
    assert float(total[0]) > float(body[0]) > 0 and float(total[2]) > float(body[2]) > 0
    assert rows["IX"] == [
        "trainable parameters (M)",
        total[1],
        "-",
    ]
    # Table V is about PGEC of the paper's width only.
    assert rows["V"][2] == paper


@pytest.mark.parametrize(
    "config_file, overrides, size",
    [
        ("configs/cihp/aiparsing_R_50_FPN_cihp_75ep.py", [], (800, 1200)),
        ("configs/cihp/aiparsing_R_50_FPN_cihp_authors.py", [], (800, 1200)),
        ("configs/common/models/aiparsing_fpn.py", [], (800, 1200)),
        ("configs/cihp/aiparsing_light_R_50_FPN_cihp_75ep.py", [], (600, 900)),
        (
            "configs/cihp/aiparsing_light_R_50_FPN_cihp_75ep.py",
            ["dataloader.test.mapper.augmentations.0.max_size=750"],
            (500, 750),
        ),
        ("configs/yaml/cihp/aiparsing_R_50_FPN_cihp_75ep.yaml", [], (800, 1200)),
        ("configs/yaml/cihp/aiparsing_light_R_50_FPN_cihp_75ep.yaml", [], (600, 900)),
    ],
)
def test_the_image_is_as_large_as_at_test(config_file, overrides, size):
    cfg = layer_costs.read_config(str(ROOT / config_file), overrides)
    assert layer_costs.image_size_at_test(cfg) == size


def test_the_image_size_can_be_given(capsys):
    options = ["--config-file", DEMO, "--num-people", "1"]
    for given, said in (([], "192 x 288"), (["--image-size", "64", "96"], "64 x 96")):
        assert main(["analyze", *options, *given]) == 0
        assert f"one image of {said} pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "stated"),
    [([], True), (["MODEL.RESNETS.DEPTH", "101"], False), ([_CLASSES, "59"], False)],
)
def test_published_parameters_stand_beside_their_own_models_only(overrides, stated):
    """Table IX is of ResNet-50 and 20 classes."""
    assert (
        layer_costs.is_of_table_ix(
            layer_costs.build_untrained(layer_costs.read_config(YAML, overrides))
        )
        == stated
    )


@pytest.mark.parametrize("roi_size, paper", [(14, 1.2), (32, 6.4), (48, 14.5)])
def test_pgec_agrees_with_table_v(roi_size, paper):
    pgec = PGEC(in_channels=256, roi_size=roi_size)
    multiply_adds = layer_costs.pgec_multiply_adds(pgec, 256, roi_size)
    # A 3x3 and four 1x1 convolutions of 256 channels, and a 3x3 one that merges five of them.
    assert multiply_adds == roi_size**2 * (9 * 256**2 + 4 * 256**2 + 9 * 5 * 256 * 512)
    assert round(multiply_adds / 2**30, 1) == paper
    assert float(layer_costs.PAPER_PGEC_MULTIPLY_ADDS[roi_size]) == paper


@pytest.mark.parametrize(
    "config_file, overrides, message",
    [
        ("missing.py", [], "there is no file missing.py, and no config 'missing.py' in"),
        ("missing.yaml", [], "there is no file missing.yaml, and no config 'missing.yaml' in"),
        (str(ROOT / "README.md"), [], "has to be a python or yaml file"),
        (str(ROOT / "configs/common/optim.py"), [], "optim.py: ValueError: it defines no model"),
        (
            DEMO,
            ["model.roi_heads.parsing_head.colour=1"],
            "no key model.roi_heads.parsing_head.colour",
        ),
        (
            DEMO,
            ["model.backbone.out_channels.x=1"],
            "model.backbone.out_channels is 64, which has no key 'x'",
        ),
        (DEMO, ["model.backbone.out_channels=${nowhere}"], "Interpolation key 'nowhere' not found"),
        (DEMO, ["model.backbone"], "'model.backbone' is no override: write key=value"),
        (YAML, ["MODEL.COLOUR", "1"], "Non-existent key: MODEL.COLOUR"),
        (YAML, ["MODEL.COLOUR"], "Override list has odd length"),
    ],
)
def test_tells_what_is_wrong_with_a_config(capfd, caplog, config_file, overrides, message):
    assert main(["analyze", "--config-file", config_file, *overrides]) == 1
    printed = capfd.readouterr()
    assert not printed.out and not caplog.messages
    (line,) = printed.err.splitlines()
    assert line.startswith(f"error: {config_file}: ") and message in line


def test_tells_what_cannot_be_analysed(tmp_path, capsys):
    no_detector = tmp_path / "identity.yaml"
    no_detector.write_text("model: {_target_: torch.nn.Identity}\n")
    assert main(["analyze", "--config-file", str(no_detector)]) == 1
    assert "its model has no FPN or no parsing branch" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["analyze", "--config-file", DEMO, "--num-people", "0"])
    with pytest.raises(SystemExit):
        main(["analyze", "--config-file", DEMO, "--image-size", "0", "64"])


def test_mistakes_in_the_tool_keep_their_traceback(monkeypatch):
    def broken(*_):
        raise TypeError("a bug")

    monkeypatch.setattr(layer_costs, "analyze", broken)
    with pytest.raises(TypeError, match="a bug"):
        main(["analyze", "--config-file", DEMO])
