"""Whatever a file holds, a reader takes it or raises an error of the project's that names it."""

import io
import json
import os
import pickle
import resource
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mutations import changed, damaged, damaged_json, fuzz
from PIL import Image
from safetensors import torch as safetensors_torch
from torch import nn

from aiparsing_d2.checkpoint import ParsingCheckpointer, WeightFileError, read_weights
from aiparsing_d2.data.annotations import AnnotationError, read_label_png, read_person_annotations
from aiparsing_d2.data.datasets import load_cihp, load_lv_mhp_v2, load_vip
from aiparsing_d2.data.datasets.coco_parsing import load_coco_parsing
from aiparsing_d2.data.datasets.index_cache import load_cached
from aiparsing_d2.data.id_lists import IdListError
from aiparsing_d2.data.image_files import UnreadableImageError, read_image, read_image_size
from aiparsing_d2.data.json_files import JsonError
from aiparsing_d2.engine import ConfigError, FittingCheckpointer, load_lazy_config
from aiparsing_d2.engine.checkpointing import newest_whole_checkpoint
from aiparsing_d2.engine.resumption import drop_later_lines
from aiparsing_d2.engine.run_settings import check_settings
from aiparsing_d2.inference import ParsedImage
from aiparsing_d2.preparation import JournalError
from aiparsing_d2.preparation.ccp.conversion import FolderInUseError, _read_manifest
from aiparsing_d2.preparation.composed_scenes import _is_begun
from aiparsing_d2.preparation.inventory import ImageFiles
from aiparsing_d2.preparation.journal import Journal
from aiparsing_d2.preparation.verification import ImageReport, ImageVerifier, file_stamps
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS
from aiparsing_d2.submissions import SubmissionError, open_submission, score_submission

LABELS = np.zeros((20, 24), np.uint8)
LABELS[2:18, 2:10], LABELS[2:18, 12:22] = 3, 7
PEOPLE = (LABELS > 0).astype(np.uint8) + (LABELS == 7)
PICTURE = np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)


def image_file(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


GREY, HUMAN, JPEG = image_file(LABELS), image_file(PEOPLE), image_file(PICTURE, "JPEG")
EXIF = Image.Exif()
EXIF[0x0112] = 6
TURNED = image_file(PICTURE, "JPEG", exif=EXIF, xmp=b'<x tiff:Orientation="6"/>')
RED = image_file(np.dstack([LABELS, LABELS * 0, LABELS * 0]))


@st.composite
def png_of_another_kind(draw, content):
    """With another size, depth or colours in a header whose checksum is right."""
    header = bytearray(content[16:29])
    place = draw(st.sampled_from([0, 4, 8, 9, 12]))
    if place < 8:
        side = draw(st.sampled_from([0, 1, 2, 13_000, 100_000, 2**31 - 1, 10**9]))
        header[place : place + 4] = struct.pack(">I", side)
    else:
        header[place] = draw(st.integers(0, 33))
    checksum = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return content[:16] + bytes(header) + checksum + content[33:]


def png(content):
    return damaged(content) | png_of_another_kind(content)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture(autouse=True)
def memory():
    """No file of a few bytes takes more than some hundred megabytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    # On Linux in kilobytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def check(read, errors, path):
    """Read a file, or be told by its name in one of the errors; gives what was read."""
    try:
        return read()
    except errors as error:
        assert Path(path).name in str(error)
        return None


@pytest.mark.fault("weights, an image, a label map, a list, a JSON or a YAML file is damaged")
@fuzz
@given(content=png(GREY) | png(RED), allow_red=st.booleans())
def test_label_map(tmp_path, content, allow_red):
    path = write(tmp_path / "a.png", content)
    labels = check(lambda: read_label_png(path, allow_red=allow_red), AnnotationError, path)
    assert labels is None or (labels.dtype == np.uint8 and labels.ndim == 2)


@fuzz
@given(content=png(GREY))
def test_label_map_of_an_image(tmp_path, content):
    path, people = write(tmp_path / "a.png", content), write(tmp_path / "h.png", HUMAN)
    record = {"file_name": "x", "height": 20, "width": 24}
    record |= {"category_file_name": str(path), "human_file_name": str(people)}
    found = check(lambda: read_person_annotations(record, 20), AnnotationError, path)
    assert found is None or found.category_map.shape == (20, 24)


@pytest.mark.fault("weights, an image, a label map, a list, a JSON or a YAML file is damaged")
@fuzz
@given(
    content=damaged(JPEG)
    | damaged(TURNED)
    | png(image_file(PICTURE))
    | damaged(image_file(PICTURE, "TIFF"))
)
def test_image(tmp_path, content):
    path = write(tmp_path / "a.jpg", content)
    for read in (read_image, read_image_size):
        check(lambda read=read: read(path), UnreadableImageError, path)


@pytest.fixture
def data_sets(tmp_path, monkeypatch):
    """CIHP, LV-MHP-v2 and VIP of two images."""
    monkeypatch.setenv("AIPARSING_INDEX_CACHE", "0")
    for n in ("0000001", "0000002"):
        for folder, name, content in (
            ("cihp/Training/Images", f"{n}.jpg", JPEG),
            ("cihp/Training/Category_ids", f"{n}.png", GREY),
            ("cihp/Training/Human_ids", f"{n}.png", HUMAN),
            ("mhp/train/images", f"{n}.jpg", JPEG),
            ("mhp/train/parsing_annos", f"{n}_02_01.png", RED),
            ("mhp/train/parsing_annos", f"{n}_02_02.png", RED),
            ("vip/Images/videos1", f"{n}.jpg", JPEG),
            ("vip/Annotations/Category_ids/videos1", f"{n}.png", GREY),
            ("vip/Annotations/Human_ids/videos1", f"{n}.png", HUMAN),
        ):
            write(tmp_path / folder / name, content)
    write(tmp_path / "cihp/train_id.txt", b"0000001\n0000002\n")
    return tmp_path


LISTS = [
    (load_cihp, "cihp", "train_id.txt", b"0000001\n0000002\n"),
    (load_lv_mhp_v2, "mhp", "list/train.txt", b"0000001\n0000002\n"),
    (load_vip, "vip", "lists/train_id.txt", b"videos1/0000001\nvideos1/0000002\n"),
]


@pytest.mark.fault("weights, an image, a label map, a list, a JSON or a YAML file is damaged")
@pytest.mark.parametrize(("load", "folder", "name", "whole"), LISTS, ids=lambda x: str(x)[:12])
@fuzz
@given(data=st.data())
def test_id_list(data_sets, load, folder, name, whole, data):
    path = write(data_sets / folder / name, data.draw(damaged(whole)))
    try:
        records = load(data_sets / folder, "train")
    except FileNotFoundError as error:
        assert "id list" in str(error)
    except IdListError as error:
        assert path.name in str(error)
    else:
        assert all(Path(r["file_name"]).is_relative_to(data_sets / folder) for r in records)


@fuzz
@given(content=damaged_json({"0000001": [[1, 2, 3, 4.5]], "0000002": []}))
def test_ignored_boxes(data_sets, content):
    path = write(data_sets / "cihp/ignore_boxes.json", content)
    records = check(lambda: load_cihp(data_sets / "cihp", "train"), ValueError, path)
    for record in records or ():
        boxes = np.array(record.get("ignore_boxes", []), float).reshape(-1, 4)
        assert np.isfinite(boxes).all() and (boxes[:, :2] < boxes[:, 2:]).all()


COCO = {
    "images": [{"id": 1, "file_name": "1.jpg", "height": 20, "width": 24}],
    "annotations": [
        {"id": 1, "image_id": 1, "parsing": "1_1.png", "iscrowd": 0},
        {"id": 2, "image_id": 1, "parsing": "1_2.png"},
    ],
    "categories": [{"id": 1, "parsing": list(CIHP_PART_LABELS.names)}],
}
COCO_MAPS = {
    "images": [COCO["images"][0] | {"category_file_name": "c.png", "human_file_name": "h.png"}],
    "annotations": [{"id": 1, "image_id": 1}],
}


@pytest.mark.fault("weights, an image, a label map, a list, a JSON or a YAML file is damaged")
@fuzz
@given(content=damaged_json(COCO) | damaged_json(COCO_MAPS))
def test_coco_json(tmp_path, content):
    write(tmp_path / "images/1.jpg", JPEG)
    for name, label_map in (("1_1", GREY), ("1_2", GREY), ("c", GREY), ("h", HUMAN)):
        write(tmp_path / f"labels/{name}.png", label_map)
    path = write(tmp_path / "a.json", content)
    folders = tmp_path / "images", tmp_path / "labels"
    records = check(
        lambda: load_coco_parsing(path, *folders, part_labels=CIHP_PART_LABELS),
        (AnnotationError, FileNotFoundError),
        path,
    )
    for record in records or ():
        assert Path(record["file_name"]).parent == folders[0]
        try:
            read_person_annotations(record, 20)
        except AnnotationError as error:  # a size that the maps do not have
            assert str(folders[1]) in str(error)


@pytest.mark.parametrize("depth", [*range(700, 1000, 20), 100_000])
def test_deep_json(tmp_path, depth):
    """At some depths it can be read, but not be written out again in a message."""
    for content in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        path = write(tmp_path / "a.json", f'{{"images": [{content}]}}'.encode())
        with pytest.raises(AnnotationError, match="a.json"):
            load_coco_parsing(path, tmp_path)


@fuzz
@given(data=st.data())
def test_index_cache(tmp_path, monkeypatch, data):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    value = {"records": [{"file_name": "a", "height": 4}], "unreadable": []}
    for path in tmp_path.rglob("*.json"):
        path.unlink()
    load_cached(["k"], "fingerprint", lambda: value)
    (path,) = tmp_path.rglob("*.json")
    header, _, payload = path.read_bytes().partition(b"\n")
    changed_header = damaged_json(json.loads(header)).map(lambda h: h + b"\n" + payload)
    path.write_bytes(data.draw(damaged(path.read_bytes()) | changed_header))
    assert load_cached(["k"], "fingerprint", lambda: value) == value


RECORD = {"file_name": "x", "image_id": "1", "height": 20, "width": 24}
PERSONS = {
    "persons": [
        {"map": "1_1.png", "score": 0.9, "part_scores": [0.5] * 19, "box": [2, 2, 10, 18]},
        {"map": "1_2.png", "score": 0.8, "part_scores": [0.5] * 19, "box": [12, 2, 22, 18]},
    ],
    "category_map": "c.png",
    "part_regions": {
        "map": "r.png",
        "regions": [{"class": 3, "score": 0.9}, {"class": 7, "score": 0.8}],
    },
}
FOLDERS = {
    "global_parsing/1.png": GREY,
    "instance_parsing/1.png": HUMAN,
    "instance_parsing/1.txt": b"3 0.9\n7 0.8\n",
    "instance_segmentation/1.png": HUMAN,
    "instance_segmentation/1.txt": b"0.9 2 2 18 10\n0.8 2 12 18 22\n",
}
SUBMISSIONS = {
    "person_maps": {
        "1.json": json.dumps(PERSONS).encode(),
        "1_1.png": image_file(LABELS * (PEOPLE == 1)),
        "1_2.png": image_file(LABELS * (PEOPLE == 2)),
        "c.png": GREY,
        "r.png": image_file(PEOPLE.astype(np.uint16)),
    },
    "cihp": FOLDERS,
    "vip": {f"videos1/{name}": content for name, content in FOLDERS.items()},
    "lv_mhp_v2": {
        "results.txt": b"1 1 0.9 2 0.8\n",
        "global_seg/1.png": GREY,
        "global_tag/1.png": HUMAN,
    },
}


@pytest.mark.parametrize("kind", SUBMISSIONS)
@fuzz
@given(data=st.data())
def test_submission(tmp_path, kind, data):
    files = SUBMISSIONS[kind]
    broken = data.draw(st.sampled_from(list(files)))
    for name, content in files.items():
        if name != broken:
            write(tmp_path / "results" / name, content)
        elif name.endswith(".json"):
            write(tmp_path / "results" / name, data.draw(damaged_json(PERSONS)))
        else:
            drawn = data.draw(png(content) if name.endswith(".png") else damaged(content))
            write(tmp_path / "results" / name, drawn)
    record = RECORD | {"image_id": "videos1/1" if kind == "vip" else "1"}
    record["category_file_name"] = str(write(tmp_path / "truth/c.png", GREY))
    record["human_file_name"] = str(write(tmp_path / "truth/h.png", HUMAN))
    names = CIHP_PART_LABELS.names
    try:
        submission = open_submission(tmp_path / "results", 20, kind)
        score_submission(submission, [record], names, show_progress=False)
    except SubmissionError as error:
        assert str(tmp_path / "results") in str(error)


WEIGHTS = {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.ones(3)}
CHECKPOINT = {"model": WEIGHTS, "iteration": 5, "scheduler": {"lr": np.float64(0.1)}}


def torch_file(content, **options):
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


@st.composite
def damaged_archive(draw, content):
    """A zip archive, whole by its checksums, of which a part is damaged or lost."""
    archive, file = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    broken = draw(st.sampled_from(archive.namelist()))
    with zipfile.ZipFile(file, "w") as changed:
        for name in archive.namelist():
            if name != broken:
                changed.writestr(name, archive.read(name))
            elif draw(st.integers(0, 9)):
                changed.writestr(name, draw(damaged(archive.read(name))))
    return file.getvalue()


WEIGHT_FILES = {
    ".pth": damaged_archive(torch_file(CHECKPOINT)) | damaged(torch_file(CHECKPOINT)),
    ".pt": damaged(torch_file(CHECKPOINT, _use_new_zipfile_serialization=False)),
    ".pkl": damaged(
        pickle.dumps({"model": {k: v.numpy() for k, v in WEIGHTS.items()}, "__author__": "a"})
    ),
    ".safetensors": damaged(safetensors_torch.save(WEIGHTS)),
}


@pytest.mark.fault("weights, an image, a label map, a list, a JSON or a YAML file is damaged")
@pytest.mark.parametrize("suffix", WEIGHT_FILES)
@fuzz
@given(data=st.data())
def test_weights(tmp_path, suffix, data):
    path = write(tmp_path / f"a{suffix}", data.draw(WEIGHT_FILES[suffix]))
    if suffix != ".pkl":
        check(lambda: read_weights(path), WeightFileError, path)
    load = ParsingCheckpointer(nn.Linear(4, 3)).load
    check(lambda: load(str(path), checkpointables=[]), WeightFileError, path)


def laughs():
    """A few lists that refer to each other, and are more than memory holds when written out."""
    content = []
    for _ in range(60):
        content = [content, content]
    return content


ODD_WEIGHTS = {
    "list": [torch.ones(1)],
    "tensor": torch.ones(1),
    "no names": {"model": {1: torch.ones(1)}},
    "nested": {"model": {"model": {"model": WEIGHTS}}},
    "text": {"model": {"weight": "text"}},
    "weights of weights": {"model": WEIGHTS | {"bias": [torch.ones(3)]}},
    "nothing": {"model": None},
    "complex": {"model": WEIGHTS | {"bias": torch.ones(3, dtype=torch.complex64)}},
    "sparse": {"model": WEIGHTS | {"weight": torch.eye(3, 4).to_sparse()}},
    "repeated": {"model": WEIGHTS | {"weight": torch.ones(1).expand(10**6, 10**6)}},
    "empty": {},
}


@pytest.mark.parametrize("content", ODD_WEIGHTS.values(), ids=ODD_WEIGHTS)
def test_odd_weights(tmp_path, content):
    path = write(tmp_path / "a.pth", torch_file(content))
    load = FittingCheckpointer(nn.Linear(4, 3)).load
    with pytest.raises((WeightFileError, ConfigError), match="a.pth"):
        load(str(path))


ODD_PICKLES = {
    "list": [1],
    "number": {"model": 3, "__author__": "a"},
    "blobs": {"blobs": [1]},
    "laughs": {"model": laughs(), "__author__": "a"},
    "laughs in a name": {"model": {"weight": laughs()}, "__author__": "a"},
    "no name": {"model": {1: np.ones(3)}, "__author__": "a"},
    "text": {"model": {"weight": "text"}, "__author__": "a"},
}


@pytest.mark.parametrize("content", ODD_PICKLES.values(), ids=ODD_PICKLES)
def test_odd_pickles(tmp_path, content):
    path = write(tmp_path / "a.pkl", pickle.dumps(content))
    with pytest.raises(WeightFileError, match="a.pkl"):
        ParsingCheckpointer(nn.Linear(4, 3)).load(str(path))


def test_a_pickle_that_numbers_an_object_high(tmp_path):
    """The unpickler in C takes 16 gigabytes for this."""
    path = write(tmp_path / "a.pkl", b"\x80\x02]r" + struct.pack("<I", 2**30) + b".")
    with pytest.raises(WeightFileError, match="a.pkl"):
        ParsingCheckpointer(nn.Linear(4, 3)).load(str(path))


@fuzz
@given(content=damaged(b"model_0000005.pth") | st.binary(max_size=20) | st.text().map(str.encode))
def test_record_of_the_last_checkpoint(tmp_path, content):
    """The whole checkpoint is found, whatever is written there."""
    whole = write(tmp_path / "model_0000005.pth", torch_file({"iteration": 5}))
    write(tmp_path / "model_0000009.pth", torch_file({"weights": 5}))
    write(tmp_path / "last_checkpoint", content)
    assert Path(newest_whole_checkpoint(str(tmp_path))).name in (whole.name, "model_0000009.pth")


LAST = torch_file({"iteration": 9})


@fuzz
@given(content=damaged_archive(LAST) | damaged(LAST))
def test_damaged_last_checkpoint(tmp_path, content):
    write(tmp_path / "model_0000005.pth", torch_file({"iteration": 5}))
    write(tmp_path / "model_0000009.pth", content)
    assert Path(newest_whole_checkpoint(str(tmp_path))).name.startswith("model_000000")


@fuzz
@given(content=damaged(b'{"iteration": 3, "lr": 0.1}\n{"iteration": 7, "lr": 0.1}\n'))
def test_metrics(tmp_path, content):
    path = write(tmp_path / "metrics.json", content)
    drop_later_lines(path, 4)
    assert all(json.loads(line)["iteration"] < 5 for line in path.read_bytes().splitlines())


RUN = yaml.dump(
    {
        "model": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3},
        "dataloader": {"train": {"num_workers": 2}, "test": {"names": ["a", "${train.device}"]}},
        "optimizer": {"lr": 0.1},
        "lr_multiplier": {"values": [1, 2]},
        "train": {
            **dict.fromkeys(("max_iter", "eval_period", "log_period"), 5),
            **dict.fromkeys(("amp", "ddp", "checkpointer"), {}),
            **{"output_dir": "a", "init_checkpoint": "", "device": "cpu"},
        },
    }
).encode()


@pytest.mark.fault("weights, an image, a label map, a list, a JSON or a YAML file is damaged")
@fuzz
@given(
    content=damaged(RUN)
    | changed(yaml.safe_load(RUN)).map(lambda value: json.dumps(value).encode())
)
def test_config(tmp_path, content):
    path = write(tmp_path / "config.yaml", content)
    try:
        check_settings(load_lazy_config(str(path)))
    except ConfigError as error:
        assert "\n" not in str(error)


YAML_BOMB = b"a0: &a0 [x]\n" + b"".join(
    b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 60)
)
ODD_YAML = {
    "more than memory holds": YAML_BOMB,
    "in itself": b"a: &a [*a]",
    "deep": b"[" * 5000,
    "deep and whole": b"a: " + b"[" * 300 + b"]" * 300,
    "twice": b"train: {a: 1, a: 2}",
    "not UTF-8": b"a: \xff",
    "no date": b"a: 2020-02-31",
    "keys": b"? [1, 2]\n: 3",
    "a list": b"- 1",
    "empty": b"",
}


@pytest.mark.parametrize("content", ODD_YAML.values(), ids=ODD_YAML)
def test_odd_yaml(tmp_path, content):
    path = write(tmp_path / "config.yaml", content)
    with pytest.raises(ConfigError, match="config.yaml") as error:
        load_lazy_config(str(path))
        raise ConfigError("config.yaml was read")
    assert "\n" not in str(error.value)


def parsed_image():
    from detectron2.structures import Boxes, Instances

    from aiparsing_d2.structures import PartMaps

    maps = np.stack([LABELS * (PEOPLE == 1), LABELS * (PEOPLE == 2)])
    people = Instances(LABELS.shape)
    people.pred_boxes = Boxes(torch.tensor([[2.0, 2, 10, 18], [12, 2, 22, 18]]))
    people.scores = torch.tensor([0.9, 0.8])
    people.pred_part_scores = torch.zeros(2, 20)
    people.pred_part_maps = PartMaps.from_full(maps)
    return ParsedImage(people, CIHP_PART_LABELS)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@fuzz
@given(data=st.data())
def test_parsed_image(tmp_path, data):
    path = tmp_path / "a.npz"
    parsed_image().save(path, overwrite=True)
    whole = path.read_bytes()
    arrays = dict(np.load(path))
    name = data.draw(st.sampled_from(list(arrays)))
    kinds = ["f4", "f8", "i8", "u1", "i2", "U3", "bool"]
    other = st.sampled_from(kinds).map(lambda kind: arrays[name].astype(kind, casting="unsafe"))
    if arrays[name].dtype.kind == "U":
        other = st.just(np.zeros(3))
    shorter = st.just(arrays[name][:-1]) if arrays[name].ndim else st.just(np.zeros(2))
    large = st.just(np.full_like(arrays[name], 200 if arrays[name].dtype.kind in "iu" else "nan"))
    replaced = (other | shorter | large).map(lambda array: npz(**{**arrays, name: array}))
    lost = st.just(npz(**{key: array for key, array in arrays.items() if key != name}))
    path.write_bytes(data.draw(damaged(whole) | damaged_archive(whole) | replaced | lost))
    image = check(lambda: ParsedImage.load(path), ValueError, path)
    if image is not None:
        assert image.semantic_map().shape == image.image_size
        image.to_json()


@fuzz
@given(data=st.data())
def test_journal(data_sets, data):
    root = data_sets / "cihp"
    (data_sets / "unfinished.jsonl").unlink(missing_ok=True)
    path, run = data_sets / "unfinished.jsonl", {"data_set": "CIHP", "splits": ["train"]}
    files = ImageFiles("train", "0000001", 1, *FILES)
    verifier = ImageVerifier(root, 20)
    with Journal(path, run) as journal:
        journal.add(verifier(files), file_stamps(root, files))
    content = path.read_bytes()
    lines = [json.loads(line) for line in content.splitlines()]
    as_lines = changed(lines).map(
        lambda ls: b"".join(
            json.dumps(line).encode() + b"\n" for line in (ls if isinstance(ls, list) else [ls])
        )
    )
    path.write_bytes(data.draw(damaged(content) | as_lines))

    def read():
        with Journal(path, run) as journal:
            report = journal.find(root, files)
            assert report is None or isinstance(report, ImageReport)

    check(read, JournalError, path)


FILES = (
    *("Training/Images/0000001.jpg", "Training/Category_ids/0000001.png"),
    "Training/Human_ids/0000001.png",
)


@fuzz
@given(data=st.data())
def test_files_of_an_image(data_sets, data):
    """``prepare`` reports everything that is wrong, and stops at nothing."""
    root = data_sets / "cihp"
    values = np.where(PEOPLE > 0, LABELS + 20 * (PEOPLE.astype(int) - 1), 0)
    contents = dict(
        zip(
            (*FILES, "Training/Instance_ids/1.png", "Training/Instance_ids/1.txt"),
            (JPEG, GREY, HUMAN, image_file(values.astype(np.uint16)), b"3 3 1\n27 7 2\n"),
        )
    )
    broken = data.draw(st.sampled_from(list(contents)))
    for name, content in contents.items():
        if name == broken:
            content = data.draw(png(content) if name.endswith("png") else damaged(content))
        write(root / name, content)
    report = ImageVerifier(root, 20)(ImageFiles("train", "0000001", 1, *contents))
    assert all(finding.file in contents for finding in report.findings)
    json.dumps(report.to_json())


@fuzz
@given(content=damaged_json({"data_set": "CCP", "labels": "cihp", "images": ["1"]}))
def test_manifests(tmp_path, content):
    wanted = {"data_set": "CCP", "labels": "cihp", "images": ["1"]}
    path = write(tmp_path / "composition.json", content)
    check(lambda: _is_begun(tmp_path, wanted), (JsonError, FileExistsError), tmp_path)
    check(lambda: _read_manifest(path, wanted), FolderInUseError, tmp_path)


def test_best_record(tmp_path):
    from aiparsing_d2.engine.checkpointing import _read_best_record

    path = tmp_path / "model_best.json"
    whole = {"metric": "parsing/APp50", "value": 50.5, "iteration": 7}
    path.write_text(json.dumps(whole))
    assert _read_best_record(path) == whole
    for content in ("", "{", "[]", "3", "{}", json.dumps(whole | {"value": "50"}), "\ud800"):
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        with pytest.raises(ConfigError, match="model_best.json is no record"):
            _read_best_record(path)


def test_links_that_lead_round_in_a_circle(data_sets):
    """Two of them would be followed on more ways than there is time for."""
    from aiparsing_d2.preparation.inventory import _files_by_id

    folder = data_sets / "cihp/Training/Images"
    for name in ("a", "b"):
        os.symlink(folder, folder / name)
    os.symlink(folder / "itself", folder / "itself")
    os.symlink("itself.jpg", folder / "itself.jpg")
    assert set(_files_by_id(data_sets / "cihp", "Training/Images", (".jpg",))) == {
        *("0000001", "0000002", "itself")
    }
    assert len(load_cihp(data_sets / "cihp", "train")) == 2
