import json
import logging
import multiprocessing
import os
from pathlib import Path

import pytest
from PIL import Image

from aiparsing_d2.data.datasets import listed_images, load_cihp
from aiparsing_d2.data.datasets.index_cache import FileListing, load_cached


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of its own, empty."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FVCORE_CACHE", str(folder))
    monkeypatch.delenv("AIPARSING_INDEX_CACHE", raising=False)
    return folder / "aiparsing_d2"


class Counted:
    """Gives a value and counts how often."""

    def __init__(self, value):
        self.value = value
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.value


VALUE = {"records": [{"height": 4, "names": ["a", "ü"], "flag": True}]}


def test_the_value_is_built_once_for_each_key_and_fingerprint(cache):
    build = Counted(VALUE)
    for _ in range(2):
        assert load_cached(["list", "images"], "1", build) == VALUE
    assert build.calls == 1
    assert load_cached(["list", "others"], "1", build) == VALUE
    assert build.calls == 2
    changed = Counted([])
    assert load_cached(["list", "images"], "2", changed) == []
    assert load_cached(["list", "images"], "2", changed) == []
    assert changed.calls == 1
    assert len(list(cache.iterdir())) == 2  # the changed one has replaced the first


def damage_json(content):
    return content.replace(b'"height": 4', b'"height": 5')


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[:-10], id="truncated"),
        pytest.param(damage_json, id="other number in valid JSON"),
        pytest.param(lambda content: content.replace(b"\n", b" "), id="one line"),
        pytest.param(lambda content: b"[1, 2]\n" + content, id="other JSON"),
        pytest.param(lambda content: b"\xff\x00" * 50, id="no text"),
    ],
)
def test_damaged_cache_is_built_again(cache, damage):
    build = Counted(VALUE)
    load_cached(["list"], "1", build)
    (path,) = cache.iterdir()
    content = path.read_bytes()
    assert damage(content) != content
    path.write_bytes(damage(content))
    assert load_cached(["list"], "1", build) == VALUE
    assert build.calls == 2
    assert path.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_no_error(cache, caplog):
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    build = Counted(VALUE)
    with caplog.at_level(logging.WARNING):
        assert load_cached(["list"], "1", build) == VALUE
    assert "cannot be kept" in caplog.text


def test_a_full_disk_leaves_nothing_behind(cache, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        assert load_cached(["list"], "1", Counted(VALUE)) == VALUE
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("value", ["0", "off", "False"])
def test_switched_off(cache, monkeypatch, value):
    monkeypatch.setenv("AIPARSING_INDEX_CACHE", value)
    build = Counted(VALUE)
    for _ in range(2):
        assert load_cached(["list"], "1", build) == VALUE
    assert build.calls == 2
    assert not cache.exists()


def write_many_times(barrier, number):
    value = [number] * 20_000
    barrier.wait()
    for fingerprint in range(20):
        # Each process caches another value under the same key and reads back its own or builds it.
        assert load_cached(["list"], f"{number}-{fingerprint}", lambda: value) == value


def test_several_processes_at_once(cache):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    workers = [context.Process(target=write_many_times, args=(barrier, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    (path,) = cache.iterdir()
    header, payload = path.read_bytes().split(b"\n")
    assert json.loads(payload) == [int(json.loads(header)["fingerprint"].split("-")[0])] * 20_000


def test_listing_has_files_of_the_folders_only(tmp_path):
    (tmp_path / "a" / "deeper").mkdir(parents=True)
    (tmp_path / "a" / "1.png").write_text("12345")
    (tmp_path / "a" / "deeper" / "2.png").write_text("")
    (tmp_path / "a" / "nowhere.png").symlink_to(tmp_path / "gone")
    folder, missing = str(tmp_path / "a"), str(tmp_path / "b")
    listing = FileListing.scan([folder, missing, folder])
    assert listing.files[missing] == {}
    assert list(listing.files[folder]) == ["1.png"]
    assert listing.files[folder]["1.png"] == (5, os.stat(tmp_path / "a" / "1.png").st_mtime_ns)
    assert os.path.join(folder, "1.png") in listing
    assert os.path.join(folder, "deeper", "2.png") not in listing
    assert os.path.join(missing, "1.png") not in listing


def touch(path):
    os.utime(path, ns=(0, 1))


def rewrite_at_the_same_time(path):
    time = os.stat(path).st_mtime_ns
    path.write_bytes(path.read_bytes() + b" ")
    os.utime(path, ns=(time, time))


@pytest.mark.parametrize("subfolder", ["Images", "Category_ids", "Human_ids"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(touch, id="time"),
        pytest.param(rewrite_at_the_same_time, id="size"),
        pytest.param(lambda path: path.with_name("new.png").write_text(""), id="new file"),
    ],
)
def test_records_are_read_anew_if_a_file_has_changed(
    cache, two_people, monkeypatch, subfolder, change
):
    opened = []

    def read_image_size(file_name):
        opened.append(Path(file_name).name)
        return 4, 6

    monkeypatch.setattr(listed_images, "read_image_size", read_image_size)
    first = load_cihp(two_people.root, "train")
    assert load_cihp(two_people.root, "train") == first
    assert opened == ["0000001.png"]
    change(two_people.root / "Training" / subfolder / "0000001.png")
    assert load_cihp(two_people.root, "train") == first
    assert opened == ["0000001.png"] * 2


def test_the_id_list_counts_too(cache, two_people, category_map, human_map):
    two_people.add("0000002", category_map, human_map)
    assert len(load_cihp(two_people.root, "train")) == 2
    (two_people.root / "train_id.txt").write_text("0000002\n")
    (record,) = load_cihp(two_people.root, "train")
    assert record["image_id"] == "0000002"


def test_a_file_that_is_gone_is_missed_in_spite_of_the_cache(cache, two_people):
    load_cihp(two_people.root, "train")
    (two_people.root / "Training" / "Human_ids" / "0000001.png").unlink()
    with pytest.raises(FileNotFoundError, match="Human_ids"):
        load_cihp(two_people.root, "train")


def test_images_that_can_be_read_by_now_are_found_in_spite_of_the_cache(
    cache, two_people, category_map, human_map, monkeypatch
):
    """Another Pillow, or another limit of its, may read what could not be read."""
    two_people.add("0000002", category_map, human_map)
    with monkeypatch.context() as limited:
        limited.setattr(Image, "MAX_IMAGE_PIXELS", 5)
        with pytest.raises(ValueError, match="2 of 2 images"):
            load_cihp(two_people.root, "train")
    assert len(load_cihp(two_people.root, "train")) == 2
    opened = []
    monkeypatch.setattr(listed_images, "read_image_size", opened.append)
    assert len(load_cihp(two_people.root, "train")) == 2
    assert not opened


def test_relative_roots_do_not_mix(cache, two_people, tmp_path, monkeypatch):
    """The same relative path from another folder is another data set, and paths stay as given."""
    monkeypatch.chdir(two_people.root.parent)
    absolute = load_cihp(two_people.root, "train")
    (record,) = load_cihp("cihp", "train")
    assert record["file_name"] == os.path.join("cihp", "Training", "Images", "0000001.png")
    assert load_cihp(two_people.root, "train") == absolute
