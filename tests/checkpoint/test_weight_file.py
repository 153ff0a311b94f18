import collections
import types

import pytest
import torch

from aiparsing_d2.checkpoint import WeightFileError, read_weights, write_weights

TENSORS = {"a.weight": torch.arange(3.0), "b": torch.ones(2, 2)}


def save(content, path):
    torch.save(content, path)
    return path


def assert_tensors(file):
    assert list(file.tensors) == list(TENSORS)
    assert all(torch.equal(file.tensors[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_reads_bare_and_wrapped_weights(tmp_path, prefix):
    named = collections.OrderedDict((prefix + name, t) for name, t in TENSORS.items())
    file = read_weights(save(named, tmp_path / "bare.pth"))
    assert_tensors(file)
    assert file.other_entries == () and file.path == tmp_path / "bare.pth"

    wrapped = {"model": named, "optimizer": {"state": {}, "lr": 0.1}, "iteration": 7}
    file = read_weights(save(wrapped, tmp_path / "wrapped.pth"))
    assert_tensors(file)
    assert file.other_entries == ("optimizer", "iteration")


def test_what_is_no_tensor_is_named(tmp_path):
    file = read_weights(save({**TENSORS, "epoch": 3}, tmp_path / "a.pth"))
    assert_tensors(file)
    assert file.other_entries == ("epoch",)


def test_reads_the_format_before_torch_1_6(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"model": TENSORS}, path, _use_new_zipfile_serialization=False)
    assert_tensors(read_weights(path))


def test_objects_are_refused_without_running_them(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    for content in ({"model": TENSORS, "hook": Bomb()}, {"cfg": types.SimpleNamespace(a=1)}):
        path = save(content, tmp_path / "objects.pth")
        with pytest.raises(WeightFileError, match="more than tensors and plain Python objects"):
            read_weights(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"PK\x03\x04 a broken zip archive" * 10]
)
def test_broken_files_are_named(tmp_path, content):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=r"broken\.pth"):
        read_weights(path)


def test_a_file_cut_short_is_named(tmp_path):
    path = save(TENSORS, tmp_path / "cut.pth")
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(WeightFileError, match=r"cut\.pth"):
        read_weights(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        read_weights(tmp_path / "none.pth")


@pytest.mark.parametrize(
    "content, message",
    [
        ([torch.ones(1)], "holds a list"),
        ({"model": {}, "epoch": 1}, "no tensors.*entries are epoch"),
        ({}, r"no tensors.*\(none\)"),
        ({"a": torch.ones(1), "module.a": torch.ones(1)}, "holds a both with and without"),
    ],
)
def test_files_without_weights_are_refused(tmp_path, content, message):
    with pytest.raises(WeightFileError, match=message):
        read_weights(save(content, tmp_path / "file.pth"))


def test_written_weights_are_read_back_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "weights.pth"
    write_weights(path, TENSORS)
    assert_tensors(read_weights(path))
    assert [file.name for file in path.parent.iterdir()] == ["weights.pth"]
