"""What the checkpointer writes is whole, and what it reads runs no code."""

from __future__ import annotations

import builtins
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from aiparsing_d2.checkpoint import ParsingCheckpointer, WeightFileError
from aiparsing_d2.checkpoint.unpickling import finished, load_arrays


@pytest.mark.fault("SIGKILL, loss of power, at any moment, inside a write too")
def test_a_checkpoint_is_named_after_it_is_written(tmp_path, monkeypatch):
    """Every state of the folder that a kill could leave is seen from inside the writes."""
    checkpointer = ParsingCheckpointer(nn.Linear(2, 2), str(tmp_path))
    checkpointer.save("model_0", iteration=0)
    first = (tmp_path / "model_0.pth").read_bytes()
    seen, replace, fsync = [], os.replace, os.fsync

    def look(step):
        record = (tmp_path / "last_checkpoint").read_text()
        names = {file.name for file in tmp_path.iterdir() if file.suffix == ".pth"}
        assert record in names
        seen.append((step, record, torch.load(tmp_path / record)["iteration"]))

    monkeypatch.setattr(os, "fsync", lambda file: (fsync(file), look("flushed")))
    monkeypatch.setattr(os, "replace", lambda a, b: (look("written"), replace(a, b)))
    checkpointer.save("model_1", iteration=1)
    # The checkpoint: flushed, about to be named, its name flushed; then the record likewise.
    assert [record for _, record, _ in seen] == ["model_0.pth"] * 5 + ["model_1.pth"]
    assert [step for step, _, _ in seen] == ["flushed", "written", "flushed"] * 2
    assert (tmp_path / "model_0.pth").read_bytes() == first
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.fault("the disk is full, or cannot be written")
def test_a_full_disk_leaves_what_was_there_and_names_the_file(tmp_path, monkeypatch):
    checkpointer = ParsingCheckpointer(nn.Linear(2, 2), str(tmp_path))
    checkpointer.save("model_final")
    before = (tmp_path / "model_final.pth").read_bytes()

    def no_room(content, file):
        file.write(b"half")
        raise RuntimeError("enforce fail") from OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", no_room)
    with pytest.raises(OSError, match="model_final.pth cannot be written"):
        checkpointer.save("model_final")
    assert {file.name for file in tmp_path.iterdir()} == {"last_checkpoint", "model_final.pth"}
    assert (tmp_path / "model_final.pth").read_bytes() == before


class Python2Pickler(pickle._Pickler):
    """Writes bytes as the text of Python 2."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_text(self, content):
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(content)

    dispatch[bytes] = save_text


ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "float16": np.array([1.5, np.nan], np.float16),
    "big_endian": np.array([1.0, 2.0], ">f8"),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "strided": np.arange(10, dtype=np.uint8)[::3],
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 4), np.int16),
    "number": np.array(7.0),
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5, "Python 2"])
def test_pickled_arrays_are_read_as_pickle_reads_them(tmp_path, protocol):
    content = {"model": ARRAYS, "lr": np.float64(0.1), "list": [(1, "é"), b"\x80", None]}
    path = tmp_path / "weights.pkl"
    with open(path, "wb") as file:
        if protocol == "Python 2":
            Python2Pickler(file, 2).dump(content | {"list": []})
        else:
            pickle.dump(content, file, protocol)
    with open(path, "rb") as file:
        expected = pickle.load(file, encoding="latin1")
    read = load_arrays(path)
    assert read["list"] == expected["list"] and finished(read["lr"]) == 0.1
    for name, array in ARRAYS.items():
        found = finished(read["model"][name])
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype and found.shape == array.shape


@pytest.mark.parametrize(
    "content",
    [
        lambda weights: {"model": weights, "__author__": "somebody", "matching_heuristics": True},
        lambda weights: {"blobs": weights | {"weight_momentum": np.ones(3)}},
        lambda weights: weights,
    ],
    ids=["Detectron2", "Detectron", "ImageNet"],
)
def test_pickled_weights_load_as_detectron2_loads_them(tmp_path, content):
    weights = {"weight": np.arange(6.0, dtype=np.float32).reshape(3, 2), "bias": np.ones(3)}
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(content(weights)))
    models = [nn.Linear(2, 3) for _ in range(2)]
    for model, checkpointer in zip(models, (DetectionCheckpointer, ParsingCheckpointer)):
        checkpointer(model).load(str(path))
    assert models[0].weight.equal(models[1].weight) and models[0].bias.equal(models[1].bias)
    assert models[1].weight.flatten().tolist() == [0, 1, 2, 3, 4, 5]


class Call:
    """Unpickled, calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.fault("weights or a YAML config from somebody else hold code")
@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".pyth"])
@pytest.mark.parametrize("place", ["model", "elsewhere"])
def test_weights_run_no_code(tmp_path, suffix, place):
    mark = tmp_path / "ran"
    evil = Call(os.mkdir, str(mark))
    path = tmp_path / f"evil{suffix}"
    content = {"model": {"a": evil}, "__author__": "x"} if place == "model" else {"a": evil}
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(WeightFileError, match=f"evil{suffix}.*might run code"):
        ParsingCheckpointer(nn.Linear(1, 1)).load(str(path))
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        Call(builtins.eval, "1"),
        Call(np.load, "x"),
        np.array([1, None], dtype=object),
        np.zeros(2, dtype=[("a", "O")]),
        np.array(["text"]),
    ],
    ids=lambda content: getattr(content, "dtype", "call") and type(content).__name__,
)
def test_no_other_objects_are_unpickled(tmp_path, content):
    path = tmp_path / "weights.pkl"
    for protocol in (2, 4, 5):
        path.write_bytes(pickle.dumps({"a": content}, protocol))
        with pytest.raises(pickle.UnpicklingError):
            load_arrays(path)


def test_what_is_no_pickle_is_told_with_its_name(tmp_path):
    path = tmp_path / "weights.pkl"
    whole = pickle.dumps({"weight": np.ones((3, 2), np.float32)})
    for content in (b"", b"text", whole[:-20], pickle.dumps([1])):
        path.write_bytes(content)
        with pytest.raises(WeightFileError, match="weights.pkl"):
            ParsingCheckpointer(nn.Linear(2, 3)).load(str(path))
