"""Blocks of pictures into a table and files, in this process and by Ray's workers."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
import torch
from detectron2.config import LazyConfig
from PIL import Image
from tiny_predictor import random_picture, tiny_config

from aiparsing_d2.cli import main
from aiparsing_d2.inference import ParsingPredictor

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NUM_PICTURES = 12


@pytest.fixture(scope="module")
def model_arguments(tiny_weights) -> list[str]:
    config = tiny_weights.with_name("config.yaml")
    LazyConfig.save(tiny_config(), str(config))
    threshold = ["--threshold", "0", "--device", "cpu"]
    return ["--config-file", str(config), "--weights", str(tiny_weights), *threshold]


@pytest.fixture
def parse_many(model_arguments, tmp_path, predictor, monkeypatch):
    """The command with a model that is there already."""
    monkeypatch.setattr("aiparsing_d2.inference.ParsingPredictor", lambda **_: predictor)

    def run(*arguments: object, output: object = tmp_path / "out", workers: int = 0) -> int:
        options = ["--output", output, "--workers", workers, *model_arguments, *arguments]
        return main(["parse-many", *map(str, options)])

    return run


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A folder, of whose pictures a third is in a shard."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "shards").mkdir()
    for n in range(NUM_PICTURES):
        Image.fromarray(random_picture(40, 50 + n, n)).save(folder / f"{n:02}.png")
    with tarfile.open(folder / "shards" / "a.b.tar", "w") as shard:
        for n in range(0, NUM_PICTURES, 3):
            shard.add(folder / f"{n:02}.png", f"./{n % 2}/{n:02}.png")
            (folder / f"{n:02}.png").unlink()
        (folder / "00.json").write_text("{}")
        shard.add(folder / "00.json", "0/00.json")
    return folder


def name_of(n: int) -> str:
    return f"{n:02}" if n % 3 else f"shards/a.b/{n % 2}/{n:02}"


def read_table(output: Path) -> pa.Table:
    return pq.read_table(output / "people.parquet").sort_by("name")


def files_below(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".parquet")
    files = (path for path in files if path.suffix != ".part")  # what a killed process leaves
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_table_and_files_are_those_of_the_predictor(
    parse_many, inputs, predictor, tmp_path, capsys
):
    assert parse_many(inputs, "--save", "json,parts", "--block", 5) == 0
    output = tmp_path / "out"
    (line,) = capsys.readouterr().out.splitlines()
    assert len(list((output / "people.parquet").iterdir())) == 3
    rows = read_table(output).to_pylist()
    num_people = sum(len(row["people"]) for row in rows)
    assert line == f"{output}: {num_people} people in 12 pictures" and num_people > 50
    assert [row["name"] for row in rows] == sorted(map(name_of, range(NUM_PICTURES)))
    for row in rows:
        n = int(row["name"][-2:])
        expected = predictor(random_picture(40, 50 + n, n), channel_order="RGB").to_dict()
        shard = f"{inputs}/shards/a.b.tar/./{n % 2}/{n:02}.png"
        assert row["source"] == (f"{inputs}/{n:02}.png" if n % 3 else shard)
        assert (row["height"], row["width"]) == (40, 50 + n)
        assert json.loads((output / f"{row['name']}.json").read_text()) == expected
        for person, known in zip(row["people"], expected["people"], strict=True):
            assert person["box"] == known["box"]
            for score in ("score", "detection_score", "parsing_score"):
                assert person[score] == known[score]
            assert person["rle"] == known["segmentation"]["counts"]
            parts = {part["name"]: part for part in person["parts"]}
            assert list(parts) == list(known["parts"])
            for name, part in known["parts"].items():
                assert parts[name]["rle"] == part["segmentation"]["counts"]
                assert all(parts[name][key] == part[key] for key in ("label", "score", "area"))
    assert len(files_below(output)) == 2 * NUM_PICTURES


def test_the_files_are_those_of_parse(parse_many, model_arguments, tmp_path):
    for n in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(random_picture(40, 50, n)).save(tmp_path / "in" / f"{n}.png")
    kinds = "overlay,parts,instances,json,coco,npz,cutouts,person_maps"
    assert parse_many(tmp_path / "in", "--save", kinds) == 0
    output = ["--output", str(tmp_path / "parse")]
    assert main(["parse", str(tmp_path / "in"), "--save", kinds, *output, *model_arguments]) == 0
    of_both = [files_below(tmp_path / name) for name in ("out", "parse")]
    for files in of_both:
        for name in [name for name in files if name.endswith(".npz")]:
            del files[name]  # its archive holds the time
    assert len(of_both[0]) > 3 * 7 and of_both[0] == of_both[1]


def test_goes_on_with_what_is_not_in_the_table(parse_many, inputs, tmp_path, capsys, monkeypatch):
    num_parsed, is_interrupted = 0, False
    original = ParsingPredictor.parse_prepared

    def interrupt(self, prepared):
        nonlocal num_parsed, is_interrupted
        num_parsed += 1
        if num_parsed == 6 and not is_interrupted:
            is_interrupted = True
            raise KeyboardInterrupt
        return original(self, prepared)

    monkeypatch.setattr(ParsingPredictor, "parse_prepared", interrupt)
    assert parse_many(inputs, "--block", 4) == 130
    out, err = capsys.readouterr()
    assert "people in 4 pictures" in out
    message = "Interrupted: 4 of 12 pictures done; the same command goes on from here."
    assert err.splitlines()[-1] == message
    assert 6 <= num_parsed <= 8  # the model may have gone on meanwhile
    num_parsed = 0
    assert parse_many(inputs, "--block", 4) == 0 and num_parsed == 8
    assert "people in 8 pictures, 4 in the table before" in capsys.readouterr().out
    assert parse_many(inputs, "--block", 4) == 0 and num_parsed == 8
    assert parse_many(inputs, "--block", 5, output=tmp_path / "once") == 0
    assert read_table(tmp_path / "out").equals(read_table(tmp_path / "once"))


def test_other_settings_are_not_mixed(parse_many, inputs, predictor, monkeypatch, capsys):
    assert parse_many(inputs / "01.png") == 0
    assert parse_many(inputs, "--save", "json") == 1
    assert "out was made with save [], not ['json']" in capsys.readouterr().err
    monkeypatch.setattr(predictor, "score_threshold", 0.5)
    assert parse_many(inputs) == 1
    assert "out was made with threshold 0.0, not 0.5" in capsys.readouterr().err
    monkeypatch.undo()


def test_broken_pictures_and_shards(parse_many, inputs, tmp_path, capsys):
    shard = (inputs / "shards" / "a.b.tar").read_bytes()
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "cut.tar").write_bytes(shard[: len(shard) // 2])
    (folder / "text.tar").write_text("no shard")
    (folder / "empty.tar").touch()
    (folder / "bad.jpg").write_text("no picture")
    with tarfile.open(folder / "leads_out.tar", "w") as outside:
        outside.add(inputs / "01.png", "ok.png")
        outside.add(inputs / "01.png", "../out.png")
        outside.add(inputs / "01.png", "sub/../../out.png")
    with tarfile.open(folder / "packed.tar", "w:gz") as packed:
        packed.add(inputs / "01.png", "1.png")
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes((inputs / "01.png").read_bytes())
    assert parse_many(folder, tmp_path / "none.tar", "memory://nowhere", "nosuch://x") == 1
    out, err = capsys.readouterr()
    reasons = {
        "cut.tar": "not a whole, uncompressed tar file",
        "text.tar": "not a whole, uncompressed tar file",
        "empty.tar": "not a whole, uncompressed tar file",
        "packed.tar": "not a whole, uncompressed tar file",
        "bad.jpg": "not a readable image",
        "../out.png": "leads out of the shard",
        "caf": "not UTF-8",
        "none.tar": "No such file",
        "memory://nowhere": "no pictures",
        "nosuch://x": "Protocol not known",
    }
    for name, reason in reasons.items():
        assert any(name in line and reason in line for line in err.splitlines()), name
    names = {row["name"] for row in read_table(tmp_path / "out").to_pylist()}
    assert {"leads_out/ok", "cut/0/00"} <= names <= {"leads_out/ok", "cut/0/00", "cut/1/03"}
    assert not list(tmp_path.glob("*out.*"))
    # What failed is tried again.
    (folder / "bad.jpg").write_bytes((inputs / "01.png").read_bytes())
    assert parse_many(folder / "bad.jpg") == 0


def test_elsewhere(parse_many, inputs, tmp_path):
    """Pictures, shards and results on a file system that is not this machine's."""
    memory = fsspec.filesystem("memory")
    memory.put(f"{inputs}/", "/bucket/in/", recursive=True)
    output = "memory://bucket/in/out"
    try:
        for _ in range(2):
            arguments = ["--save", "json,cutouts", "--block", 5]
            assert parse_many("memory://bucket/in", *arguments, output=output) == 0
        memory.get("/bucket/in/out/", str(tmp_path / "fetched"), recursive=True)
        assert parse_many("memory://bucket/in/*.png", output="memory://bucket/few") == 0
        assert len(memory.glob("/bucket/few/people.parquet/*")) == 1
    finally:
        memory.rm("/bucket", recursive=True)
    assert parse_many(inputs, "--save", "json,cutouts", "--block", 5) == 0
    fetched, here = read_table(tmp_path / "fetched"), read_table(tmp_path / "out")
    assert fetched.drop_columns("source").equals(here.drop_columns("source"))
    assert fetched["source"][0].as_py() == "memory:///bucket/in/01.png"
    assert files_below(tmp_path / "fetched") == files_below(tmp_path / "out")


def test_addresses_of_the_same_folder_are_the_same(parse_many, inputs, tmp_path, capsys):
    """Results below the inputs are no inputs, and a slash at the end makes no other folder."""
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(inputs / "01.png", folder)
    out = f"{folder}/out"
    for output in (f"file://{out}", f"{out}/", f"file://{out}/", f"local://{out}"):
        assert parse_many(folder, "--save", "overlay", output=output) == 0
    assert capsys.readouterr().out.count("1 in the table before") == 3
    assert len(read_table(folder / "out")) == 1
    memory = fsspec.filesystem("memory")
    try:
        for output in ("memory://bucket/out/", "memory://bucket/out"):
            assert parse_many(folder / "01.png", "--save", "json", output=output) == 0
        assert "1 in the table before" in capsys.readouterr().out
        assert {path.rpartition("/")[0] for path in memory.find("/bucket")} == {
            "/bucket/out",
            "/bucket/out/people.parquet",
        }
    finally:
        memory.rm("/bucket", recursive=True)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_full_disk(parse_many, inputs, monkeypatch, capsys):
    def open_on_full_disk(path, *args, **options):
        return open("/dev/full", *args, **options)

    monkeypatch.setattr("aiparsing_d2.whole_files.open", open_on_full_disk, raising=False)
    assert parse_many(inputs) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in message and "0 of 12 pictures done" in message


def test_a_model_that_is_not_there(model_arguments, inputs, tmp_path, capsys):
    """Told before a worker is started."""
    arguments = ["--output", str(tmp_path / "out"), *model_arguments, "--weights", "none.pth"]
    assert main(["parse-many", str(inputs), *arguments, "--workers", "0"]) == 1
    assert "none.pth" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_precision_that_the_device_has_not(
    model_arguments, inputs, tmp_path, monkeypatch, capsys, workers
):
    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())  # is not come to
    arguments = ["--output", str(tmp_path / "out"), *model_arguments, "--precision", "fp16"]
    assert main(["parse-many", str(inputs), *arguments, "--workers", str(workers)]) == 1
    assert "fp16 is for GPUs" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(model_arguments, inputs, tmp_path, capsys):
    arguments = ["--output", str(tmp_path / "out"), *model_arguments, "--device", "cuda"]
    assert main(["parse-many", str(inputs), *arguments, "--workers", "0"]) == 1
    assert "there is no device 'cuda'" in capsys.readouterr().err


def test_a_worker_that_cannot_make_its_model(inputs, tmp_path):
    """Its machine may have no GPU; that is told as it is, not as the death of a worker."""
    from aiparsing_d2.inference.block_parsing import parse_blocks
    from aiparsing_d2.inference.picture_shards import StoredPicture

    def refuse():
        raise ValueError("there is no device 'cuda' here")

    path = str(inputs / "01.png")
    blocks = [[StoredPicture(path, "01", path)]]
    reports = parse_blocks(blocks, refuse, str(tmp_path / "out"), [], {}, num_workers=0)
    with pytest.raises(OSError, match="there is no device 'cuda' here"):
        list(reports)
    assert not (tmp_path / "out").exists()


def test_an_address_whose_package_is_missing(parse_many, inputs, monkeypatch, capsys):
    def needs_s3fs(*_):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("aiparsing_d2.inference.parsed_table.names_in_table", needs_s3fs)
    assert parse_many(inputs, output="s3://bucket/out") == 1
    assert "Install s3fs" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["ray", "ray.data"])
def test_without_ray(parse_many, inputs, monkeypatch, capsys, missing):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    monkeypatch.setitem(sys.modules, missing, None)
    assert parse_many(inputs, workers=2) == 1
    assert "pip install 'aiparsing_d2[ray]'" in capsys.readouterr().err


class DyingPredictor(ParsingPredictor):
    """Kills its process at the third picture, as often as there are no more marks."""

    def __init__(self, marks: Path, num_deaths: int, **arguments):
        super().__init__(**arguments)
        self.marks, self.num_deaths, self.num_parsed = marks, num_deaths, 0

    def parse_prepared(self, picture):
        self.num_parsed += 1
        if self.num_parsed == 3 and len(list(self.marks.iterdir())) < self.num_deaths:
            (self.marks / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().parse_prepared(picture)


@pytest.mark.slow
def test_workers_of_ray_one_of_which_is_killed(parse_many, inputs, tmp_path, monkeypatch, capsys):
    """Complete and equal to one process, byte for byte."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    (tmp_path / "in").mkdir()
    for path in inputs.iterdir():
        (tmp_path / "in" / path.name).symlink_to(path)
    (tmp_path / "in" / "bad.png").touch()
    arguments = [tmp_path / "in", "--save", "json,parts", "--block", 4]
    assert parse_many(*arguments, output=tmp_path / "one") == 1
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.undo()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    dying = functools.partial(DyingPredictor, marks, 1)
    monkeypatch.setattr("aiparsing_d2.inference.ParsingPredictor", dying)
    assert parse_many(*arguments, workers=2) == 1
    assert len(list(marks.iterdir())) == 1
    out, err = capsys.readouterr()
    assert "people in 12 pictures, 1 failed" in out and "bad.png" in err
    assert files_below(tmp_path / "out") == files_below(tmp_path / "one") != {}
    tables = [path / "people.parquet" for path in (tmp_path / "out", tmp_path / "one")]
    contents = [{file.name: file.read_bytes() for file in table.iterdir()} for table in tables]
    assert contents[0] == contents[1] and len(contents[0]) == 4
    # A block that kills each of its workers ends the run.
    dying = functools.partial(DyingPredictor, marks, 99)
    monkeypatch.setattr("aiparsing_d2.inference.ParsingPredictor", dying)
    assert parse_many(inputs / "01.png", *arguments, workers=1, output=tmp_path / "never") == 1
    assert "worker died 4 times" in capsys.readouterr().err
    assert len(list(marks.iterdir())) == 1 + 4
    # And so do results that cannot be written.
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "people.parquet").touch()
    assert parse_many(*arguments, workers=1, output=tmp_path / "full") == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "Ended, since" in message and "0 of 13 pictures done" in message
