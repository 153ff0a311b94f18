"""The predictor against Detectron2's mapper and model called by hand, and what it may be given."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.data.detection_utils import read_image
from detectron2.data.transforms import AugInput
from detectron2.modeling import build_model
from PIL import Image
from tiny_predictor import CONFIG, random_picture, tiny_config

from aiparsing_d2 import model_zoo
from aiparsing_d2.checkpoint import ParsingCheckpointer
from aiparsing_d2.config import add_aiparsing_config
from aiparsing_d2.drawn_scenes import draw_scene
from aiparsing_d2.engine import ConfigError
from aiparsing_d2.inference import ParsedImage, ParsingPredictor
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS


def assert_same(actual: ParsedImage, expected: ParsedImage) -> None:
    """The same but for rounding, by which a pixel may change between parts that are level."""
    a, e = actual.instances.get_fields(), expected.instances.get_fields()
    assert actual.image_size == expected.image_size and len(actual) == len(expected) > 0
    for name in ("scores", "box_scores", "pred_mious"):
        torch.testing.assert_close(a[name], e[name], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(a["pred_boxes"].tensor, e["pred_boxes"].tensor, atol=0.01, rtol=0)
    torch.testing.assert_close(a["pred_part_scores"], e["pred_part_scores"], atol=0.01, rtol=0)
    different = a["pred_part_maps"].to_full() != e["pred_part_maps"].to_full()
    assert different.float().mean() < 1e-4


MISSPELT_ARGUMENT = """
from aiparsing_d2.model_zoo import get_config

cfg = get_config("demo/aiparsing_tiny_FPN_drawn_cihp")
model, dataloader, train = cfg.model, cfg.dataloader, cfg.train
model.roi_heads.parsing_hed = 3
"""


UNKNOWN_MODEL = """
model: {_target_: nowhere.Model}
dataloader: {test: {mapper: {_target_: nowhere.Mapper}, dataset: {names: cihp_val}}}
"""


@pytest.fixture
def picture_file(tmp_path):
    path = tmp_path / "a picture.png"
    Image.fromarray(random_picture(150, 210)).save(path)
    return path


def test_as_mapper_and_model_called_by_hand(predictor, tiny_weights, picture_file):
    cfg = tiny_config()
    model = instantiate(cfg.model)
    ParsingCheckpointer(model).load(str(tiny_weights))
    record = {"file_name": str(picture_file), "height": 150, "width": 210}
    with torch.no_grad():
        (output,) = model.eval()([instantiate(cfg.dataloader.test.mapper)(record)])
    expected = output["instances"]

    parsed = predictor(picture_file)
    assert len(parsed) == len(expected) == 6 and not predictor.model.training
    order = expected.scores.argsort(descending=True, stable=True)
    assert_same(parsed, ParsedImage(expected[order], CIHP_PART_LABELS))
    assert parsed.part_labels == predictor.part_labels == CIHP_PART_LABELS
    np.testing.assert_array_equal(parsed.image, random_picture(150, 210))


def test_threshold(predictor, picture_file, monkeypatch):
    everybody = predictor(picture_file)
    scores = everybody.instances.scores.numpy()
    monkeypatch.setattr(predictor, "score_threshold", float(scores[2]))
    kept = predictor(picture_file)
    assert_same(kept, ParsedImage(everybody.instances[:3], CIHP_PART_LABELS))
    monkeypatch.setattr(predictor, "score_threshold", 1.0)
    nobody = predictor(picture_file)
    assert len(nobody) == 0 and nobody.people == [] and nobody.image_size == (150, 210)


def test_who_cannot_reach_the_threshold_is_not_parsed(predictor, picture_file, monkeypatch):
    """The bound is the person score of a perfect mIoU."""
    box_scores = predictor(picture_file).instances.box_scores.sort().values
    given = []
    parse = predictor.model.roi_heads.forward_with_given_boxes

    def note(features, detections):
        given.extend(detections)
        results = parse(features, detections)
        for instances in results:
            instances.scores = instances.box_scores.sqrt()
        return results

    monkeypatch.setattr(predictor.model.roi_heads, "forward_with_given_boxes", note)
    monkeypatch.setattr(predictor, "score_threshold", float(box_scores[2:4].mean().sqrt()))
    assert len(predictor(picture_file)) == len(given[0]) == 3
    monkeypatch.setattr(predictor.model.roi_heads.parsing_head, "clamp_mious", False)
    assert len(predictor(picture_file)) == 3 and len(given[1]) == 6


def test_every_kind_of_picture_gives_the_same(predictor, picture_file):
    rgb = random_picture(150, 210)
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    expected = predictor(picture_file)
    kinds = [str(picture_file), picture_file.read_bytes(), Image.fromarray(rgb), rgb[..., ::-1]]
    for parsed in predictor(kinds):
        assert_same(parsed, expected)
    for picture in (rgb, tensor, tensor.float() / 255, rgb.astype(np.uint16) * 257):
        assert_same(predictor(picture, channel_order="RGB"), expected)
    assert_same(predictor(tensor.flip(0)), expected)


class Inputs:
    """Notes what the model is given."""

    def __init__(self, predictor, monkeypatch):
        self.images = []
        self.batches = []
        self._preprocess = predictor.model.preprocess_image
        monkeypatch.setattr(predictor.model, "preprocess_image", self)

    def __call__(self, inputs):
        self.batches.append(len(inputs))
        self.images += [record["image"] for record in inputs]
        return self._preprocess(inputs)


def test_a_result_does_not_depend_on_its_neighbours(predictor, monkeypatch):
    pictures = [
        random_picture(150, 210),
        np.zeros((300, 300, 3), dtype=np.uint8),
        random_picture(100, 90, 1),
        np.zeros((640, 400, 3), dtype=np.uint8),
        random_picture(150, 210, 2),
        random_picture(151, 210, 3),  # another size, with the same padding
        random_picture(150, 210, 4),
    ]
    alone = [predictor(picture) for picture in pictures]
    inputs = Inputs(predictor, monkeypatch)
    together = predictor(pictures)
    assert inputs.batches == [1, 1, 1, 1, 3]
    for actual, expected in zip(together, alone, strict=True):
        assert_same(actual, expected)


def test_drawn_pictures_beside_black_ones(predictor, monkeypatch):
    """Alone and in batches: the same people, scores within 1e-4."""
    sizes = [(120, 90), (90, 120), (110, 110)]
    rngs = [np.random.default_rng([1, n]) for n in range(24)]
    pictures = [draw_scene(rng, *sizes[n // 8]).image for n, rng in enumerate(rngs)]
    # The last share the batch.
    black = [np.zeros((*s, 3), np.uint8) for s in [(256, 256), (384, 384), (500, 640), *sizes]]
    alone = [predictor(picture) for picture in pictures]
    mixed = [p for n, picture in enumerate(pictures) for p in (picture, black[n % len(black)])]
    inputs = Inputs(predictor, monkeypatch)
    together = list(predictor.iterate(mixed, batch_size=4))[::2]
    assert max(inputs.batches) > 1
    for actual, expected in zip(together, alone, strict=True):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected):
            assert abs(a.score - e.score) < 1e-4
            np.testing.assert_allclose(a.box, e.box, atol=0.01)
            assert (a.part_map() != e.part_map()).mean() < 1e-4


def test_results_come_while_pictures_are_read(predictor, monkeypatch):
    inputs = Inputs(predictor, monkeypatch)
    read = []

    def pictures():
        for seed in range(5):
            read.append(seed)
            yield random_picture(60, 60, seed)

    results = predictor.iterate(pictures(), batch_size=2)
    assert next(results).image_size == (60, 60) and read == [0, 1]
    assert len(list(results)) == 4 and inputs.batches == [2, 2, 1]
    assert predictor([]) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1), (3, 2)])
def test_tiny_pictures(predictor, size):
    parsed = predictor(np.full((*size, 3), 200, dtype=np.uint8))
    assert parsed.image_size == size
    assert parsed.semantic_map().shape == size and parsed.plot().shape == (*size, 3)


def test_a_picture_that_shrinks_to_a_line(predictor):
    with pytest.raises(ValueError, match=r"1 x 9000 \(height x width\) cannot be resized"):
        predictor(np.zeros((1, 9000, 3), dtype=np.uint8))


def test_config_files_names_and_objects(
    tmp_path, tiny_weights, picture_file, predictor, monkeypatch
):
    """They give one model, and the smaller test size of the file counts."""
    saved = tmp_path / "saved.yaml"
    LazyConfig.save(tiny_config(), str(saved))
    expected = predictor(picture_file)
    options = {"device": "cpu", "score_threshold": 0.0}
    assert_same(ParsingPredictor(saved, tiny_weights, **options)(picture_file), expected)

    python = tmp_path / "mine.py"
    python.write_text(
        "from aiparsing_d2 import model_zoo\n"
        f"cfg = model_zoo.get_config({CONFIG!r})\n"
        "model, dataloader, train = cfg.model, cfg.dataloader, cfg.train\n"
        "dataloader.test.mapper.augmentations[0].short_edge_length = 96\n"
    )
    of_file = ParsingPredictor(str(python), tiny_weights, device="cpu")
    inputs = Inputs(of_file, monkeypatch)
    of_file(picture_file)
    assert inputs.images[0].shape == (3, 96, 134)  # 96 / 150 * 210 = 134.4

    by_name = ParsingPredictor(CONFIG, tiny_weights, device="cpu")
    assert by_name.part_labels == CIHP_PART_LABELS


def test_yacs(tmp_path, picture_file, monkeypatch):
    name = "yaml/cihp/aiparsing_R_50_FPN_cihp_75ep.yaml"
    small = {
        "_BASE_": model_zoo.get_config_file(name),
        "MODEL": {
            "RESNETS": {"STEM_OUT_CHANNELS": 8, "RES2_OUT_CHANNELS": 16, "WIDTH_PER_GROUP": 4},
            "FPN": {"OUT_CHANNELS": 64},
            "FCOS_PROPOSALS": {"NUM_CONVS": 1, "SCORE_THRESH": 0.0, "POST_NMS_TOPK_TEST": 3},
            "ROI_PARSING_HEAD": {"POOLER_RESOLUTION": 8, "CONV_DIM": 32, "NUM_CONV": 1},
        },
        "INPUT": {"MIN_SIZE_TEST": 80, "FORMAT": "RGB"},
    }
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(small))
    cfg = get_cfg()
    add_aiparsing_config(cfg)
    cfg.merge_from_file(str(file))
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    model = build_model(cfg)
    weights = tmp_path / "small.pth"
    torch.save({"model": model.state_dict()}, weights)

    from_file = ParsingPredictor(file, weights, device="cpu", score_threshold=0.0)
    from_object = ParsingPredictor(cfg, weights, device="cpu", score_threshold=0.0)
    inputs = Inputs(from_file, monkeypatch)
    parsed = from_file(picture_file)
    assert_same(from_object(picture_file), parsed)
    assert inputs.images[0].shape == (3, 80, 112)  # 80 / 150 * 210
    with torch.no_grad():
        (output,) = model.eval()([{"image": inputs.images[0], "height": 150, "width": 210}])
    order = output["instances"].scores.argsort(descending=True, stable=True)
    assert_same(parsed, ParsedImage(output["instances"][order], CIHP_PART_LABELS))
    from_file(np.full((80, 80, 3), (255, 0, 0), np.uint8), channel_order="RGB")
    assert inputs.images[-1][:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L", "YUV-BT.601"])
def test_inputs_are_those_of_detectron2s_mapper(predictor, picture_file, image_format, monkeypatch):
    monkeypatch.setattr(predictor._mapper, "image_format", image_format)
    image = read_image(picture_file, format=image_format)
    resized = AugInput(image)
    predictor._mapper.augmentations(resized)
    prepared = predictor.prepare(picture_file)
    np.testing.assert_array_equal(prepared.tensor, resized.image.transpose(2, 0, 1))
    np.testing.assert_array_equal(prepared.image, random_picture(150, 210))


def test_channels_in_the_configs_order(predictor):
    seen = predictor.prepare(
        np.full((80, 80, 3), (255, 0, 0), np.uint8), channel_order="RGB"
    ).tensor
    assert predictor._mapper.image_format == "BGR" and seen[:, 0, 0].tolist() == [0, 0, 255]


def test_weights_of_the_name(tiny_weights, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        model_zoo, "get_checkpoint", lambda name: asked.append(name) or str(tiny_weights)
    )
    ParsingPredictor(CONFIG, device="cpu")
    assert asked == [CONFIG]


@pytest.mark.fault("weights that are to be scored do not fit the model")
def test_weights_that_are_missing_or_do_not_fit(tiny_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no trained weights.*weights=..."):
        ParsingPredictor("cihp/aiparsing_R_50_FPN_cihp_75ep")
    with pytest.raises(ValueError, match="give weights="):
        ParsingPredictor(tiny_config())
    with pytest.raises(ValueError, match="give weights="):
        ParsingPredictor(tiny_config(), "")
    with pytest.raises(FileNotFoundError, match=r"there is no file elsewhere\.pth"):
        ParsingPredictor(tiny_config(), "elsewhere.pth")
    with pytest.raises(ValueError, match="did you mean 'demo/aiparsing_tiny"):
        ParsingPredictor("demo/aiparsing_tiny_FPN", tiny_weights)
    tensors = torch.load(tiny_weights)["model"]
    del tensors["proposal_generator.head.box_pred.bias"]
    torch.save({"model": tensors}, "less.pth")
    with pytest.raises(ConfigError, match=r"not in the file: proposal_generator\.head\.box_pred"):
        ParsingPredictor(tiny_config(), "less.pth", device="cpu")


def test_a_config_without_a_test_set(tiny_weights):
    config = tiny_config()
    del config.dataloader.test.mapper
    with pytest.raises(ValueError, match=r"no dataloader\.test\.mapper"):
        ParsingPredictor(config, tiny_weights)


def test_a_photograph_on_its_side(predictor):
    """Everything is in pixels of the turned picture."""
    rgb = random_picture(150, 210)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter clockwise
    file = io.BytesIO()
    Image.fromarray(np.rot90(rgb).copy()).save(file, "PNG", exif=exif)
    expected = predictor(rgb, channel_order="RGB")
    assert_same(predictor(file.getvalue()), expected)
    assert_same(predictor(Image.open(file)), expected)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "MODEL:\n  METAARCH: AIParsing\n", "METAARCH"),
        ("b.yaml", 'DATASETS:\n  TEST: ("my_val",)\n', "DATASETS.TEST: Data set 'my_val' is not"),
        ("c.yaml", 'MODEL:\n  WEIGHTS: "a\n  X: [1,\n', "c.yaml cannot be read"),
        ("d.py", "model = dict(\n", "d.py cannot be read: .*never closed"),
        ("e.py", MISSPELT_ARGUMENT, "parsing_hed.*TypeError"),
        ("f.py", "\nimport no_such_module\n", "f.py, line 2 cannot be read: No module named"),
        ("g.py", "model = unknown\n", "g.py, line 1 .*'unknown' is not defined .NameError"),
        ("h.yaml", UNKNOWN_MODEL, "Error loading 'nowhere.Model'.*ImportError"),
    ],
)
def test_a_config_with_a_mistake_is_named(tmp_path, tiny_weights, name, text, message):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        ParsingPredictor(file, tiny_weights, device="cpu")
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)
