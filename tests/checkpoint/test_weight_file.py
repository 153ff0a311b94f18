import collections
import re
import types

import numpy as np
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

    for entry in ("model", "state_dict"):
        wrapped = {entry: named, "optimizer": {"state": {}, "lr": 0.1}, "iteration": 7}
        file = read_weights(save(wrapped, tmp_path / "wrapped.pth"))
        assert_tensors(file)
        assert file.other_entries == ("optimizer", "iteration")


def test_a_model_counts_before_a_state_dict(tmp_path):
    both = {"state_dict": {"c": torch.ones(1)}, "model": TENSORS}
    file = read_weights(save(both, tmp_path / "both.pth"))
    assert_tensors(file)
    assert file.other_entries == ("state_dict",)


def by_products():
    momenta = collections.defaultdict(dict, {0: {"momentum": torch.ones(2)}})
    return {
        "scheduler": {"lr": np.float64(0.1), "gamma": np.float32(0.5), "steps": np.int64(3)},
        "milestones": np.array([50, 65]),
        "scores": np.ones((2, 3), dtype=np.float32)[:, ::2],
        "names": np.array(["one", None], dtype=object),
        "nothing": np.array([]),
        "done": np.bool_(True),
        "optimizer": momenta,
        "counts": collections.defaultdict(int, a=1),
        "lists": collections.defaultdict(list, {"a": [1], "b": []}),
        "raw": b"\x80\xff",
    }


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"], ids=["NumPy 1", "NumPy 2"])
def test_by_products_of_training_are_passed_over(tmp_path, core):
    path = tmp_path / "trained.pth"
    # The older format, without checksums, can be changed to what the other NumPy would write.
    torch.save({"model": TENSORS, **by_products()}, path, _use_new_zipfile_serialization=False)
    content, replaced = re.subn(rb"numpy\._?core", core.encode(), path.read_bytes())
    assert replaced >= 2
    path.write_bytes(content)
    file = read_weights(path)
    assert_tensors(file)
    assert file.other_entries == tuple(by_products())


def test_by_products_beside_bare_weights_in_the_present_format(tmp_path):
    weights = collections.defaultdict(list, TENSORS)
    weights.update(by_products())
    file = read_weights(save(weights, tmp_path / "trained.pth"))
    assert_tensors(file)
    assert file.other_entries == tuple(by_products())


def test_what_the_process_allows_stays_as_it_is(tmp_path):
    allowed = list(torch.serialization.get_safe_globals())
    torch.serialization.add_safe_globals([np.dtype, types.SimpleNamespace])
    try:
        before = set(torch.serialization.get_safe_globals())
        # NumPy's own dtype does not get in the way.
        trained = save({"model": TENSORS, **by_products()}, tmp_path / "trained.pth")
        assert_tensors(read_weights(trained))
        assert set(torch.serialization.get_safe_globals()) == before
        config = save({"model": TENSORS, "cfg": types.SimpleNamespace(a=1)}, tmp_path / "cfg.pth")
        with pytest.raises(WeightFileError, match="SimpleNamespace"):
            read_weights(config)
        assert set(torch.serialization.get_safe_globals()) == before
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)


class Calls:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_nothing_of_numpy_is_called(tmp_path):
    # Either of them would raise, or worse, if it were.
    forged = {
        "array": Calls(np.ndarray, "no shape"),
        "dtype": Calls(np.dtype, "no such type"),
    }
    file = read_weights(save({"model": TENSORS, **forged}, tmp_path / "forged.pth"))
    assert_tensors(file)
    for function in (np.fromfile, np.loadtxt, eval):
        path = save({"model": TENSORS, "x": Calls(function, "file")}, tmp_path / "calls.pth")
        with pytest.raises(WeightFileError, match=function.__name__):
            read_weights(path)


def test_what_is_no_tensor_is_named(tmp_path):
    file = read_weights(save({**TENSORS, "epoch": 3}, tmp_path / "a.pth"))
    assert_tensors(file)
    assert file.other_entries == ("epoch",)


def test_reads_the_format_before_torch_1_6(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"model": TENSORS}, path, _use_new_zipfile_serialization=False)
    assert_tensors(read_weights(path))


@pytest.mark.fault("weights or a YAML config from somebody else hold code")
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
