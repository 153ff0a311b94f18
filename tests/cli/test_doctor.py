from __future__ import annotations

import importlib
import os
import shutil
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
import torch

from aiparsing_d2.cli import doctor, main
from aiparsing_d2.model_zoo import shipped_weights
from aiparsing_d2.structures import window_labels


@pytest.fixture
def check(monkeypatch, capsys):
    """Run the command with one section; return its exit status and what it printed."""

    def run(title: str) -> tuple[int, str]:
        monkeypatch.setattr(doctor, "_CHECKS", {title: doctor._CHECKS[title]})
        status = main(["doctor"])
        return status, capsys.readouterr().out

    return run


def test_a_sound_installation(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for name in ("aiparsing_d2", "python", "torch", "torchvision", "detectron2", "numpy", "Pillow"):
        assert f"  {name} " in printed
    assert torch.__version__.partition("+")[0] in printed
    assert "photographs/aiparsing_lite0_FPN_ccp, 9.8 MiB, unchanged" in printed
    assert "parsed on the CPU in " in printed and "broken" not in printed


@pytest.mark.parametrize(
    "module, message, advice",
    [
        ("cv2", "libGL.so.1: cannot open shared object file", "opencv-python-headless"),
        ("torchvision", "operator torchvision::nms does not exist", "one call of pip"),
        ("pycocotools", "numpy.core.multiarray failed to import", "built for another numpy"),
        ("detectron2", "No module named 'detectron2'", "python tools/install_detectron2.py"),
        ("fvcore", "No module named 'fvcore'", "pip install 'fvcore>="),
    ],
)
def test_a_package_that_cannot_be_imported(check, monkeypatch, module, message, advice):
    def import_module(name):
        if name == module:
            raise ImportError(message)
        return imported(name)

    imported = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", import_module)
    status, printed = check("Versions")
    assert status == 1
    (line,) = (line for line in printed.splitlines() if "broken" in line)
    assert f"ImportError: {message}" in line
    assert advice in printed.partition("Advice")[2]


def test_a_detectron2_that_is_too_old_for_what_is_installed(check, monkeypatch):
    def import_module(name):
        if name == "detectron2.data":
            raise AttributeError("module 'PIL.Image' has no attribute 'LINEAR'")
        return imported(name)

    imported = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", import_module)
    status, printed = check("Versions")
    assert status == 1 and "install_detectron2.py --force" in printed


def test_a_package_that_is_too_old(check, monkeypatch):
    version = metadata.version
    old = {"torch": "2.3.1"}
    monkeypatch.setattr(metadata, "version", lambda name: old.get(name) or version(name))
    status, printed = check("Versions")
    assert status == 1
    assert "2.3.1, but >=2.4 is needed  <-- broken" in printed
    assert "* torch: pip install 'torch>=2.4'" in printed


def test_two_wheels_of_opencv(check, monkeypatch):
    Distribution = namedtuple("Distribution", "metadata version")
    wheels = [
        Distribution({"Name": name}, "4.1") for name in ("opencv-python", "opencv-python-headless")
    ]
    monkeypatch.setattr(metadata, "distributions", lambda: wheels)
    status, printed = check("Versions")
    assert status == 0
    assert "opencv-python 4.1, opencv-python-headless 4.1" in printed
    assert "the one installed last is used" in printed


def test_more_threads_than_cores(check, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    status, printed = check("Devices")
    assert status == 0 and "set OMP_NUM_THREADS=" in printed


@pytest.mark.parametrize(
    "cuda, environment, message",
    [
        (None, None, "install torch and torchvision with CUDA"),
        ("13.0", None, "run nvidia-smi"),
        ("13.0", "", "hidden by CUDA_VISIBLE_DEVICES="),
    ],
)
def test_a_gpu_that_torch_does_not_use(check, monkeypatch, cuda, environment, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if environment is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", environment)
    status, printed = check("Devices")
    assert status == 0 and message in printed


def test_little_room(check, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**26, 2**20, 2**20))
    monkeypatch.setattr(os.path, "isdir", lambda path: True)
    status, printed = check("System")
    assert status == 0
    assert "0.06 GiB" in printed and "--shm-size=8g" in printed
    assert "little room: a run keeps several checkpoints here" in printed


def test_variables_of_torchrun_are_told(check, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert "outside of one, unset them" in check("System")[1]


def test_damaged_weights(check, monkeypatch, tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(shipped_weights.FOLDER, folder)
    (file,) = Path(folder).rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    monkeypatch.setattr(shipped_weights.list_shipped_weights, "__defaults__", (folder,))
    monkeypatch.setattr(shipped_weights.find_shipped_weights, "__defaults__", (folder,))
    status, printed = check("Weights")
    assert status == 1 and "Install aiparsing_d2 again" in printed


def test_an_error_in_a_check_is_a_finding(check, monkeypatch):
    def broken():
        raise RuntimeError("no such driver")
        yield

    monkeypatch.setitem(doctor._CHECKS, "Devices", broken)
    status, printed = check("Devices")
    assert status == 1 and "devices          RuntimeError: no such driver  <-- broken" in printed


@pytest.mark.parametrize(
    "version, loops, words",
    [
        (None, None, "on the CPU by numpy; numba (extra fast)"),
        ("0.60", None, "on the CPU by numpy: numba 0.60 does not work here"),
        ("0.68.1", window_labels, "by loops that numba 0.68.1 compiles"),
    ],
)
def test_how_part_maps_are_made(monkeypatch, version, loops, words):
    monkeypatch.setattr(doctor, "_version", lambda name: version)
    monkeypatch.setattr(window_labels, "compiled_loops", lambda: loops)
    finding = doctor._check_pasting()
    assert words in finding.state and not finding.is_broken
    assert bool(finding.advice) == ("not work" in words)
