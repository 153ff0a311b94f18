"""Exported files against the model itself, run as its users run it."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys

import numpy as np
import pytest
import tiny_predictor
import torch
from detectron2.config import instantiate
from PIL import Image

from aiparsing_d2 import model_zoo
from aiparsing_d2.cli import main
from aiparsing_d2.data.image_files import read_image
from aiparsing_d2.export import FORMATS, ImageParser, export_predictor, exporting
from aiparsing_d2.export.graph_formats import RunGraph, can_export_programs
from aiparsing_d2.inference import ParsingPredictor

NUMBERS = (0, 1, 3, 7, 50)
SIZES = ((192, 256), (256, 192), (160, 161), (200, 330), (417, 150))

_WITHOUT_THIS_PACKAGE = """\
import runpy, sys
for name in ("aiparsing_d2", "detectron2", "torch", "torchvision", "cv2"):
    sys.modules[name] = None  # importing it is an error
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny_predictor.save_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.pth")


def make_predictor(weights, **options) -> ParsingPredictor:
    config = tiny_predictor.tiny_config()
    config.model.proposal_generator.post_nms_topk = (10, 50)
    config.model.part_box_weight = 0.5
    config.model.roi_heads.parsing_head.min_part_probability = 0.1
    config.model.roi_heads.parsing_head.update(options.pop("parsing_head", {}))
    config.model.proposal_generator.update(options)
    return ParsingPredictor(config, weights, device="cpu", score_threshold=0.0, precision=None)


@pytest.fixture(scope="module")
def predictor(weights):
    return make_predictor(weights)


@pytest.fixture(scope="module")
def exported(predictor, tmp_path_factory):
    """The folder of a format, made once; checked on one small picture."""
    folders = {}

    def export(format_name: str):
        if format_name != "torchscript" and not can_export_programs():
            pytest.skip("torch is too old for this format")
        if format_name not in folders:
            folders[format_name] = tmp_path_factory.mktemp(format_name)
            picture = tiny_predictor.random_picture(140, 150)
            export_predictor(predictor, folders[format_name], format_name, pictures=[picture])
        return folders[format_name]

    return export


def results_of_model(predictor, picture: np.ndarray, threshold: float) -> list[np.ndarray]:
    """What Detectron2's way through the model gives, by descending score."""
    image = torch.from_numpy(picture[..., ::-1].transpose(2, 0, 1).copy())  # it reads BGR
    with torch.no_grad():
        (found,) = predictor.model.inference([{"image": image}], do_postprocess=False)
    found = found[found.scores >= threshold]
    found = found[found.scores.argsort(descending=True, stable=True)]
    boxes, logits = found.pred_boxes.tensor, found.pred_part_logits
    part_ends = logits.person_boxes(torch.tensor([[0.0, 0, 1, 1]]).expand(len(boxes), 4))
    fields = (boxes, part_ends, found.scores, found.box_scores, found.pred_mious, logits.tensor)
    return [field.numpy() for field in fields]


def thresholds_by_number(scores: np.ndarray) -> dict[int, float]:
    """Thresholds in the middle between the scores of the N-th person and the next."""
    around = [1.0, *scores.tolist(), 0.0]
    numbers = [n for n in NUMBERS if n <= len(scores)]
    return {n: (around[n] + around[n + 1]) / 2 if n < len(scores) else 0.0 for n in numbers}


def compare(predictor, run: RunGraph, picture: np.ndarray) -> list[int]:
    everybody = results_of_model(predictor, picture, 0.0)
    thresholds = thresholds_by_number(everybody[2])
    for number, threshold in thresholds.items():
        outputs = run(picture, threshold)
        # Detections below the square of the threshold are left out before they are parsed.
        assert [len(output) for output in outputs] == [number] * 6
        for output, expected, atol in zip(outputs, everybody, (0.01, 1e-3, 1e-5, 1e-5, 1e-5, 1e-3)):
            np.testing.assert_allclose(output, expected[:number], rtol=0, atol=atol)
    return list(thresholds)


@pytest.mark.parametrize(
    "format_name",
    ["onnx", "torchscript", pytest.param("torch-export", marks=pytest.mark.slow)],
)
def test_any_size_and_number_of_people(predictor, exported, format_name):
    graph_format = FORMATS[format_name]
    run = graph_format.load(exported(format_name) / graph_format.file_name)
    numbers = [
        compare(predictor, run, tiny_predictor.random_picture(*size, seed=i))
        for i, size in enumerate(SIZES)
    ]
    assert numbers == [list(NUMBERS)] * len(SIZES)


@pytest.mark.parametrize("format_name", ["onnx", "torchscript"])
def test_a_picture_of_a_few_pixels(predictor, exported, format_name):
    graph_format = FORMATS[format_name]
    run = graph_format.load(exported(format_name) / graph_format.file_name)
    compare(predictor, run, tiny_predictor.random_picture(9, 33))


@pytest.mark.slow
def test_torch_export_says_which_pictures_are_too_small(exported):
    folder = exported("torch-export")
    least = json.loads((folder / "model.pt2.json").read_text())["least_side"]
    run = FORMATS["torch-export"].load(folder / "model.pt2")
    run(np.zeros((least, least, 3), np.uint8), 0.0)
    with pytest.raises((AssertionError, RuntimeError)):
        run(np.zeros((least - 1, least, 3), np.uint8), 0.0)


def parse_with_script(folder, picture, output, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", _WITHOUT_THIS_PACKAGE, folder / "parse_onnx.py", picture]
    command += ["--output", output, *arguments]
    return subprocess.run([str(x) for x in command], capture_output=True, text=True)


def test_the_script_beside_the_onnx_file_needs_nothing_else(predictor, exported, tmp_path):
    pixels = tiny_predictor.random_picture(150, 230, seed=3)
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 6  # lies on its side
    picture.save(tmp_path / "a.png", exif=exif)
    done = parse_with_script(exported("onnx"), tmp_path / "a.png", tmp_path, "--threshold", "0.02")
    assert done.returncode == 0, done.stderr

    predictor.score_threshold = 0.02
    try:
        people = predictor(tmp_path / "a.png")
    finally:
        predictor.score_threshold = 0.0
    assert len(people) > 1
    described = json.loads((tmp_path / "a.json").read_text())
    assert (described["height"], described["width"]) == people.image_size == (230, 150)
    for person, expected in zip(described["people"], people, strict=True):
        assert person["box"] == pytest.approx(expected.box.tolist(), abs=0.01)
        assert person["score"] == pytest.approx(expected.score, abs=1e-5)
        assert person["detection_score"] == pytest.approx(expected.detection_score, abs=1e-5)
        assert person["parsing_score"] == pytest.approx(expected.parsing_score, abs=1e-5)
        assert list(person["parts"]) == expected.parts
    # Rounding decides a pixel in thousands whose two best labels are equally probable.
    for kind, labels in (("parts", people.semantic_map()), ("instances", people.instance_map())):
        written = np.asarray(Image.open(tmp_path / f"a.{kind}.png"))
        assert (written != labels).mean() < 1e-3
    assert len(np.unique(people.instance_map())) > 2


def test_the_script_names_what_it_cannot_parse_and_goes_on(exported, tmp_path):
    names = ["a.png", "there/a.png", "missing.png", "b.png"]
    for name in ("a.png", "there/a.png", "b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(tiny_predictor.random_picture(100, 120)).save(tmp_path / name)
    pictures = [str(tmp_path / name) for name in names]
    command = [sys.executable, exported("onnx") / "parse_onnx.py", *pictures, "--output", tmp_path]
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True)
    assert done.returncode == 1
    clash, missing = done.stderr.splitlines()
    assert clash == f"{pictures[1]}: its results would replace those of {pictures[0]}"
    assert missing.startswith(f"{pictures[2]}: ") and "No such file" in missing
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [pictures[0], pictures[3]]


def test_the_script_keeps_what_is_there(exported, tmp_path):
    picture = tmp_path / "a.png"
    Image.fromarray(tiny_predictor.random_picture(100, 120)).save(picture)
    (tmp_path / "a.json").write_text('{"mine": 1}')
    kept = "a.json kept (--overwrite makes them anew)"
    done = parse_with_script(exported("onnx"), picture, tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{picture}: people: ") and done.stdout.endswith(f", {kept}\n")
    assert json.loads((tmp_path / "a.json").read_text()) == {"mine": 1}
    (tmp_path / "a.parts.png").write_bytes(b"mine")
    assert (tmp_path / "a.instances.png").exists()
    done = parse_with_script(exported("onnx"), picture, tmp_path)
    assert done.returncode == 0
    assert done.stdout == f"{picture}: a.json and a.parts.png and a.instances.png {kept[7:]}\n"
    assert (tmp_path / "a.parts.png").read_bytes() == b"mine"
    assert parse_with_script(exported("onnx"), picture, tmp_path, "--overwrite").returncode == 0
    assert "people" in json.loads((tmp_path / "a.json").read_text())
    assert Image.open(tmp_path / "a.parts.png").size == (120, 100)


def damaged_png(path):
    """Of which a chunk before the pixels is no chunk."""
    Image.fromarray(tiny_predictor.random_picture(20, 30)).save(path)
    content = bytearray(path.read_bytes())
    content[33:41] = b"\xff\xff\xff\xff\x00\x00\x00\x00"
    path.write_bytes(content)


def exif_behind_the_pixels(path, moved):
    """Move the EXIF of a PNG, which Pillow writes before them."""
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(content[start : start + 4], "big")
    end = content.index(b"IEND") - 4
    moved.write_bytes(content[:start] + content[stop:end] + content[start:stop] + content[end:])


def test_the_script_reads_pictures_as_the_library_does(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    read = runpy.run_path(exporting.__file__.replace("exporting.py", "parse_onnx.py"))
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 65536, (20, 30), dtype=np.uint16)
    rgba = Image.fromarray(rng.integers(0, 256, (20, 30, 4), dtype=np.uint8))
    pictures = {
        "grey.png": Image.fromarray(grey),
        "grey.tif": Image.fromarray(grey),
        "bits.png": Image.fromarray(grey > 30000),
        "palette.png": rgba.convert("RGB").convert("P"),
        "rgba.png": rgba,
        "cmyk.jpg": rgba.convert("RGB").convert("CMYK"),
    }
    exif = rgba.getexif()
    exif[0x0112] = 8
    for name, picture in pictures.items():
        options = {"exif": exif} if name.endswith(("png", "jpg")) else {}
        picture.save(tmp_path / name, **options)
    exif_behind_the_pixels(tmp_path / "grey.png", tmp_path / "behind.png")
    rgba.save(tmp_path / "broken.png", exif=b"Exif\0\0nonsense")
    for name in (*pictures, "behind.png", "broken.png"):
        expected = read_image(tmp_path / name, "RGB")
        got = np.asarray(read["read_picture"](tmp_path / name).convert("RGB"))
        np.testing.assert_array_equal(got, expected)
    assert 120 < read_image(tmp_path / "grey.png").mean() < 135

    assert read_image(tmp_path / "grey.png").shape != read_image(tmp_path / "behind.png").shape

    rgba.convert("RGB").save(tmp_path / "program.eps")
    Image.fromarray(rng.normal(size=(4, 5)).astype(np.float32)).save(tmp_path / "float.tif")
    damaged_png(tmp_path / "damaged.png")
    parser = object.__new__(read["Parser"])
    parser.about = {"score_threshold": 0.5}
    with pytest.raises(ValueError, match="mode F"):
        parser(read["read_picture"](tmp_path / "float.tif"))
    with pytest.raises(OSError, match="no picture that can be read"):
        read["read_picture"](tmp_path / "damaged.png")
    with pytest.raises(OSError, match="it is a PostScript program"):
        read["read_picture"](tmp_path / "program.eps")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(OSError, match="no picture that can be read: .*decompression bomb"):
        read["read_picture"](tmp_path / "rgba.png")


def test_the_script_leaves_no_folder_without_results(exported, tmp_path):
    done = parse_with_script(exported("onnx"), tmp_path / "none.png", tmp_path / "out")
    assert done.returncode == 1 and "none.png: " in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_script_cannot_import_this_package(exported, tmp_path):
    """So that the test above can fail."""
    script = tmp_path / "parse_onnx.py"
    script.write_text("import aiparsing_d2")
    assert "ModuleNotFoundError" in parse_with_script(tmp_path, "a.png", tmp_path).stderr


@pytest.mark.parametrize("inclusive_boxes", [False, True])
def test_the_script_pastes_as_the_library_does(weights, inclusive_boxes, tmp_path):
    """In both conventions of boxes; the graph is the model's own."""
    pytest.importorskip("onnxruntime")
    predictor = make_predictor(weights, inclusive_boxes=inclusive_boxes)
    script = runpy.run_path(exporting.__file__.replace("exporting.py", "parse_onnx.py"))
    parser = object.__new__(script["Parser"])
    image_parser = ImageParser(predictor.model, predictor.image_format)
    parser.about = exporting.describe(predictor, image_parser, "onnx", "model.onnx")

    class Session:
        def get_outputs(self):
            return [type("Output", (), {"name": name}) for name in image_parser.output_names]

        def run(self, _, inputs):
            tensors = (torch.from_numpy(np.array(value)) for value in inputs.values())
            with torch.no_grad():
                return [output.numpy() for output in image_parser(*tensors)]

    parser.session = Session()
    picture = Image.fromarray(tiny_predictor.random_picture(240, 333, seed=5))
    expected = predictor(picture)
    people = parser(picture, 0.0)
    assert len(people) == len(expected) > 5
    for person, other in zip(people, expected):
        np.testing.assert_allclose(person["box"], other.box, atol=1e-3)
        assert person["window"] == tuple(other.window)
        assert (person["map"] != other.window_map).mean() < 1e-3
        np.testing.assert_allclose(person["part_scores"], other.part_scores, atol=1e-3)


def test_what_the_files_say(predictor, exported):
    about = json.loads((exported("onnx") / "model.onnx.json").read_text())
    assert about["part_names"] == list(predictor.part_labels.names)
    assert about["resize"] == {"short_side": 192, "longest_side": 288, "interpolation": "bilinear"}
    assert about["normalized_in_the_graph"]["channel_order"] == "BGR"
    assert about["normalized_in_the_graph"]["pixel_mean"] == pytest.approx(
        [103.53, 116.28, 123.675]
    )
    assert about["most_people"] == 50 and about["score_threshold"] == 0.0


def test_nothing_of_an_earlier_call_is_replaced(predictor, exported):
    with pytest.raises(FileExistsError, match="model.onnx exists"):
        export_predictor(predictor, exported("onnx"), "onnx")


def test_a_graph_that_differs_is_not_kept(predictor, tmp_path, monkeypatch):
    right = FORMATS["torchscript"]

    def load(path):
        run = right.load(path)
        return lambda image, threshold: [output + 0.1 for output in run(image, threshold)]

    monkeypatch.setitem(FORMATS, "torchscript", right._replace(load=load))
    with pytest.raises(ValueError, match=r"boxes of a picture of .* people differ by 0\.1"):
        export_predictor(predictor, tmp_path / "new", "torchscript")
    assert list(tmp_path.iterdir()) == []


def test_other_models_are_refused():
    config = model_zoo.get_config("cihp/parsing_rcnn_R_50_FPN_cihp_25ep")
    with torch.device("meta"):
        model = instantiate(config.model)
    with pytest.raises(ValueError, match="only models with FCOSProposalGenerator .* not with RPN"):
        ImageParser(model, "BGR")


def test_packages_that_are_missing_are_named(predictor, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"onnxscript: pip install 'aiparsing_d2\[export\]'"):
        export_predictor(predictor, tmp_path / "new", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_first(predictor, tmp_path):
    (tmp_path / "file").touch()
    steps: list[str] = []
    with pytest.raises(OSError, match="file/new cannot be written to: Not a directory"):
        export_predictor(predictor, tmp_path / "file" / "new", report=steps.append)
    assert steps == []


def test_the_command(weights, tmp_path, capsys):
    command = ["export", "--model", tiny_predictor.CONFIG, "--weights", str(weights)]
    command += ["--format", "torchscript", "--output", str(tmp_path / "new")]
    assert main(command) == 0
    output = capsys.readouterr()
    assert "model.torchscript" in output.out
    graph, described = (tmp_path / "new" / f"model.torchscript{end}" for end in ("", ".json"))
    assert [line for line in output.err.splitlines() if line.startswith("aiparsing export: ")] == [
        "aiparsing export: loading the model",
        "aiparsing export: writing the model as torchscript, which takes longest",
        "aiparsing export: comparing model.torchscript with the model on 3 pictures",
        f"aiparsing export: written: {graph}, {graph.stat().st_size:,} bytes",
        f"aiparsing export: written: {described}, {described.stat().st_size:,} bytes",
    ]
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [
        "model.torchscript",
        "model.torchscript.json",
    ]
    assert main(command) == 1
    assert "exists; give another folder" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


@pytest.mark.skipif(not can_export_programs(), reason="this torch stops at OmegaConf's lists")
def test_the_dense_part_compiles_without_graph_breaks(predictor):
    model = predictor.model
    generator, heads = model.proposal_generator, model.roi_heads

    def dense(pixels):
        features = model.backbone(pixels)
        return generator.head([features[name] for name in generator.in_features])

    for function, value in (
        (dense, torch.rand(1, 3, 96, 128)),
        (heads.parsing_head.predict, torch.rand(2, 64, 24, 24)),
    ):
        compiled = torch.compile(function, fullgraph=True, backend="eager")
        with torch.no_grad():
            expected, got = function(value), compiled(value)
        torch.testing.assert_close(got, expected)
