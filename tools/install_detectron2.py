#!/usr/bin/env python3
"""Install Detectron2 v0.6 as a pure-Python package: with pip alone, without a compiler.

Detectron2 is not on the Python package index under its own name, and its authors' wheels stop at
torch 1.10. The index does have ``pb1-detectron2`` 0.6: v0.6's Python sources and model-zoo configs
without the C++ sources, so that building it fails. This script makes a working wheel of it:

1. obtain that source archive through pip (so that pip's own index, proxy and certificate settings
   count) or from ``--sdist FILE``, and check its SHA-256;
2. apply ``detectron2-v0.6.patch``, which makes v0.6 run without ``detectron2._C`` and with current
   torch, numpy and Pillow, and makes it a project that pip can build. Its ``CHANGES`` say why each
   change is needed. A hunk that does not apply stops the installation;
3. let pip build a wheel ``detectron2 0.6+aiparsing.*`` and install it, with its requirements;
4. check that the installed package imports.

Without ``detectron2._C`` there are no rotated boxes and no deformable convolution, and COCO
evaluation uses pycocotools. A Detectron2 that can be imported already is kept; ``--force``
replaces it. Only pip is needed here, but torch and torchvision must be installed before: which
build of them is wanted depends on the machine. The build backend is brought by pip, into an
environment of its own.

To change the patch: unpack the archive, commit it to a new Git repository, apply the patch, edit,
and write ``git diff --no-renames`` over it.
"""

import argparse
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
from pathlib import Path
from typing import NamedTuple

if sys.version_info < (3, 10):  # noqa: UP036  (here: older Pythons stop at the annotations below)
    sys.exit(
        "install_detectron2: error: Python 3.10 or newer is needed, this is Python "
        f"{sys.version_info[0]}.{sys.version_info[1]} ({sys.executable})"
    )

SDIST_REQUIREMENT = "pb1-detectron2==0.6"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
PATCH = Path(__file__).resolve().with_name("detectron2-v0.6.patch")

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
    print(f"Downloading the source archive of {SDIST_REQUIREMENT} ...", flush=True)
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


def wheel_version() -> str:
    """Return the wheel's version: Detectron2's, and a digest of everything that makes the wheel.

    The digest makes a wheel with another patch another version, so that pip replaces the older one.
    """
    digest = hashlib.sha256(SDIST_SHA256.encode("ascii") + PATCH.read_bytes()).hexdigest()
    return f"0.6+aiparsing.h{digest[:8]}"


def unpack_sdist(sdist: Path, folder: Path) -> Path:
    """Unpack a source archive after checking its SHA-256.

    Args:
        sdist: the ``.tar.gz`` file.
        folder: where to unpack it.

    Returns:
        The archive's top folder.

    Raises:
        InstallError: the file is not the expected archive.
    """
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if digest != SDIST_SHA256:
        raise InstallError(
            f"{sdist.name}: wrong SHA-256 {digest}, expected {SDIST_SHA256}: nothing was installed"
        )
    with tarfile.open(sdist) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(folder)
    (sources,) = folder.iterdir()
    return sources


def apply_patch(patch: str, folder: Path) -> None:
    """Apply a unified diff, as Git writes it, to a folder.

    Unlike the ``patch`` program, which may be missing anyway, this puts no hunk at another line
    than the one that it names and ignores no difference in its context.

    Args:
        patch: the diff's text.
        folder: what to change.

    Raises:
        InstallError: the diff is damaged or a hunk does not apply. Then nothing was changed.
    """
    results: dict[Path, str | None] = {}
    for part in re.split(r"^diff --git .*\n", patch, flags=re.MULTILINE)[1:]:
        header, *hunks = re.split(r"^(?=@@ )", part, flags=re.MULTILINE)
        names = re.search(r"^--- (?:a/)?(\S+)\n\+\+\+ (?:b/)?(\S+)\n\Z", header, re.MULTILINE)
        if names is None:
            raise InstallError(f"the patch is damaged: no file names in {header!r}")
        old, new = names.groups()
        if old != "/dev/null" and not (folder / old).is_file():
            raise InstallError(f"the patch does not apply: {old} is missing")
        lines = [] if old == "/dev/null" else (folder / old).read_text("utf-8").splitlines(True)
        for hunk in reversed(hunks):  # so that the lines before it keep their numbers
            apply_hunk(hunk, lines, path=new if old == "/dev/null" else old)
        if new == "/dev/null":
            results[folder / old] = None
        else:
            results[folder / new] = "".join(lines)
    if not results:
        raise InstallError("the patch is damaged: it names no file")
    for path, text in results.items():
        if text is None:
            path.unlink()
        else:
            path.write_text(text, encoding="utf-8", newline="\n")


def apply_hunk(hunk: str, lines: list[str], path: str) -> None:
    """Apply one hunk to a file's lines, in place.

    Raises:
        InstallError: the hunk is damaged or the lines are not those that it expects.
    """
    title, *body = hunk.splitlines(True)
    numbers = re.match(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@", title)
    old = [line[1:] for line in body if line[0] in " -"]
    new = [line[1:] for line in body if line[0] in " +"]
    if numbers is None or [len(old), len(new)] != [int(n or 1) for n in numbers.group(2, 3)]:
        raise InstallError(f"the patch is damaged: {path}, hunk {title.strip()}")
    start = int(numbers[1]) - 1 if old else int(numbers[1])
    if lines[start : start + len(old)] != old:
        raise InstallError(f"the patch does not apply: {path}, hunk {title.strip()}")
    lines[start : start + len(old)] = new


def build_wheel(sources: Path, wheel_dir: Path) -> Path:
    """Build a wheel through pip, which brings the build backend into an environment of its own.

    Args:
        sources: the patched sources.
        wheel_dir: existing folder to put the wheel into.

    Returns:
        Path of the wheel. It appears under this name only when it is complete.

    Raises:
        InstallError: pip failed.
    """
    with tempfile.TemporaryDirectory(dir=wheel_dir) as unfinished:
        run_pip(
            "building the wheel",
            ["wheel", "--no-deps", "--wheel-dir", unfinished, str(sources)],
            environment={"DETECTRON2_VERSION": wheel_version()},
            quiet=True,
        )
        (wheel,) = Path(unfinished).iterdir()
        return wheel.replace(wheel_dir / wheel.name)


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


def is_outdated(version: str) -> bool:
    """Tell whether a version is an earlier one of this script's."""
    return version.startswith("0.6+aiparsing.") and version != wheel_version()


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
    installed = None
    if wheel_dir is None:
        missing = [m for m in ("torch", "torchvision") if importlib.util.find_spec(m) is None]
        if missing:
            raise InstallError(
                f"{' and '.join(missing)} must be installed first, "
                f"e.g. '{sys.executable} -m pip install torch torchvision'"
            )
        installed = find_installed()
        if installed is not None and not force and not is_outdated(installed.version):
            print(f"Keeping detectron2 {installed.version} in {installed.folder}", flush=True)
            try:
                verify_imports()
            except InstallError as error:
                print(f"install_detectron2: warning: {error} (--force replaces it)")
            return

    with tempfile.TemporaryDirectory(prefix="install_detectron2_") as temporary:
        folder = Path(temporary)
        if sdist is None:
            sdist = download_sdist(folder)
        sources = unpack_sdist(sdist, folder / "sources")
        apply_patch(PATCH.read_text("utf-8"), sources)
        if wheel_dir is not None:
            wheel_dir.mkdir(parents=True, exist_ok=True)
            print(f"Built {build_wheel(sources, wheel_dir)}")
            return
        install_wheel(build_wheel(sources, folder), installed and installed.version)
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
