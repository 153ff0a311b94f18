#!/usr/bin/env python3
"""Install Detectron2 v0.6 as a pure-Python package: with pip alone, without a compiler.

Detectron2 is not on the Python package index under its own name, and its authors' wheels stop at
torch 1.10. The index does have ``pb1-detectron2`` 0.6: v0.6's Python sources and model-zoo configs
without the C++ sources, so that building it fails. This script makes a working wheel of it:

1. obtain that source archive through pip (so that pip's own index, proxy and certificate settings
   count) or from ``--sdist FILE``, and check its SHA-256;
2. apply ``EDITS``, which make v0.6 run without ``detectron2._C`` and with current torch, numpy and
   Pillow. An edit whose target text is not there stops the installation;
3. pack a wheel ``detectron2 0.6+aiparsing.*`` and install it, with its requirements, through pip;
4. check that the installed package imports.

Without ``detectron2._C`` there are no rotated boxes and no deformable convolution, and COCO
evaluation uses pycocotools. A Detectron2 that can be imported already is kept; ``--force``
replaces it. Only the standard library is needed here, but torch and torchvision must be installed
before: which build of them is wanted depends on the machine.
"""

import argparse
import base64
import errno
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import zipfile
from pathlib import Path
from typing import NamedTuple

if sys.version_info < (3, 10):  # noqa: UP036  (here: older Pythons stop at the annotations below)
    sys.exit(
        "install_detectron2: error: Python 3.10 or newer is needed, this is Python "
        f"{sys.version_info[0]}.{sys.version_info[1]} ({sys.executable})"
    )

SDIST_REQUIREMENT = "pb1-detectron2==0.6"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"

# Small projects which Detectron2's own setup.py installs below detectron2.projects.
PACKAGED_PROJECTS = {
    "projects/PointRend/point_rend/": "detectron2/projects/point_rend/",
    "projects/DeepLab/deeplab/": "detectron2/projects/deeplab/",
    "projects/Panoptic-DeepLab/panoptic_deeplab/": "detectron2/projects/panoptic_deeplab/",
}

# v0.6's requirements without black, future, pydot and dataclasses, which nothing here imports;
# with the iopath releases and below the omegaconf release that it works with (hydra-core 1.3 needs
# omegaconf < 2.4), and with what its code imports but never declared. torch and torchvision are
# left to the user, as v0.6 does.
REQUIREMENTS = (
    "Pillow>=7.1",
    "cloudpickle",
    "fvcore>=0.1.5,<0.1.6",
    "hydra-core>=1.1",
    "iopath>=0.1.7,<0.1.11",
    "matplotlib",
    "numpy",
    "omegaconf>=2.1,<2.4",
    "packaging",
    "pycocotools>=2.0.2",
    "shapely",  # fvcore crops polygons with it
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
)

IMPORTS_TO_VERIFY = (
    "detectron2.config",
    "detectron2.layers",
    "detectron2.modeling",
    "detectron2.evaluation",
    "detectron2.engine",
    "detectron2.export",
    "detectron2.model_zoo",
)


class InstallError(Exception):
    """Says in one line what is wrong and what to do about it."""


class Replacement(NamedTuple):
    """Text to replace in one file of the source archive.

    Attributes:
        path: the file, e.g. ``detectron2/layers/mask_ops.py``.
        old: what must occur there exactly ``count`` times.
        new: what takes its place, each time.
        count: the number of occurrences.
    """

    path: str
    old: str
    new: str
    count: int = 1


class Edit(NamedTuple):
    """A change to the source archive.

    Attributes:
        name: short name, for error messages and for the notice in the changed files.
        why: what goes wrong without it.
        replacements: the change, to be made in this order.
    """

    name: str
    why: str
    replacements: tuple[Replacement, ...]


EDITS = (
    # What it takes to be imported.
    Edit(
        "optional-compiled-ops",
        "importing detectron2.layers needs the compiled operators",
        tuple(
            Replacement(
                path,
                "from detectron2 import _C\n",
                """\
try:
    from detectron2 import _C
except ImportError:
    from .missing_ops import _C
""",
            )
            for path in (
                "detectron2/layers/deform_conv.py",
                "detectron2/layers/roi_align_rotated.py",
                "detectron2/layers/rotated_boxes.py",
            )
        ),
    ),
    Edit(
        "optional-fast-coco-eval",
        "COCO evaluation needs compiled code even where pycocotools would do",
        (
            Replacement(
                "detectron2/evaluation/coco_evaluation.py",
                "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
                "",
            ),
            Replacement(
                "detectron2/evaluation/coco_evaluation.py",
                "from .evaluator import DatasetEvaluator\n",
                """\
from .evaluator import DatasetEvaluator

try:
    from detectron2.evaluation.fast_eval_api import COCOeval_opt
except ImportError:
    COCOeval_opt = COCOeval
""",
            ),
            Replacement(  # so that the log names the one that is used
                "detectron2/evaluation/coco_evaluation.py",
                "        self._use_fast_impl = use_fast_impl\n",
                "        self._use_fast_impl = use_fast_impl and COCOeval_opt is not COCOeval\n",
            ),
        ),
    ),
    Edit(
        "optional-caffe2",
        "importing detectron2.export needs caffe2, which is no longer a part of torch",
        (
            Replacement(
                "detectron2/export/__init__.py",
                "from .api import *\nfrom .flatten import TracingAdapter\n",
                """\
try:
    from .api import *
except ImportError:  # no caffe2 or no onnx
    pass
from .flatten import TracingAdapter
""",
            ),
        ),
    ),
    Edit(
        "importlib-resources",
        "setuptools 82 removed pkg_resources",
        (
            Replacement(
                "detectron2/model_zoo/model_zoo.py",
                "from typing import Optional\nimport pkg_resources\n",
                "from importlib import resources\nfrom typing import Optional\n",
            ),
            Replacement(
                "detectron2/model_zoo/model_zoo.py",
                """\
    cfg_file = pkg_resources.resource_filename(
        "detectron2.model_zoo", os.path.join("configs", config_path)
    )
""",
                """\
    cfg_file = str(resources.files("detectron2.model_zoo").joinpath("configs", config_path))
""",
            ),
        ),
    ),
    Edit(
        "importlib-submodules",
        "`import importlib` alone does not load the submodules that are used",
        (
            Replacement(
                "detectron2/projects/__init__.py",
                "import importlib\n",
                "import importlib.abc\nimport importlib.util\n",
            ),
            Replacement(
                "detectron2/utils/collect_env.py",
                "import importlib\n",
                "import importlib.util\n",
            ),
        ),
    ),
    Edit(
        "pillow-linear",
        "Pillow 10 removed Image.LINEAR, which was another name of BILINEAR",
        (
            Replacement(
                "detectron2/data/transforms/transform.py",
                "interp=Image.LINEAR,",
                "interp=Image.BILINEAR,",
            ),
        ),
    ),
    # What it takes to run.
    Edit(
        "numpy-aliases",
        "numpy 1.24 removed its aliases of Python's own types",
        (
            Replacement("detectron2/structures/masks.py", "np.bool)", "bool)", count=3),
            Replacement("detectron2/data/build.py", "dtype=np.int\n", "dtype=int\n"),
            Replacement("detectron2/data/build.py", "dtype=np.int)", "dtype=int)"),
            Replacement("detectron2/data/datasets/pascal_voc.py", "np.str)", "str)"),
            Replacement(
                "detectron2/evaluation/pascal_voc_evaluation.py", "np.bool)", "bool)", count=2
            ),
            Replacement("detectron2/evaluation/sem_seg_evaluation.py", "np.int)", "int)", count=2),
            Replacement(
                "detectron2/evaluation/sem_seg_evaluation.py", "np.float)", "float)", count=5
            ),
            Replacement("detectron2/utils/visualizer.py", "np.bool)", "bool)", count=3),
            Replacement("detectron2/utils/video_visualizer.py", "np.bool)", "bool)"),
        ),
    ),
    Edit(
        "numpy-copy",
        "numpy 2 refuses copy=False where a copy is needed",
        (
            Replacement(
                "detectron2/layers/mask_ops.py",
                "mask = np.array(mask, copy=False)",
                "mask = np.asarray(mask)",
            ),
        ),
    ),
    Edit(
        "sample-from-set",
        "random.sample takes no sets since Python 3.11",
        (
            Replacement(
                "detectron2/data/common.py",
                "self._rng.sample(self._fallback_candidates, k=1)[0]",
                "self._rng.sample(list(self._fallback_candidates), k=1)[0]",
            ),
        ),
    ),
    Edit(
        "lr-scheduler-base",
        "since torch 2.0 torch's schedulers are no longer instances of _LRScheduler, so that their "
        "state is left out of checkpoints",
        (
            Replacement(
                "detectron2/solver/lr_scheduler.py",
                "logger = logging.getLogger(__name__)\n",
                """\
try:
    from torch.optim.lr_scheduler import LRScheduler
except ImportError:  # torch < 2.0
    from torch.optim.lr_scheduler import _LRScheduler as LRScheduler

logger = logging.getLogger(__name__)
""",
            ),
            Replacement(
                "detectron2/solver/lr_scheduler.py",
                "(torch.optim.lr_scheduler._LRScheduler):",
                "(LRScheduler):",
                count=3,
            ),
            Replacement(
                "detectron2/solver/build.py",
                "from .lr_scheduler import LRMultiplier, WarmupParamScheduler\n",
                "from .lr_scheduler import LRMultiplier, LRScheduler, WarmupParamScheduler\n",
            ),
            Replacement(
                "detectron2/solver/build.py",
                ") -> torch.optim.lr_scheduler._LRScheduler:",
                ") -> LRScheduler:",
            ),
            Replacement(
                "detectron2/engine/hooks.py",
                "from detectron2.solver import LRMultiplier\n",
                """\
from detectron2.solver import LRMultiplier
from detectron2.solver.lr_scheduler import LRScheduler as _LRScheduler
""",
            ),
            Replacement(
                "detectron2/engine/hooks.py",
                "isinstance(self.scheduler, torch.optim.lr_scheduler._LRScheduler)",
                "isinstance(self.scheduler, _LRScheduler)",
                count=2,
            ),
        ),
    ),
    Edit(
        "clip-unused-parameters",
        "current torch raises on clipping a parameter without gradient by value",
        (
            Replacement(
                "detectron2/solver/build.py",
                """\
                for p in group["params"]:
                    per_param_clipper(p)
""",
                """\
                for p in group["params"]:
                    if p.grad is not None:
                        per_param_clipper(p)
""",
            ),
        ),
    ),
    Edit(
        "group-norm-head",
        "torch 1.12 refuses 32 groups of 1 channel, so that no dense head can have norm='GN'",
        (
            Replacement(
                "detectron2/modeling/meta_arch/retinanet.py",
                "norm_name = str(type(get_norm(norm, 1)))",
                "norm_name = str(type(get_norm(norm, 32)))",
            ),
        ),
    ),
    Edit(
        "fcos-without-ground-truth",
        "training crashes on an image without objects",
        (
            Replacement(
                "detectron2/modeling/meta_arch/fcos.py",
                """\
        for gt_per_image in gt_instances:
            gt_centers =""",
                """\
        for gt_per_image in gt_instances:
            if len(gt_per_image) == 0:
                matched_indices.append(
                    torch.full((len(anchors),), -1, dtype=torch.long, device=anchors.device)
                )
                continue
            gt_centers =""",
            ),
            Replacement(
                "detectron2/modeling/meta_arch/fcos.py",
                """\
        for gt_index, gt_per_image in zip(matched_indices, gt_instances):
            label =""",
                """\
        for gt_index, gt_per_image in zip(matched_indices, gt_instances):
            if len(gt_per_image) == 0:
                matched_labels.append(torch.full_like(gt_index, self.num_classes))
                matched_boxes.append(Boxes(torch.zeros_like(Boxes.cat(anchors).tensor)))
                continue
            label =""",
            ),
        ),
    ),
    Edit(
        "meshgrid-indexing",
        "torch warns in every run that it will require the argument",
        (
            Replacement(
                "detectron2/modeling/anchor_generator.py",
                "torch.meshgrid(shifts_y, shifts_x)",
                'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
            ),
        ),
    ),
    Edit(
        "launch-on-cpu",
        "several processes train on GPUs only",
        (
            Replacement(
                "detectron2/engine/launch.py",
                """\
    assert torch.cuda.is_available(), "cuda is not available. Please check your installation."
""",
                """\
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        assert num_gpus_per_machine <= torch.cuda.device_count()
""",
            ),
            Replacement(
                "detectron2/engine/launch.py",
                'backend="NCCL",',
                'backend="NCCL" if has_gpu else "GLOO",',
            ),
            Replacement(
                "detectron2/engine/launch.py",
                """\
    assert num_gpus_per_machine <= torch.cuda.device_count()
    torch.cuda.set_device(local_rank)
""",
                """\
    if has_gpu:
        torch.cuda.set_device(local_rank)
""",
            ),
            Replacement(
                "detectron2/engine/defaults.py",
                '    if "device_ids" not in kwargs:\n',
                '    if "device_ids" not in kwargs and next(model.parameters()).is_cuda:\n',
            ),
        ),
    ),
    Edit(
        "gather-bytes",
        "torch warns in every distributed run that it will remove typed storages",
        (
            Replacement(
                "detectron2/utils/comm.py",
                """\
    storage = torch.ByteStorage.from_buffer(buffer)
    tensor = torch.ByteTensor(storage).to(device=device)
""",
                """\
    tensor = torch.frombuffer(bytearray(buffer), dtype=torch.uint8).to(device=device)
""",
            ),
        ),
    ),
    Edit(
        "color-range",
        "rounding can take a brightened color out of [0, 1], which matplotlib refuses",
        (
            Replacement(
                "detectron2/utils/visualizer.py",
                "        return modified_color\n",
                "        return tuple(np.clip(modified_color, 0.0, 1.0))\n",
            ),
        ),
    ),
    Edit(
        "environment-report",
        "a pure-Python build is reported as a failed one, with compilers that played no part",
        (
            Replacement(
                "detectron2/utils/collect_env.py",
                """\
    except ImportError as e:
        data.append(("detectron2._C", f"not built correctly: {e}"))
""",
                """\
    except ModuleNotFoundError:
        data.append(("detectron2._C", "absent: pure-Python build, made by aiparsing_d2"))
    except ImportError as e:
        data.append(("detectron2._C", f"not built correctly: {e}"))
""",
            ),
        ),
    ),
)

ADDED_FILES = {
    "detectron2/layers/missing_ops.py": '''\
"""Stands in for ``detectron2._C``, which a pure-Python build does not have."""


class _MissingOps:
    def __getattr__(self, name):
        raise AttributeError(
            f"detectron2._C.{name} is a compiled operator and this detectron2 is a pure-Python "
            "build: rotated boxes and deformable convolution need detectron2 built from source"
        )


_C = _MissingOps()
''',
}


def apply_edits(sources: dict[str, bytes], edits: tuple[Edit, ...] = EDITS) -> dict[str, bytes]:
    """Apply edits to source files.

    Args:
        sources: file contents by path inside the source archive.
        edits: what to change, in this order.

    Returns:
        All of ``sources``, changed where an edit says so. A changed file starts with a notice.

    Raises:
        InstallError: a file or a target text is missing, or occurs more often than expected.
    """
    texts: dict[str, str] = {}
    notices: dict[str, list[str]] = {}
    for edit in edits:
        for path, old, new, count in edit.replacements:
            if path not in sources:
                raise InstallError(f"{path}: not in the source archive (edit '{edit.name}')")
            text = texts.get(path, sources[path].decode("utf-8"))
            found = text.count(old)
            if found != count:
                raise InstallError(
                    f"{path}: edit '{edit.name}' expects {count} x {old!r}, found {found}"
                )
            texts[path] = text.replace(old, new)
            names = notices.setdefault(path, [])
            if edit.name not in names:
                names.append(edit.name)
    edited = dict(sources)
    for path, text in texts.items():
        notice = f"# Changed by aiparsing_d2's install_detectron2.py: {', '.join(notices[path])}\n"
        edited[path] = (notice + text).encode("utf-8")
    return edited


def wheel_version() -> str:
    """Return the wheel's version: Detectron2's, and a digest of everything changed here.

    The digest makes a wheel with other edits another version, so that pip replaces the older one.
    """
    content = repr((SDIST_SHA256, PACKAGED_PROJECTS, REQUIREMENTS, EDITS, ADDED_FILES))
    return f"0.6+aiparsing.h{hashlib.sha256(content.encode('utf-8')).hexdigest()[:8]}"


def read_sdist(path: Path) -> dict[str, bytes]:
    """Read a source archive after checking its SHA-256.

    Args:
        path: the ``.tar.gz`` file.

    Returns:
        Contents of its regular files by path without the archive's top folder.

    Raises:
        InstallError: the file is not the expected archive.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SDIST_SHA256:
        raise InstallError(
            f"{path.name}: wrong SHA-256 {digest}, expected {SDIST_SHA256}: nothing was installed"
        )
    sources = {}
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            if member.isfile():
                sources[member.name.split("/", 1)[1]] = archive.extractfile(member).read()
    return sources


def build_wheel(sources: dict[str, bytes], wheel_dir: Path) -> Path:
    """Pack edited sources into a wheel.

    Args:
        sources: file contents by path inside the source archive, from :func:`apply_edits`.
        wheel_dir: existing folder to put the wheel into.

    Returns:
        Path of the wheel. It appears under this name only when it is complete.
    """
    version = wheel_version()
    packaged = {path: text.encode("utf-8") for path, text in ADDED_FILES.items()}
    for path, content in sources.items():
        if path.startswith("detectron2/"):
            packaged[path] = content
        for folder, package in PACKAGED_PROJECTS.items():
            if path.startswith(folder):
                packaged[package + path[len(folder) :]] = content

    dist_info = f"detectron2-{version}.dist-info"
    packaged[f"{dist_info}/METADATA"] = "\n".join(
        [
            "Metadata-Version: 2.1",
            "Name: detectron2",
            f"Version: {version}",
            "Summary: Detectron2 v0.6, pure Python, changed to run with current torch and numpy",
            "Home-page: https://github.com/facebookresearch/detectron2",
            "Author: FAIR",
            "License: Apache-2.0",
            "Requires-Python: >=3.10",
            *(f"Requires-Dist: {requirement}" for requirement in REQUIREMENTS),
            "",
        ]
    ).encode("utf-8")
    packaged[f"{dist_info}/WHEEL"] = (
        b"Wheel-Version: 1.0\n"
        b"Generator: aiparsing_d2 install_detectron2\n"
        b"Root-Is-Purelib: true\n"
        b"Tag: py3-none-any\n"
    )
    packaged[f"{dist_info}/top_level.txt"] = b"detectron2\n"
    packaged[f"{dist_info}/LICENSE"] = sources["LICENSE"]
    packaged[f"{dist_info}/CHANGES"] = "".join(
        f"{edit.name}: {edit.why}\n"
        + "".join(f"    {path}\n" for path in dict.fromkeys(r.path for r in edit.replacements))
        for edit in EDITS
    ).encode("utf-8")

    record = f"{dist_info}/RECORD"
    lines = []
    for path, content in sorted(packaged.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
        lines.append(f"{path},sha256={digest.decode('ascii')},{len(content)}\n")
    packaged[record] = ("".join(lines) + f"{record},,\n").encode("utf-8")

    wheel = wheel_dir / f"detectron2-{version}-py3-none-any.whl"
    partial = wheel.with_suffix(".partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in packaged.items():
                # A fixed date, the earliest that zip knows: equal inputs give equal wheels.
                info = zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o100644 << 16
                archive.writestr(info, content)
        partial.replace(wheel)
    finally:
        partial.unlink(missing_ok=True)
    return wheel


# What pip prints, in the order in which to look for it, and what to say instead.
_PIP_FAILURES = (
    (
        r"DO NOT MATCH THE HASHES",
        "the index served another file than expected: wrong SHA-256, nothing was installed",
    ),
    (r"No space left on device|Errno 28\b|Disk quota exceeded", "no space left on the disk"),
    (r"No module named '?pip\b", "this Python has no pip: run '{python} -m ensurepip' first"),
    (
        r"Failed to establish a new connection|NewConnectionError|Max retries exceeded|"
        r"ConnectTimeoutError|ReadTimeoutError|Read timed out|ProxyError|SSLError|"
        r"Connection (?:refused|reset|aborted|broken)|Temporary failure in name resolution",
        "the package index cannot be reached: check the network and pip's index, proxy and "
        "certificate settings, then run this again",
    ),
    (r"externally-managed-environment", "this Python takes no packages: use a virtual environment"),
    (r"Permission denied|Errno 13\b", "no permission to write into this Python's packages"),
)


def explain_pip_failure(output: str) -> str:
    """Say in one line why pip failed, from what it printed."""
    for pattern, explanation in _PIP_FAILURES:
        if re.search(pattern, output):
            return explanation.format(python=sys.executable)
    errors = [line for line in output.splitlines() if line.lstrip().startswith("ERROR:")]
    lines = errors or [line for line in output.splitlines() if line.strip()] or ["no output"]
    return f"pip says: {lines[-1].strip()}"


def run_pip(
    task: str,
    arguments: list[str],
    environment: dict[str, str] | None = None,
    quiet: bool = False,
) -> None:
    """Run this Python's pip.

    Args:
        task: what it is for, e.g. "downloading x"; starts the error message.
        arguments: pip's command line.
        environment: environment variables to add.
        quiet: keep pip's output back. Else it is shown as it comes.

    Raises:
        InstallError: pip failed.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "pip", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **(environment or {})},
        encoding="utf-8",
        errors="replace",
    )
    output = []
    with process:
        for line in process.stdout:
            output.append(line)
            if not quiet:
                print(line, end="", flush=True)
    if process.returncode != 0:
        raise InstallError(f"{task}: {explain_pip_failure(''.join(output))}")


# pip prepares the metadata of every source archive that it downloads, by means of setuptools and
# the archive's setup.py, which needs torch. This stands in for setuptools meanwhile (it is what
# PEP 517 asks of a build backend), so that the download needs neither and runs no foreign code.
_METADATA_BACKEND = """\
import os
import sys


def get_requires_for_build_wheel(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name, version = os.environ["SDIST_REQUIREMENT"].split("==")
    dist_info = "{}-{}.dist-info".format(name.replace("-", "_"), version)
    os.mkdir(os.path.join(metadata_directory, dist_info))
    with open(os.path.join(metadata_directory, dist_info, "METADATA"), "w") as f:
        f.write("Metadata-Version: 2.1\\nName: {}\\nVersion: {}\\n".format(name, version))
    return dist_info


__legacy__ = sys.modules[__name__]  # the attribute that pip asks for
"""


def download_sdist(folder: Path) -> Path:
    """Download the source archive through pip, which checks its hash.

    Args:
        folder: an existing folder for the archive and for pip's intermediate files.

    Returns:
        Path of the archive.

    Raises:
        InstallError: pip failed.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{SDIST_REQUIREMENT} --hash=sha256:{SDIST_SHA256}\n", encoding="ascii")
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(_METADATA_BACKEND, encoding="ascii")
    python_path = [str(backend.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    run_pip(
        f"downloading {SDIST_REQUIREMENT}",
        ["download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
        + ["--dest", str(folder), "--requirement", str(requirements)],
        environment={
            "PIP_USE_PEP517": "1",
            "PYTHONPATH": os.pathsep.join(python_path),
            "SDIST_REQUIREMENT": SDIST_REQUIREMENT,
            "SETUPTOOLS_USE_DISTUTILS": "stdlib",  # an installed setuptools loads no stand-in
        },
        quiet=True,
    )
    (archive,) = folder.glob("*.tar.gz")
    return archive


def run_python(code: str) -> subprocess.CompletedProcess:
    """Run code in a fresh process of this Python, outside of the current folder."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )


class Installed(NamedTuple):
    """An importable Detectron2: its version, with the local part, and its folder."""

    version: str
    folder: str


def find_installed() -> Installed | None:
    """Find the Detectron2 that a fresh process of this Python imports, if any."""
    found = run_python(
        """
        import importlib.metadata, pathlib
        import detectron2

        version, file = detectron2.__version__, pathlib.Path(detectron2.__file__)
        for distribution in importlib.metadata.distributions(name="detectron2"):
            # What is imported can come from elsewhere, e.g. from PYTHONPATH.
            if pathlib.Path(distribution.locate_file("detectron2/__init__.py")) == file:
                version = distribution.version
        print(version, file.parent, sep="\\n")
        """
    )
    return Installed(*found.stdout.splitlines()[-2:]) if found.returncode == 0 else None


def verify_imports() -> None:
    """Import the installed package's important modules in a fresh process.

    Raises:
        InstallError: one of them cannot be imported.
    """
    imported = run_python("import " + ", ".join(IMPORTS_TO_VERIFY))
    if imported.returncode != 0:
        reason = (imported.stderr.strip() or "no message").splitlines()[-1]
        raise InstallError(f"detectron2 does not import: {reason}")


def install_wheel(wheel: Path, installed_version: str | None) -> None:
    """Install a wheel and its requirements, replacing any other version.

    Args:
        wheel: the wheel's path.
        installed_version: the version that is installed now, if any.

    Raises:
        InstallError: pip failed, or the package does not import. Then it is uninstalled again.
    """
    run_pip("installing detectron2", ["install", str(wheel)])
    if installed_version == wheel_version():  # pip just left it as it was
        run_pip(
            "reinstalling detectron2",
            ["install", "--no-deps", "--force-reinstall", str(wheel)],
        )
    try:
        verify_imports()
    except InstallError:
        run_pip("uninstalling detectron2", ["uninstall", "--yes", "detectron2"])
        raise


def install(sdist: Path | None, wheel_dir: Path | None, force: bool) -> None:
    """Build the wheel and, unless ``wheel_dir`` is given, install it.

    Args:
        sdist: the source archive; None downloads it.
        wheel_dir: build only, into this folder.
        force: replace an importable Detectron2.

    Raises:
        InstallError: something went wrong that the user can do something about.
    """
    installed_version = None
    if wheel_dir is None:
        missing = [m for m in ("torch", "torchvision") if importlib.util.find_spec(m) is None]
        if missing:
            raise InstallError(
                f"{' and '.join(missing)} must be installed first, "
                f"e.g. '{sys.executable} -m pip install torch torchvision'"
            )
        installed = find_installed()
        if installed is not None:
            installed_version = installed.version
            is_outdated = (
                installed_version.startswith("0.6+aiparsing.")
                and installed_version != wheel_version()
            )
            if not force and not is_outdated:
                print(f"Keeping detectron2 {installed_version} in {installed.folder}", flush=True)
                try:
                    verify_imports()
                except InstallError as error:
                    print(f"install_detectron2: warning: {error} (--force replaces it)")
                return

    with tempfile.TemporaryDirectory(prefix="install_detectron2_") as temporary:
        if sdist is None:
            print(f"Downloading the source archive of {SDIST_REQUIREMENT} ...", flush=True)
            sdist = download_sdist(Path(temporary))
        sources = apply_edits(read_sdist(sdist))
        if wheel_dir is not None:
            wheel_dir.mkdir(parents=True, exist_ok=True)
            print(f"Built {build_wheel(sources, wheel_dir)}")
            return
        install_wheel(build_wheel(sources, Path(temporary)), installed_version)
    print(f"Installed detectron2 {wheel_version()}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Install Detectron2 v0.6 as a pure-Python package, with pip and no compiler."
    )
    parser.add_argument("--force", action="store_true", help="replace an importable detectron2")
    parser.add_argument(
        "--sdist", type=Path, metavar="FILE", help=f"the source archive of {SDIST_REQUIREMENT}"
    )
    parser.add_argument(
        "--wheel-dir", type=Path, metavar="DIR", help="only build the wheel, into this folder"
    )
    options = parser.parse_args(arguments)
    try:
        install(options.sdist, options.wheel_dir, options.force)
    except InstallError as error:
        message = str(error)
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        message = "no space left on the disk" if is_full else str(error)
    except KeyboardInterrupt:
        message = "interrupted"
    else:
        return 0
    print(f"install_detectron2: error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
