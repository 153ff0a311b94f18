"""``doctor``: versions, devices, weights and data sets, and advice on known troubles.

::

    python -m aiparsing_d2 doctor

Every check imports what it needs, so that a broken package costs its own lines only.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import aiparsing_d2

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["Finding", "add_parser", "run"]

_EPILOG = """\
The exit status is 1 if something is broken that the package needs.

example:
  aiparsing doctor
"""

_GIB = 2**30
_LEAST_SHARED_MEMORY = 2 * _GIB
_LEAST_DISK = 5 * _GIB
_LEAST_OPEN_FILES = 1024

# Requirements whose module has another name.
_MODULES = {"opencv-python": "cv2", "Pillow": "PIL"}
_DETECTRON2_MODULES = ("config", "data", "engine", "evaluation", "layers", "modeling")
# Variables that change what the commands do.
_VARIABLES = (
    "AIPARSING_INDEX_CACHE",
    "CUDA_VISIBLE_DEVICES",
    "FVCORE_CACHE",
    "LOCAL_RANK",
    "OMP_NUM_THREADS",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY",
    "PYTHONPATH",
    "RANK",
)

_HEADLESS = "pip install --force-reinstall --no-deps opencv-python-headless"
_INSTALL_DETECTRON2 = "'python tools/install_detectron2.py' in a clone, or build it from source"


class Finding(NamedTuple):
    """A line of the report.

    Attributes:
        name: of what was looked at.
        state: how it is.
        advice: what to do about it, if anything.
        is_broken: whether the package does not work like this.
    """

    name: str
    state: str
    advice: str = ""
    is_broken: bool = False


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser of ``aiparsing``."""
    parser = subparsers.add_parser(
        "doctor",
        help="show versions, devices, weights and data sets; advise on known troubles",
        description="Show versions, devices, weights and data sets; advise on known troubles.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    findings: list[Finding] = []
    for title, check in _CHECKS.items():
        print(f"\n{title}" if findings else title)
        for finding in _guarded(title, check):
            print(f"  {finding.name:<16} {finding.state}{'  <-- broken' * finding.is_broken}")
            findings.append(finding)
    advice = [f"{finding.name}: {finding.advice}" for finding in findings if finding.advice]
    print("\nAdvice" if advice else "\nNothing to advise.")
    for line in advice:
        print(f"  * {line}")
    return int(any(finding.is_broken for finding in findings))


def _guarded(title: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield what a check finds; an error in it is a finding too."""
    try:
        yield from check()
    except Exception as error:  # whatever a broken package raises
        yield Finding(title.lower(), _in_words(error), is_broken=True)


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


# Versions


def _check_versions() -> Iterator[Finding]:
    yield Finding(
        "aiparsing_d2", f"{aiparsing_d2.__version__} in {Path(aiparsing_d2.__file__).parent}"
    )
    yield Finding("python", f"{platform.python_version()}, {platform.platform()}")
    yield from _check_requirements()
    yield from _check_detectron2()
    yield from _check_opencv_wheels()


def _check_requirements() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    try:
        about = metadata.metadata("aiparsing_d2")
    except metadata.PackageNotFoundError:
        yield Finding(
            "requirements",
            "unknown: aiparsing_d2 is found by its path only, not installed",
            "pip install --no-deps --editable . in the clone",
        )
        return
    requirements = [Requirement(text) for text in about.get_all("Requires-Dist") or []]
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _check_requirement(requirement)
    for extra in about.get_all("Provides-Extra") or []:
        missing = [
            requirement.name
            for requirement in requirements
            if requirement.marker
            and not requirement.marker.evaluate({"extra": ""})
            and requirement.marker.evaluate({"extra": extra})
            and _version(requirement.name) is None
        ]
        state = f"without {', '.join(missing)}" if missing else "installed"
        yield Finding(f"extra {extra}", state)


def _check_requirement(requirement: Requirement) -> Finding:
    name, module = requirement.name, _MODULES.get(requirement.name, requirement.name)
    version = _version(name)
    install = _INSTALL_DETECTRON2 if name == "detectron2" else f"pip install '{requirement}'"
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a broken package raises
        state = f"{version or 'not installed'}: {_in_words(error)}"
        return Finding(name, state, _advice_on_import(module, str(error)) or install, True)
    # OpenCV may come from another wheel, Detectron2 from a path: no version to compare.
    if version is None:
        return Finding(name, "there, of another package or by its path")
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(name, f"{version}, but {requirement.specifier} is needed", install, True)
    return Finding(name, version)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _advice_on_import(module: str, message: str) -> str:
    """Return what to do about an error in importing a module, or nothing."""
    if module == "cv2" and ("libGL" in message or "libgthread" in message):
        return f"this OpenCV wants a screen: {_HEADLESS}"
    if module == "torchvision" and "torchvision::" in message:
        return "it was built for another torch: install both by one call of pip"
    if "NumPy 1.x" in message or "numpy.core.multiarray" in message:
        return "it was built for another numpy: install a newer version of it"
    return ""


def _check_detectron2() -> Iterator[Finding]:
    patched = "+aiparsing." in (_version("detectron2") or "")
    try:
        for name in _DETECTRON2_MODULES:
            importlib.import_module(f"detectron2.{name}")
    except Exception as error:  # whatever it raises
        # v0.6 as published does not work with current torch, numpy and Pillow.
        advice = _INSTALL_DETECTRON2.replace(".py'", ".py --force'")
        yield Finding("detectron2", _in_words(error), advice, is_broken=True)
        return
    try:
        importlib.import_module("detectron2._C")
        compiled = "with compiled operators"
    except ImportError:
        compiled = "without compiled operators, which nothing here needs"
    made_by = "v0.6 as tools/install_detectron2.py patches it" if patched else "another build"
    yield Finding("detectron2 is", f"{made_by}, {compiled}")


def _check_opencv_wheels() -> Iterator[Finding]:
    names = {
        (distribution.metadata["Name"] or "").lower(): distribution.version
        for distribution in metadata.distributions()
    }
    wheels = [f"{name} {version}" for name, version in names.items() if name.startswith("opencv")]
    advice = ""
    if len(wheels) > 1:
        advice = (
            "all OpenCV wheels put their files into one folder: the one installed last is used, "
            f"and uninstalling any breaks it. If it breaks: {_HEADLESS}"
        )
    yield Finding("OpenCV wheels", ", ".join(sorted(wheels)) or "none", advice)


# Devices


def _check_devices() -> Iterator[Finding]:
    import torch

    cores = _cores()
    threads = torch.get_num_threads()
    advice = ""
    if threads > cores:
        advice = f"more threads than cores wait for each other: set OMP_NUM_THREADS={cores}"
    yield Finding("CPU", f"{cores} cores for this process, {threads} threads of torch", advice)
    yield _check_pasting()
    if not torch.cuda.is_available():
        yield _explain_no_gpu()
        return
    yield Finding("CUDA", f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    for index in range(torch.cuda.device_count()):
        yield _check_gpu(index)


def _cores() -> int:
    """Return the cores that this process may use, at least 1; containers may allow parts."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(round(int(quota) / int(period)), 1))
    except (OSError, ValueError):  # not in a container, or "max"
        pass
    return cores


def _check_pasting() -> Finding:
    name, version = "part maps", _version("numba")
    if version is None:
        return Finding(name, "on the CPU by numpy; numba (extra fast) makes them in less time")
    loops = importlib.import_module("aiparsing_d2.structures.window_labels").compiled_loops()
    if loops is None:
        return Finding(
            name,
            f"on the CPU by numpy: numba {version} does not work here",
            "install the newest numba that is for your numpy, pip install -U numba",
        )
    return Finding(name, f"on the CPU by loops that numba {version} compiles")


def _explain_no_gpu() -> Finding:
    import torch

    if not (Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi")):
        return Finding("GPU", "none; training and parsing run on the CPU")
    if torch.version.cuda is None:
        return Finding(
            "GPU",
            "not used: this torch is a build for CPUs",
            "install torch and torchvision with CUDA, see pytorch.org",
        )
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return Finding("GPU", "hidden by CUDA_VISIBLE_DEVICES=")
    return Finding(
        "GPU",
        f"a driver is there, but torch (CUDA {torch.version.cuda}) finds no GPU",
        "run nvidia-smi: the driver is older than this CUDA needs, or the container has no GPU",
    )


def _check_gpu(index: int) -> Finding:
    import torch

    name = f"GPU {index}"
    properties = torch.cuda.get_device_properties(index)
    state = f"{properties.name}, compute capability {properties.major}.{properties.minor}"
    try:
        free, total = torch.cuda.mem_get_info(index)
        x = torch.ones(64, 64, device=f"cuda:{index}")
        torch.nn.functional.conv2d(x[None, None], x[None, None, :3, :3]).sum().item()
    except RuntimeError as error:
        return Finding(
            name,
            f"{state}: {str(error).splitlines()[0]}",
            "CUDA_VISIBLE_DEVICES= hides all GPUs. Out of memory: other processes use it. No "
            f"kernel image: this torch is built for {', '.join(torch.cuda.get_arch_list())} only",
            is_broken=True,
        )
    return Finding(name, f"{state}, {free / _GIB:.1f} of {total / _GIB:.1f} GiB free")


# Memory, disks and the environment


def _check_system() -> Iterator[Finding]:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        try:
            memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
        except (OSError, ValueError):  # not in a container, or "max"
            pass
        yield Finding("memory", f"{memory / _GIB:.1f} GiB")
    if os.path.isdir("/dev/shm"):
        size = shutil.disk_usage("/dev/shm").total
        advice = ""
        if size < _LEAST_SHARED_MEMORY:
            advice = (
                "data loaders' workers hand images over in it, and die of a bus error where it is "
                "full: docker run --shm-size=8g, or dataloader.train.num_workers=0"
            )
        yield Finding("/dev/shm", f"{size / _GIB:.2f} GiB", advice)
    for name, folder in (("this folder", os.curdir), ("temporary files", tempfile.gettempdir())):
        free = shutil.disk_usage(folder).free
        advice = "a run keeps several checkpoints here" if name == "this folder" else ""
        yield Finding(
            name,
            f"{os.path.abspath(folder)}, {free / _GIB:.1f} GiB free",
            f"little room: {advice or 'TMPDIR names another folder'}" if free < _LEAST_DISK else "",
        )
    yield from _check_open_files()
    for name in _VARIABLES:
        if name in os.environ:
            yield Finding(name, os.environ[name] or "(empty)")
    if "RANK" in os.environ and "LOCAL_RANK" in os.environ:
        yield Finding(
            "RANK, LOCAL_RANK",
            "set, as by torchrun",
            "a training takes part in torchrun's run; outside of one, unset them",
        )


def _check_open_files() -> Iterator[Finding]:
    try:
        import resource
    except ImportError:  # not a Unix
        return
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    advice = ""
    if 0 <= limit < _LEAST_OPEN_FILES:
        advice = f"workers of data loaders run out of them: ulimit -n {min(hard, 4096)}"
    yield Finding("open files", f"{limit} at most", advice)


# Weights and data


def _check_weights() -> Iterator[Finding]:
    from aiparsing_d2.model_zoo.shipped_weights import find_shipped_weights, list_shipped_weights

    for name in list_shipped_weights():
        try:
            file = find_shipped_weights(name)
        except ValueError as error:
            yield Finding("weights", str(error), is_broken=True)
        else:
            yield Finding("weights", f"{name}, {file.stat().st_size / 2**20:.1f} MiB, unchanged")


def _check_parsing() -> Iterator[Finding]:
    import numpy as np

    from aiparsing_d2.inference import ParsingPredictor

    predictor = ParsingPredictor(device="cpu")
    start = time.perf_counter()
    predictor(np.zeros((240, 320, 3), np.uint8))
    yield Finding("a picture", f"parsed on the CPU in {time.perf_counter() - start:.1f} s")


def _check_data_sets() -> Iterator[Finding]:
    from detectron2.data import DatasetCatalog

    from aiparsing_d2.data.datasets import datasets_root
    from aiparsing_d2.data.datasets.registration import BuiltinSplit

    root = os.path.abspath(datasets_root())
    known = "DETECTRON2_DATASETS" in os.environ
    yield Finding("their folder", root + ("" if known else ", as DETECTRON2_DATASETS is not set"))
    splits = {name: getattr(DatasetCatalog[name], "load", None) for name in DatasetCatalog}
    there = [
        name
        for name, split in splits.items()
        if isinstance(split, BuiltinSplit) and any(map(os.path.isdir, split.folders))
    ]
    yield Finding(
        "data sets",
        ", ".join(sorted(there)) or "none",
        ""
        if there
        else "'python -m aiparsing_d2.drawn_scenes --output datasets/drawn_cihp' draws one; "
        "datasets/README.md tells where others are from, DETECTRON2_DATASETS where they are",
    )


_CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "Versions": _check_versions,
    "Devices": _check_devices,
    "System": _check_system,
    "Weights": _check_weights,
    "Parsing": _check_parsing,
    "Data sets": _check_data_sets,
}
