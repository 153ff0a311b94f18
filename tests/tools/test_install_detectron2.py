"""The Detectron2 installer: offline, with made-up source archives and a pip that only pretends."""

import ast
import base64
import csv
import errno
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest
from packaging.utils import parse_wheel_filename

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "install_detectron2.py"


@pytest.fixture
def installer():
    """The script as a fresh module, so that a test may change its constants."""
    spec = importlib.util.spec_from_file_location("install_detectron2", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sources(installer):
    """Source files which hold just what the edits look for."""
    texts = {"LICENSE": "a license\n", "setup.py": "raise SystemExit('must not run')\n"}
    for edit in installer.EDITS:
        for replacement in edit.replacements:
            # Line by line, so that no two of them run together into a third.
            texts[replacement.path] = texts.get(replacement.path, "") + (
                (replacement.old + "\n") * replacement.count
            )
    texts["detectron2/__init__.py"] = '__version__ = "0.6"\n'
    texts["detectron2/model_zoo/configs/common/train.py"] = "train = {}\n"
    texts["projects/PointRend/point_rend/__init__.py"] = "name = 'point_rend'\n"
    texts["projects/DeepLab/deeplab/__init__.py"] = "name = 'deeplab'\n"
    texts["projects/Panoptic-DeepLab/panoptic_deeplab/__init__.py"] = "name = 'panoptic'\n"
    return {path: text.encode() for path, text in texts.items()}


@pytest.fixture
def sdist(tmp_path, sources):
    path = tmp_path / "pb1-detectron2-0.6.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in sources.items():
            member = tarfile.TarInfo(f"pb1-detectron2-0.6/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def accepted_sdist(installer, sdist, monkeypatch):
    """A made-up source archive that passes for the real one."""
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    monkeypatch.setattr(installer, "SDIST_SHA256", digest)
    return sdist


class FakePip:
    """A ``pip`` package which notes its command lines, prints a text and exits."""

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
                import json, sys
                with open({str(self.calls_file)!r}, "a") as f:
                    f.write(json.dumps(sys.argv[1:]) + "\\n")
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


# Edits


def test_replacements_are_made_everywhere_and_noted_in_the_changed_files(installer):
    edit = installer.Edit(
        "rename",
        "because",
        (
            installer.Replacement("a.py", "old", "new", count=2),
            installer.Replacement("b.py", "1\n", "2\n"),
        ),
    )
    sources = {"a.py": b"old = 1\nold = 2\n", "b.py": b"x = 1\n", "c.py": b"old\n"}
    edited = installer.apply_edits(sources, (edit,))
    notice = b"# Changed by aiparsing_d2's install_detectron2.py: rename\n"
    assert edited == {
        "a.py": notice + b"new = 1\nnew = 2\n",
        "b.py": notice + b"x = 2\n",
        "c.py": b"old\n",
    }


def test_every_edit_finds_its_text_in_an_archive_that_has_it(installer, sources):
    edited = installer.apply_edits(sources)
    changed = {path for path in sources if edited[path] != sources[path]}
    assert changed == {r.path for edit in installer.EDITS for r in edit.replacements}


def test_missing_target_text_is_an_error_which_names_file_and_edit(installer, sources):
    for edit in installer.EDITS:
        for replacement in edit.replacements:
            broken = sources[replacement.path].decode().replace(replacement.old, "", 1)
            with pytest.raises(installer.InstallError) as error:
                installer.apply_edits({**sources, replacement.path: broken.encode()}, (edit,))
            assert replacement.path in str(error.value)
            assert f"'{edit.name}'" in str(error.value)


def test_missing_file_is_an_error_which_names_file_and_edit(installer, sources):
    del sources["detectron2/layers/mask_ops.py"]
    with pytest.raises(installer.InstallError, match="layers/mask_ops.py.*'numpy-copy'"):
        installer.apply_edits(sources)


def test_text_which_occurs_too_often_is_an_error(installer):
    edit = installer.Edit("once", "because", (installer.Replacement("a.py", "x", "y"),))
    with pytest.raises(installer.InstallError, match="expects 1 x 'x', found 2"):
        installer.apply_edits({"a.py": b"x x"}, (edit,))


def test_edits_give_valid_python(installer):
    for path, text in installer.ADDED_FILES.items():
        ast.parse(text, path)
    for edit in installer.EDITS:
        for replacement in edit.replacements:
            # Many are parts of statements; those which are whole ones must stay so.
            try:
                ast.parse(textwrap.dedent(replacement.old))
            except SyntaxError:
                continue
            ast.parse(textwrap.dedent(replacement.new), replacement.path)


# The wheel


@pytest.fixture
def wheel(installer, sources, tmp_path):
    return installer.build_wheel(installer.apply_edits(sources), tmp_path)


def test_wheel_record_lists_every_file_with_its_hash_and_size(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (record,) = (name for name in names if name.endswith(".dist-info/RECORD"))
        rows = {row[0]: row[1:] for row in csv.reader(archive.read(record).decode().splitlines())}
        assert len(names) == len(set(names))
        assert set(rows) == set(names)
        assert rows.pop(record) == ["", ""]
        for name, (digest, size) in rows.items():
            content = archive.read(name)
            encoded = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
            assert digest == "sha256=" + encoded.rstrip("=")
            assert int(size) == len(content)


def test_wheel_has_the_package_its_configs_and_its_projects_only(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert archive.read("detectron2/projects/deeplab/__init__.py") == b"name = 'deeplab'\n"
    assert "detectron2/model_zoo/configs/common/train.py" in names
    assert "detectron2/projects/point_rend/__init__.py" in names
    assert "detectron2/projects/panoptic_deeplab/__init__.py" in names
    assert "detectron2/layers/missing_ops.py" in names
    assert {name.split("/")[0] for name in names} == {
        "detectron2",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }


def test_wheel_metadata(wheel):
    name, version, _, tags = parse_wheel_filename(wheel.name)
    assert name == "detectron2"
    assert version.public == "0.6" and version.local.startswith("aiparsing")
    assert [str(tag) for tag in tags] == ["py3-none-any"]
    dist_info = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    distribution = importlib.metadata.PathDistribution(zipfile.Path(wheel, dist_info + "/"))
    assert distribution.metadata["Name"] == "detectron2"
    assert distribution.version == str(version)
    assert "omegaconf>=2.1,<2.4" in distribution.requires
    names = {requirement.split(">")[0] for requirement in distribution.requires}
    assert names.isdisjoint({"black", "future", "pydot", "dataclasses", "torch"})


def test_same_sources_give_the_same_wheel(installer, sources, wheel, tmp_path):
    (tmp_path / "again").mkdir()
    again = installer.build_wheel(installer.apply_edits(sources), tmp_path / "again")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_other_edits_give_another_version(installer, monkeypatch):
    version = installer.wheel_version()
    monkeypatch.setattr(installer, "EDITS", installer.EDITS[1:])
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
    assert fake_pip.calls == []


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
    """A function which installs with the fake pip and returns pip's calls."""

    def install(*arguments: str) -> list[list[str]]:
        monkeypatch.setattr(installer, "IMPORTS_TO_VERIFY", ("detectron2",))
        assert installer.main(["--sdist", str(accepted_sdist), *arguments]) == 0
        return fake_pip.calls

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
    assert [call[0] for call in fake_pip.calls] == ["install", "uninstall"]


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
    installer, accepted_sdist, fake_pip, capfd
):
    make_package(fake_pip.path, "0.7")
    fake_pip.respond(DISK_FULL, 1)
    assert installer.main(["--sdist", str(accepted_sdist), "--force"]) == 1
    printed = capfd.readouterr()
    assert DISK_FULL in printed.out
    assert_one_error_line(printed.err, "installing detectron2", "no space left on the disk")
    assert len(fake_pip.calls) == 1


def test_full_disk_while_packing_is_one_line_and_leaves_no_wheel(
    installer, accepted_sdist, monkeypatch, tmp_path, capsys
):
    def write_nothing(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(installer.zipfile.ZipFile, "writestr", write_nothing)
    wheels = tmp_path / "wheels"
    assert installer.main(["--sdist", str(accepted_sdist), "--wheel-dir", str(wheels)]) == 1
    assert_one_error_line(capsys.readouterr().err, "no space left on the disk")
    assert list(wheels.iterdir()) == []


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
