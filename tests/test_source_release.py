"""The source archive of a release."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="the files of a clone are known")
def test_source_archive_holds_every_file_of_the_clone_and_nothing_of_its_user(tmp_path):
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    output = subprocess.run(listing, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    tracked = {name for name in output.stdout.split("\0") if (REPOSITORY / name).is_file()}
    clone = tmp_path / "clone"
    of_user = {"datasets/drawn_cihp/photo.jpg", "output/model_final.pth", "tests/__pycache__/a.pyc"}
    for name in tracked:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, clone / name)
    for name in of_user:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).touch()

    build = "import setuptools.build_meta as backend; backend.build_sdist('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=clone, check=True, capture_output=True)

    (archive,) = (clone / "dist").glob("aiparsing_d2-*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {m.name.partition("/")[2] for m in tar.getmembers() if m.isfile()}
    made = {n for n in names if n in ("PKG-INFO", "setup.cfg") or ".egg-info/" in n}
    assert names - made == tracked
