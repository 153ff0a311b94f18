"""The Detectron2 installer: offline, with made-up source archives and a pip that only pretends."""

import ast
import errno
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import parse_wheel_filename

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "install_detectron2.py"
PATCH = SCRIPT.with_name("detectron2-v0.6.patch")


@pytest.fixture
def installer():
    """The script as a fresh module, so that a test may change its constants."""
    spec = importlib.util.spec_from_file_location("install_detectron2", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_patch() -> tuple[dict[str, str], dict[str, str]]:
    """Read from the patch what it expects and what it makes of that.

    Returns:
        The texts before and after by path, made of the hunks alone: lines of no hunk are numbered
        comments. Files that the patch adds are in the second only, deleted ones in the first only.
    """
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for line in PATCH.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.startswith(("diff --git", "index ", "new file", "deleted file")):
            continue
        if line.startswith("--- "):
            old = before.setdefault(line[6:].strip(), []) if "/dev/null" not in line else []
        elif line.startswith("+++ "):
            new = after.setdefault(line[6:].strip(), []) if "/dev/null" not in line else []
        elif match := re.match(r"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@", line):
            while len(old) < int(match[1]) - 1:  # lines between the hunks
                new.append(f"# {len(old)}\n")
                old.append(new[-1])
            assert len(new) == max(int(match[2]) - 1, 0), "the hunk's line numbers are wrong"
        else:
            assert line[0] in " +-"
            if line[0] != "+":
                old.append(line[1:])
            if line[0] != "-":
                new.append(line[1:])
    return (
        {path: "".join(lines) for path, lines in before.items()},
        {path: "".join(lines) for path, lines in after.items()},
    )


UNPATCHED_FILES = {
    "LICENSE": "a license\n",
    "setup.py": "raise SystemExit('must not run')\n",
    "detectron2/__init__.py": '__version__ = "0.6"\n',
    "detectron2/model_zoo/configs/common/train.py": "train = {}\n",
    "detectron2/model_zoo/configs/Base-RetinaNet.yaml": "VERSION: 2\n",
    "projects/PointRend/point_rend/__init__.py": "name = 'point_rend'\n",
    "projects/PointRend/setup.py": "raise SystemExit('must not run')\n",
    "projects/DeepLab/deeplab/__init__.py": "name = 'deeplab'\n",
    "projects/Panoptic-DeepLab/panoptic_deeplab/__init__.py": "name = 'panoptic'\n",
}


def write_sources(folder: Path) -> Path:
    """Write source files that hold just what the patch looks for, and a few that it does not."""
    for path, text in {**read_patch()[0], **UNPATCHED_FILES}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def sources(tmp_path):
    return write_sources(tmp_path / "sources")


@pytest.fixture
def sdist(tmp_path, sources):
    path = tmp_path / "pb1-detectron2-0.6.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(sources, "pb1-detectron2-0.6")
    return path


@pytest.fixture
def accepted_sdist(installer, sdist, monkeypatch):
    """A made-up source archive that passes for the real one."""
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    monkeypatch.setattr(installer, "SDIST_SHA256", digest)
    return sdist


class FakePip:
    """A ``pip`` package which notes its command lines, prints a text and exits.

    If it is to succeed, it leaves an empty file where pip would leave a wheel.
    """

    def __init__(self, folder: Path):
        self.path = folder
        self.calls_file = folder / "calls.jsonl"
        self.respond("", 0)

    def respond(self, output: str, status: int) -> None:
        package = self.path / "pip"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(
            textwrap.dedent(
                f"""
                import json, pathlib, sys
                with open({str(self.calls_file)!r}, "a") as f:
                    f.write(json.dumps(sys.argv[1:]) + "\\n")
                if {status} == 0 and sys.argv[1] == "wheel":
                    folder = pathlib.Path(sys.argv[sys.argv.index("--wheel-dir") + 1])
                    (folder / "made_by_pip-1-py3-none-any.whl").touch()
                print({output!r})
                sys.exit({status})
                """
            )
        )

    @property
    def calls(self) -> list[list[str]]:
        if not self.calls_file.exists():
            return []
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

    @property
    def commands(self) -> list[str]:
        return [call[0] for call in self.calls]


@pytest.fixture
def fake_pip(tmp_path, monkeypatch):
    pip = FakePip(tmp_path / "fake_pip")
    monkeypatch.setenv("PYTHONPATH", str(pip.path))
    return pip


def make_package(folder: Path, version: str) -> None:
    """Make an importable detectron2 of nothing but a version."""
    (folder / "detectron2").mkdir()
    (folder / "detectron2" / "__init__.py").write_text(f"__version__ = {version!r}\n")


def run_script(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True
    )


def assert_one_error_line(text: str, *parts: str) -> None:
    lines = text.splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("install_detectron2: error: ")
    for part in parts:
        assert part in lines[0]


# The patch


def test_patch_changes_adds_and_deletes_just_what_it_says(installer, sources):
    before, after = read_patch()
    assert len(before.keys() & after.keys()) == 27
    assert after.keys() - before.keys() == {
        "CHANGES",
        "pyproject.toml",
        "detectron2/layers/missing_ops.py",
    }
    assert before.keys() - after.keys() == {"PKG-INFO"}
    installer.apply_patch(PATCH.read_text("utf-8"), sources)
    left = {
        path.relative_to(sources).as_posix(): path.read_text(encoding="utf-8")
        for path in sources.rglob("*")
        if path.is_file()
    }
    assert left == {**after, **UNPATCHED_FILES}


@pytest.mark.parametrize("path", sorted(read_patch()[0]))
def test_changed_line_is_an_error_which_names_file_and_hunk_and_changes_nothing(
    installer, sources, path
):
    lines = read_patch()[0][path].splitlines(keepends=True)
    (sources / path).write_text("".join([*lines[:-1], "something else\n"]), encoding="utf-8")
    with pytest.raises(installer.InstallError, match="does not apply") as error:
        installer.apply_patch(PATCH.read_text("utf-8"), sources)
    assert f": {path}, hunk @@ -" in str(error.value)
    assert not (sources / "CHANGES").exists()


def test_hunk_whose_lines_moved_is_an_error(installer, sources):
    path = sources / "detectron2/layers/mask_ops.py"
    path.write_text("# one more line\n" + path.read_text("utf-8"), encoding="utf-8")
    with pytest.raises(installer.InstallError, match=r"mask_ops.py, hunk @@"):
        installer.apply_patch(PATCH.read_text("utf-8"), sources)


def test_missing_file_is_an_error_which_names_it(installer, sources):
    (sources / "detectron2/layers/mask_ops.py").unlink()
    with pytest.raises(installer.InstallError, match="mask_ops.py is missing"):
        installer.apply_patch(PATCH.read_text("utf-8"), sources)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "not a patch\n",
        lambda text: "",
        lambda text: text.removesuffix(text.splitlines(True)[-1]),  # torn off
        lambda text: text.replace("\n+++ ", "\n+ ", 1),
        lambda text: text.replace("@@ -1,", "@@ -x,", 1),
    ],
)
def test_damaged_patch_is_an_error_and_changes_nothing(installer, sources, damage):
    with pytest.raises(installer.InstallError, match="the patch is damaged"):
        installer.apply_patch(damage(PATCH.read_text("utf-8")), sources)
    assert not (sources / "CHANGES").exists()


def test_changed_files_are_valid_python_and_name_changes_that_are_explained():
    before, after = read_patch()
    explained = set(re.findall(r"^([a-z0-9]+(?:-[a-z0-9]+)+) ", after["CHANGES"], re.MULTILINE))
    named = set()
    for path in before.keys() & after.keys():
        first_line = after[path].splitlines()[0]
        assert first_line.startswith("# Changed by aiparsing_d2's install_detectron2.py: ")
        named.update(first_line.split(": ")[1].split(", "))
    assert named == explained
    ast.parse(after["detectron2/layers/missing_ops.py"])


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that pip builds, with the build backend of the test tools."""
    return make_wheel(tmp_path_factory.mktemp("built"))


def make_wheel(folder: Path) -> Path:
    spec = importlib.util.spec_from_file_location("install_detectron2", SCRIPT)
    installer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(installer)
    sources = write_sources(folder / "sources")
    installer.apply_patch(PATCH.read_text("utf-8"), sources)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # pip reads it the other way round
        patch.setenv("PIP_NO_INDEX", "1")
        return installer.build_wheel(sources, folder)


def test_wheel_has_the_package_its_configs_and_its_projects_only(wheel):
    _, after = read_patch()
    expected = {path for path in after if path.startswith("detectron2/")} | {
        "detectron2/__init__.py",
        "detectron2/model_zoo/configs/common/train.py",
        "detectron2/model_zoo/configs/Base-RetinaNet.yaml",
        "detectron2/projects/deeplab/__init__.py",
        "detectron2/projects/panoptic_deeplab/__init__.py",
        "detectron2/projects/point_rend/__init__.py",
    }
    dist_info = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info/"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith(dist_info)}
        assert names == expected
        assert archive.read("detectron2/projects/deeplab/__init__.py") == b"name = 'deeplab'\n"
        for path in after.keys() & expected:
            assert archive.read(path).decode("utf-8") == after[path]
        for name in ("LICENSE", "CHANGES"):  # of changed files, the licence wants both
            assert f"{dist_info}licenses/{name}" in archive.namelist()


def test_wheel_metadata(wheel):
    name, version, _, tags = parse_wheel_filename(wheel.name)
    assert name == "detectron2"
    assert version.public == "0.6" and version.local.startswith("aiparsing")
    assert [str(tag) for tag in tags] == ["py3-none-any"]
    dist_info = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    distribution = importlib.metadata.PathDistribution(zipfile.Path(wheel, dist_info + "/"))
    assert distribution.metadata["Name"] == "detectron2"
    assert distribution.version == str(version)
    requirements = {Requirement(text).name: Requirement(text) for text in distribution.requires}
    assert requirements["omegaconf"].specifier == SpecifierSet(">=2.1,<2.4")
    assert requirements.keys().isdisjoint({"black", "future", "pydot", "dataclasses", "torch"})


def test_same_sources_give_the_same_wheel(wheel, tmp_path):
    again = make_wheel(tmp_path)
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_another_patch_gives_another_version(installer, tmp_path):
    version = installer.wheel_version()
    installer.PATCH = tmp_path / "other.patch"
    installer.PATCH.write_bytes(PATCH.read_bytes() + b"\n")
    assert installer.wheel_version() != version


def test_pip_installs_the_wheel(wheel, tmp_path):
    target = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        + ["--target", str(target), str(wheel)],
        check=True,
    )
    assert (target / "detectron2" / "model_zoo" / "configs" / "common" / "train.py").is_file()


# The command line


def test_wheel_dir_builds_only(installer, accepted_sdist, fake_pip, tmp_path):
    arguments = ["--sdist", str(accepted_sdist), "--wheel-dir", str(tmp_path / "wheels")]
    assert installer.main(arguments) == 0
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert wheel.suffix == ".whl"
    assert fake_pip.commands == ["wheel"]
    assert "--no-build-isolation" not in fake_pip.calls[0]


def test_wrong_hash_is_one_line_and_installs_nothing(sdist, fake_pip):
    make_package(fake_pip.path, "0.7")
    done = run_script("--sdist", sdist, "--force")
    assert done.returncode == 1
    assert_one_error_line(done.stderr, sdist.name, "wrong SHA-256", "nothing was installed")
    assert fake_pip.calls == []


def test_missing_archive_is_one_line(tmp_path):
    done = run_script("--sdist", tmp_path / "none.tar.gz", "--wheel-dir", tmp_path / "wheels")
    assert done.returncode == 1
    assert_one_error_line(done.stderr, "none.tar.gz", "No such file")


def test_importable_detectron2_is_kept(fake_pip):
    make_package(fake_pip.path, "0.7")
    done = run_script()
    assert done.returncode == 0, done.stderr
    kept, warning = done.stdout.splitlines()
    assert kept == f"Keeping detectron2 0.7 in {fake_pip.path / 'detectron2'}"
    assert "warning" in warning and "No module named 'detectron2.config'" in warning
    assert fake_pip.calls == []


@pytest.fixture
def install_calls(installer, accepted_sdist, fake_pip, monkeypatch):
    """A function which installs with the fake pip and returns pip's calls after the build."""

    def install(*arguments: str) -> list[list[str]]:
        monkeypatch.setattr(installer, "IMPORTS_TO_VERIFY", ("detectron2",))
        assert installer.main(["--sdist", str(accepted_sdist), *arguments]) == 0
        assert fake_pip.commands[0] == "wheel"
        return fake_pip.calls[1:]

    return install


def test_force_replaces_an_importable_detectron2(install_calls, fake_pip):
    make_package(fake_pip.path, "0.7")
    ((command, wheel),) = install_calls("--force")
    assert command == "install" and wheel.endswith("-py3-none-any.whl")


def test_earlier_build_of_this_script_is_replaced(install_calls, fake_pip):
    make_package(fake_pip.path, "0.6+aiparsing.h00000000")
    ((command, wheel),) = install_calls()
    assert command == "install" and wheel.endswith("-py3-none-any.whl")


def test_force_reinstalls_the_same_version_without_its_requirements(
    installer, install_calls, fake_pip
):
    make_package(fake_pip.path, installer.wheel_version())
    first, second = install_calls("--force")
    assert first[:-1] == ["install"]  # pip leaves the package as it is, but completes requirements
    assert second[:-1] == ["install", "--no-deps", "--force-reinstall"]


def test_package_that_does_not_import_is_uninstalled_again(
    installer, accepted_sdist, fake_pip, monkeypatch, capsys
):
    make_package(fake_pip.path, "0.7")
    monkeypatch.setattr(installer, "IMPORTS_TO_VERIFY", ("detectron2.no_such_module",))
    assert installer.main(["--sdist", str(accepted_sdist), "--force"]) == 1
    assert_one_error_line(capsys.readouterr().err, "No module named 'detectron2.no_such_module'")
    assert fake_pip.commands == ["wheel", "install", "uninstall"]


# Failures. The texts are what pip 23 to 26 printed in such a case.

NO_NETWORK = """\
WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after \
connection broken by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object \
at 0x7f>: Failed to establish a new connection: [Errno -3] Temporary failure in name resolution')'
ERROR: Could not find a version that satisfies the requirement pb1-detectron2==0.6 (from versions: \
none)
ERROR: No matching distribution found for pb1-detectron2==0.6
"""
WRONG_HASH = """\
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the \
package versions, please update the hashes. Otherwise, examine the package contents carefully; \
someone may have tampered with them.
        Expected sha256 5d2e
             Got        0000
"""
DISK_FULL = """\
ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device
"""
NOT_ON_INDEX = """\
ERROR: Could not find a version that satisfies the requirement pb1-detectron2==0.6 (from versions: \
none)
ERROR: No matching distribution found for pb1-detectron2==0.6
"""


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (NO_NETWORK, "the package index cannot be reached"),
        (WRONG_HASH, "wrong SHA-256"),
        (DISK_FULL, "no space left on the disk"),
        (NOT_ON_INDEX, "No matching distribution found for pb1-detectron2==0.6"),
        ("/usr/bin/python3: No module named pip", "has no pip"),
        ("error: externally-managed-environment", "use a virtual environment"),
        ("ERROR: Could not install packages: [Errno 13] Permission denied", "no permission"),
        ("", "no output"),
    ],
)
def test_failing_download_is_one_line(fake_pip, tmp_path, output, message):
    fake_pip.respond(output, 1)
    done = run_script("--wheel-dir", tmp_path / "wheels")
    assert done.returncode == 1
    assert_one_error_line(done.stderr, "downloading pb1-detectron2==0.6", message)
    assert not (tmp_path / "wheels").exists()


def test_failing_installation_is_one_line_below_pips_own(
    installer, accepted_sdist, fake_pip, monkeypatch, tmp_path, capfd
):
    make_package(fake_pip.path, "0.7")
    monkeypatch.setattr(installer, "build_wheel", lambda sources, folder: tmp_path / "any.whl")
    fake_pip.respond(DISK_FULL, 1)
    assert installer.main(["--sdist", str(accepted_sdist), "--force"]) == 1
    printed = capfd.readouterr()
    assert DISK_FULL in printed.out
    assert_one_error_line(printed.err, "installing detectron2", "no space left on the disk")
    assert fake_pip.commands == ["install"]


def test_failing_build_is_one_line_and_leaves_no_wheel(
    installer, accepted_sdist, fake_pip, tmp_path, capsys
):
    fake_pip.respond(DISK_FULL, 1)
    wheels = tmp_path / "wheels"
    assert installer.main(["--sdist", str(accepted_sdist), "--wheel-dir", str(wheels)]) == 1
    assert_one_error_line(
        capsys.readouterr().err, "building the wheel", "no space left on the disk"
    )
    assert list(wheels.iterdir()) == []


def test_full_disk_while_unpacking_is_one_line(
    installer, accepted_sdist, fake_pip, monkeypatch, tmp_path, capsys
):
    def write_nothing(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(installer.tarfile.TarFile, "extractall", write_nothing)
    assert installer.main(["--sdist", str(accepted_sdist), "--wheel-dir", str(tmp_path)]) == 1
    assert_one_error_line(capsys.readouterr().err, "no space left on the disk")
    assert fake_pip.calls == []


def test_missing_torch_is_one_line(installer, accepted_sdist, monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        installer.importlib.util,
        "find_spec",
        lambda name: None if name == "torch" else find_spec(name),
    )
    assert installer.main(["--sdist", str(accepted_sdist), "--force"]) == 1
    assert_one_error_line(capsys.readouterr().err, "torch must be installed first")


def test_too_old_python_is_one_line():
    """Runs the script as far as a Python 3.6 gets, and checks that it parses there."""
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 6))
    pretend = "import runpy, sys; sys.version_info = (3, 9, 18); runpy.run_path(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", pretend, str(SCRIPT)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert_one_error_line(done.stderr, "Python 3.10 or newer is needed", "this is Python 3.9")
