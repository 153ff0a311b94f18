"""What ``prepare_data_set`` writes, what it leaves alone, and how it goes on."""

import csv
import json
import os
import sys

import numpy as np
import preparation_folders as folders
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from killed_verifier import KilledVerifier
from PIL import Image
from pycocotools import mask as coco_mask

from aiparsing_d2.data.annotations import read_label_png, read_person_annotations
from aiparsing_d2.data.datasets import load_cihp, load_coco_parsing, load_lv_mhp_v2, load_vip
from aiparsing_d2.parallel import WorkerDiedError
from aiparsing_d2.preparation import (
    DATA_SETS,
    BadDataError,
    JournalError,
    Kind,
    OnBad,
    OnBadPolicy,
    OutputExistsError,
    PreparationRequest,
    prepare_data_set,
    statistics_plots,
    verification,
)
from aiparsing_d2.preparation.statistics import PLOT_NAMES
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS, LV_MHP_V2_PART_LABELS

draw_plots = statistics_plots.plot_statistics

FILES = {
    "report.md",
    "findings.csv",
    "statistics.json",
    "people_per_image.png",
    "part_frequencies.png",
    "box_sizes.png",
}
LISTS = {"cihp": "train_id.txt", "lv_mhp_v2": "list/train.txt", "vip": "lists/train_id.txt"}


@pytest.fixture(params=folders.MAKERS)
def name(request):
    return request.param


@pytest.fixture
def root(tmp_path, name):
    return folders.MAKERS[name](tmp_path / "data")


@pytest.fixture
def cihp(tmp_path):
    return folders.make_cihp(tmp_path / "data")


@pytest.fixture(autouse=True)
def no_index_cache(monkeypatch):
    monkeypatch.setenv("AIPARSING_INDEX_CACHE", "0")


@pytest.fixture(autouse=True)
def plotted(monkeypatch):
    """Splits of which pictures were asked for; drawing them takes long."""
    splits = []

    def note(statistics, folder, title):
        splits.extend(statistics)
        for name in PLOT_NAMES:
            (folder / name).write_bytes(b"")

    monkeypatch.setattr(statistics_plots, "plot_statistics", note)
    return splits


@pytest.fixture
def verified(monkeypatch):
    """Ids of the images that have been looked through."""
    ids = []
    report = verification._Examination.report

    def noted(self):
        ids.append(self._files.image_id)
        return report(self)

    monkeypatch.setattr(verification._Examination, "report", noted)
    return ids


def prepare(root, name="cihp", on_bad=(), **options):
    policy = OnBadPolicy.parse(on_bad)
    output = options.pop("output", root.parent / "out")
    request = PreparationRequest(DATA_SETS[name], root, output, on_bad=policy, **options)
    return prepare_data_set(request)


def annotations(root, name="CIHP_train"):
    return json.loads((root.parent / "out" / "annotations" / f"{name}.json").read_text())


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_annotations_of_cihp(cihp):
    prepare(cihp, with_rle=True)
    content = annotations(cihp)
    assert content["categories"] == [
        {
            "id": 1,
            "name": "person",
            "supercategory": "person",
            "parsing": list(CIHP_PART_LABELS.names),
        }
    ]
    assert content["images"][1] == {
        "id": 2,
        "file_name": "0000002.jpg",
        "height": 4,
        "width": 6,
        "category_file_name": "Training/Category_ids/0000002.png",
        "human_file_name": "Training/Human_ids/0000002.png",
    }
    people = content["annotations"]
    assert [person["id"] for person in people] == [1, 2, 3, 4]
    masks = [coco_mask.decode(person.pop("segmentation")) for person in people]
    shared = {"image_id": 1, "category_id": 1, "iscrowd": 0}
    assert people[0] == {"id": 1, "bbox": [0, 0, 3, 3], "area": 7, "human": 1, **shared}
    assert people[1] == {"id": 2, "bbox": [4, 1, 2, 2], "area": 3, "human": 3, **shared}
    np.testing.assert_array_equal(masks[0], folders.HUMAN_MAP == 1)
    np.testing.assert_array_equal(masks[3], folders.HUMAN_MAP == 3)


def test_annotations_of_lv_mhp_v2_refer_to_its_files(tmp_path):
    root = folders.make_lv_mhp_v2(tmp_path / "data")
    prepare(root, "lv_mhp_v2", write_person_maps=True)
    content = annotations(root, "LV_MHP_v2_train")
    assert content["images"][0] == {"id": 1, "file_name": "10.jpg", "height": 3, "width": 4}
    first, second = content["annotations"][:2]
    assert (first["parsing"], first["bbox"], first["area"]) == ("10_02_01.png", [1, 0, 3, 3], 8)
    assert (second["parsing"], second["bbox"], second["area"]) == ("10_02_02.png", [2, 0, 2, 2], 4)
    assert not (tmp_path / "out" / "train_parsing").exists()


@pytest.mark.parametrize("write_person_maps", [False, True])
def test_read_back_as_the_data_set_itself(root, name, write_person_maps):
    report = prepare(root, name, write_person_maps=write_person_maps)
    (split,) = report.splits
    load, labels = {
        "cihp": (load_cihp, CIHP_PART_LABELS),
        "lv_mhp_v2": (load_lv_mhp_v2, LV_MHP_V2_PART_LABELS),
        "vip": (load_vip, CIHP_PART_LABELS),
    }[name]
    converted = load_coco_parsing(
        split.annotation_file,
        split.image_folder,
        split.label_folder,
        category_folder=split.category_folder,
        part_labels=labels,
    )
    originals = load(root, "train")
    assert len(converted) == 2
    for record, original in zip(converted, originals, strict=True):
        for key in ("file_name", "image_id", "height", "width"):
            assert record[key] == original[key]
        found = read_person_annotations(record, labels.num_classes)
        expected = read_person_annotations(original, labels.num_classes)
        np.testing.assert_array_equal(found.person_maps, expected.person_maps)
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.category_map, expected.category_map)


@pytest.mark.parametrize("write_person_maps", [False, True])
def test_the_snippet_in_the_report_registers_the_result(cihp, write_person_maps):
    prepare(cihp, write_person_maps=write_person_maps)
    report = (cihp.parent / "out" / "report.md").read_text()
    code = report.split("```python\n")[1].split("```")[0]
    try:
        exec(code, {})
        records = DatasetCatalog.get("prepared_cihp_train")
        assert [len(read_person_annotations(record, 20).boxes) for record in records] == [2, 2]
        assert MetadataCatalog.get("prepared_cihp_train").semseg_thresh == 0.3
    finally:
        DatasetCatalog.remove("prepared_cihp_train")
        MetadataCatalog.remove("prepared_cihp_train")


def test_statistics_counted_by_hand(cihp):
    folders.add_cihp_image(cihp, "train", "0000003")
    human_map = np.where(folders.HUMAN_MAP == 3, 0, folders.HUMAN_MAP)
    folders.save(cihp / "Training" / "Human_ids" / "0000003.png", human_map)
    category_map = folders.CATEGORY_MAP.copy()
    category_map[0, 1] = 255
    folders.save(cihp / "Training" / "Category_ids" / "0000003.png", category_map)
    (split,) = prepare(cihp).splits
    assert {path.name for path in (cihp.parent / "out").iterdir()} == FILES | {"annotations"}
    statistics = json.loads((cihp.parent / "out" / "statistics.json").read_text())["train"]
    assert (statistics["images"], statistics["people"]) == (3, 5)
    assert statistics["people_per_image"] == {"mean": 5 / 3, "images": {"1": 1, "2": 2}}
    parts = {part.pop("label"): part for part in statistics["parts"]}
    assert list(parts) == list(range(1, 20))
    assert parts[13] == {"name": "Face", "images": 3, "people": 3, "pixels": 11}
    assert parts[16] == {"name": "Left-leg", "images": 2, "people": 2, "pixels": 6}
    assert parts[19] == {"name": "Right-shoe", "images": 0, "people": 0, "pixels": 0}
    assert statistics["ignored_pixels"] == 1
    assert statistics["box_width"]["median"] == 3 and statistics["box_height"]["min"] == 2
    assert statistics["box_size"]["small"] == 5 and statistics["box_size"]["large"] == 0
    draw_plots({"train": split.statistics, "val": split.statistics}, cihp, "CIHP")
    for name in PLOT_NAMES:
        with Image.open(cihp / name) as image:
            assert len(np.unique(np.asarray(image))) > 2


def test_counts_are_compared_with_the_published_ones(root, name):
    report = prepare(root, name)
    published = DATA_SETS[name].counts["train"]
    found = {f.reason for f in report.findings if f.kind is Kind.COUNT}
    assert f"2 images; published were {published['images']:,}" in found
    assert ("1 video; published were 304" in found) == (name == "vip")
    assert all(f.file == LISTS[name] for f in report.findings if f.kind is Kind.COUNT)
    missing = {f.split for f in report.findings if f.kind is Kind.MISSING_LIST}
    assert missing == {"val", "test"}


def test_published_counts_raise_no_alarm(cihp, monkeypatch):
    monkeypatch.setitem(DATA_SETS["cihp"].counts, "train", {"images": 2, "people": 4})
    assert prepare(cihp, splits=("train",)).findings == []
    assert "Nothing is wrong." in (cihp.parent / "out" / "report.md").read_text()


def test_test_split_has_images_only(tmp_path, plotted):
    root = tmp_path / "data"
    folders.save(root / "Testing" / "Images" / "7.png", np.zeros((4, 6, 3), dtype=np.uint8))
    (root / "test_id.txt").write_text("7\n")
    report = prepare(root)
    content = annotations(root, "CIHP_test")
    assert content["images"] == [{"id": 1, "file_name": "7.png", "height": 4, "width": 6}]
    # By which COCO's tools tell that there is no ground truth.
    assert "annotations" not in content and report.splits[0].label_folder is None
    assert plotted == []


class TestOnBad:
    """One image is unreadable, another has a label out of range, the third is sound."""

    @pytest.fixture
    def cihp(self, cihp):
        folders.add_cihp_image(cihp, "train", "0000003")
        (cihp / "Training" / "Images" / "0000001.jpg").write_bytes(b"")
        category_map = folders.CATEGORY_MAP.copy()
        category_map[1, 1] = 99
        folders.save(cihp / "Training" / "Category_ids" / "0000002.png", category_map)
        folders.save(cihp / "Training" / "Instance_ids" / "0000002.png", 0 * category_map)
        return cihp

    def used(self, cihp):
        return [image["file_name"] for image in annotations(cihp)["images"]]

    def actions(self, cihp):
        with open(cihp.parent / "out" / "findings.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["image_id"]]
        return {(row["kind"], row["image_id"]): row["action"] for row in rows}

    def test_name_keeps_what_can_be_read(self, cihp):
        prepare(cihp, write_person_maps=True)
        assert self.used(cihp) == ["0000002.jpg", "0000003.jpg"]
        assert [image["id"] for image in annotations(cihp)["images"]] == [2, 3]
        actions = self.actions(cihp)
        assert actions.pop(("unreadable-image", "0000001")) == "left out"
        assert actions.pop(("label-out-of-range", "0000002")) == "named"
        assert set(actions.values()) == {"named"}
        person = read_label_png(cihp.parent / "out" / "train_parsing" / "0000002-1.png")
        assert person[1, 1] == 255 and person[0, 1] == 13

    def test_skip_leaves_out_all(self, cihp):
        report = prepare(cihp, on_bad=["skip"])
        assert self.used(cihp) == ["0000003.jpg"]
        assert set(self.actions(cihp).values()) == {"left out"}
        assert report.splits[0].num_left_out == 2
        assert report.splits[0].statistics.num_people == 2
        assert "3 images" in report.summary() and "2 left out" in report.summary()

    def test_raise_names_the_first(self, cihp):
        with pytest.raises(BadDataError, match="0000001.jpg: is empty"):
            prepare(cihp, on_bad=["raise"])
        assert not (cihp.parent / "out" / "annotations").exists()

    def test_exceptions_for_a_kind(self, cihp):
        prepare(cihp, on_bad=["label-out-of-range=skip"])
        assert self.used(cihp) == ["0000003.jpg"]
        with pytest.raises(BadDataError, match="label-out-of-range.*0000002.png"):
            prepare(cihp, on_bad=["label-out-of-range=raise"], overwrite=True)
        with pytest.raises(BadDataError, match="count: train_id.txt"):
            prepare(cihp, on_bad=["name", "count=raise"], overwrite=True)

    def test_nothing_left_is_an_error(self, cihp):
        for number in (2, 3):
            (cihp / "Training" / "Images" / f"000000{number}.jpg").unlink()
        with pytest.raises(BadDataError, match="No image of the train split .*0000002.jpg"):
            prepare(cihp)
        (cihp / "train_id.txt").write_text("\n")
        with pytest.raises(BadDataError, match="train split .*it lists no image"):
            prepare(cihp)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_utf_8_are_reported(cihp, capsys):
    folder = os.fsencode(cihp / "Training" / "Images")
    os.link(os.path.join(folder, b"0000001.jpg"), os.path.join(folder, b"caf\xe9.jpg"))
    report = prepare(cihp)
    (finding,) = [f for f in report.findings if f.kind is Kind.UNLISTED and "caf" in f.file]
    assert finding.file == "Training/Images/caf\\udce9.jpg"
    for name in ("report.md", "findings.csv"):
        assert finding.file in (cihp.parent / "out" / name).read_text(encoding="utf-8")
    report.summary().encode()


def test_policies():
    policy = OnBadPolicy.parse(["skip", "count=raise", "size-mismatch=name"])
    assert policy.action(Kind.UNREADABLE_IMAGE) is OnBad.SKIP
    assert policy.action(Kind.UNLISTED) is OnBad.NAME  # a note
    assert policy.action(Kind.COUNT) is OnBad.RAISE
    assert policy.action(Kind.SIZE_MISMATCH) is OnBad.NAME
    for words, message in (
        (["ignore"], "'ignore' is not one of name, skip, raise"),
        (["skip", "raise"], "Give one of"),
        (["colour=skip"], "'colour' is no kind .*unreadable-image"),
    ):
        with pytest.raises(ValueError, match=message):
            OnBadPolicy.parse(words)


class TestGoingOn:
    def interrupt(self, cihp, monkeypatch, **options):
        """Stop after the first of the images."""
        with monkeypatch.context() as patch:
            report = verification._Examination.report

            def stop_at_second(examination):
                if examination._files.image_id == "0000002":
                    raise KeyboardInterrupt
                return report(examination)

            patch.setattr(verification._Examination, "report", stop_at_second)
            with pytest.raises(KeyboardInterrupt):
                prepare(cihp, **options)
        out = cihp.parent / "out"
        assert [path.name for path in out.iterdir() if path.is_file()] == ["unfinished.jsonl"]

    def test_where_it_was(self, cihp, monkeypatch, verified, tmp_path):
        self.interrupt(cihp, monkeypatch, write_person_maps=True, with_rle=True)
        verified.clear()
        prepare(cihp, write_person_maps=True, with_rle=True)
        assert verified == ["0000002"]
        assert not (tmp_path / "out" / "unfinished.jsonl").exists()

        whole = tmp_path / "whole"
        prepare(cihp, write_person_maps=True, with_rle=True, output=whole)
        for path, content in snapshot(whole).items():
            if path.name != "report.md":  # names its own folder
                assert (tmp_path / "out" / path.relative_to(whole)).read_bytes() == content

    def test_after_a_crash_in_the_middle_of_a_line(self, cihp, monkeypatch, verified):
        self.interrupt(cihp, monkeypatch)
        journal = cihp.parent / "out" / "unfinished.jsonl"
        content = journal.read_bytes()
        journal.write_bytes(content + content.splitlines()[1][:-40])
        verified.clear()
        prepare(cihp)
        assert verified == ["0000002"]

    def test_after_a_crash_before_the_first_line(self, cihp, verified):
        (cihp.parent / "out").mkdir()
        (cihp.parent / "out" / "unfinished.jsonl").write_bytes(b'{"version"')
        prepare(cihp)
        assert verified == ["0000001", "0000002"]

    def test_changed_files_are_looked_through_again(self, cihp, monkeypatch, verified):
        self.interrupt(cihp, monkeypatch)
        (cihp / "Training" / "Images" / "0000001.jpg").write_bytes(b"")
        verified.clear()
        report = prepare(cihp)
        assert verified == ["0000001", "0000002"]
        assert Kind.UNREADABLE_IMAGE in {finding.kind for finding in report.findings}

    def test_renamed_files_are_looked_through_again(self, cihp, monkeypatch, verified):
        self.interrupt(cihp, monkeypatch)
        image = cihp / "Training" / "Images" / "0000001.jpg"
        image.rename(image.with_suffix(".jpeg"))  # of the same size, changed at the same time
        verified.clear()
        prepare(cihp)
        assert verified == ["0000001", "0000002"]

    def test_removed_person_maps_are_written_again(self, cihp, monkeypatch, verified):
        self.interrupt(cihp, monkeypatch, write_person_maps=True)
        removed = cihp.parent / "out" / "train_parsing" / "0000001-3.png"
        removed.unlink()
        verified.clear()
        prepare(cihp, write_person_maps=True)
        assert verified == ["0000001", "0000002"] and removed.exists()

    def test_another_request_does_not_go_on(self, cihp, monkeypatch, verified):
        self.interrupt(cihp, monkeypatch)
        before = snapshot(cihp.parent / "out")
        with pytest.raises(JournalError, match="rle False instead of True.*--overwrite"):
            prepare(cihp, with_rle=True)
        assert snapshot(cihp.parent / "out") == before
        verified.clear()
        prepare(cihp, with_rle=True, overwrite=True)
        assert verified == ["0000001", "0000002"]

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda text: text.replace('"number": 1', '"number": 2'), "line 2 .its checksum"),
            (lambda text: text.replace(', "checksum"', ', "sum"'), "line 2 .its checksum"),
            (lambda text: text + "[" * 100_000 + "\n", "line 3 .it is nested too deeply"),
            (lambda text: text + "[]\n", "line 3 .it is no object"),
            (lambda text: text + "{'a'}\n", "line 3 .Expecting property name"),
            (lambda text: "[]\n" + text, "line 1 .it is no object"),
            (lambda text: "\udcff" + text, "line 1 .*codec can't decode"),
        ],
    )
    def test_a_damaged_journal_is_refused_by_name(self, cihp, monkeypatch, spoil, message):
        self.interrupt(cihp, monkeypatch)
        journal = cihp.parent / "out" / "unfinished.jsonl"
        text = journal.read_text()
        assert spoil(text) != text
        journal.write_text(spoil(text), errors="surrogateescape")
        with pytest.raises(JournalError, match=f"unfinished.jsonl is damaged in {message}"):
            prepare(cihp)
        prepare(cihp, overwrite=True)

    def test_fatal_findings_can_be_mended(self, cihp, verified):
        image = cihp / "Training" / "Images" / "0000002.jpg"
        content = image.read_bytes()
        image.write_bytes(b"")
        with pytest.raises(BadDataError):
            prepare(cihp, on_bad=["raise"])
        image.write_bytes(content)
        verified.clear()
        prepare(cihp, on_bad=["raise"])
        assert verified == ["0000002"]


@pytest.mark.parametrize("existing", [*sorted(FILES), "annotations/CIHP_train.json"])
def test_nothing_is_overwritten_without_being_asked(cihp, tmp_path, existing, verified):
    path = tmp_path / "out" / existing
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=f"{path}.*--overwrite"):
        prepare(cihp)
    assert set(snapshot(tmp_path / "out").values()) == {b"mine"} and verified == []


def test_overwrite_replaces_only_what_it_writes(cihp, tmp_path):
    prepare(cihp, write_person_maps=True)
    for path in snapshot(tmp_path / "out"):
        path.write_text("mine")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="11 of the files|train_parsing|report.md"):
        prepare(cihp, write_person_maps=True)
    prepare(cihp, write_person_maps=True, overwrite=True)
    after = snapshot(tmp_path / "out")
    assert [path.name for path, content in after.items() if content == b"mine"] == ["notes.txt"]


def test_processes_give_the_same_and_touch_nothing_else(cihp, tmp_path, monkeypatch):
    before = snapshot(cihp)
    for number, folder in ((1, "one"), (2, "two")):
        options = {"write_person_maps": True, "with_rle": True, "num_workers": number}
        with monkeypatch.context() as patch:
            if number > 1:  # the work is not done here
                patch.delattr(verification._Examination, "report")
            prepare(cihp, output=tmp_path / folder, **options)
    (tmp_path / "one" / "report.md").unlink()  # names its own folder
    for path, content in snapshot(tmp_path / "one").items():
        assert (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes() == content
    assert snapshot(cihp) == before


def test_a_killed_process_is_an_error_and_the_next_run_goes_on(cihp, monkeypatch, verified):
    with monkeypatch.context() as patch:
        patch.setattr(PreparationRequest, "verifier", lambda self: KilledVerifier(self.root, 20))
        with pytest.raises(WorkerDiedError, match="fewer workers"):
            prepare(cihp, num_workers=2)
    prepare(cihp)
    assert verified[-1] == "0000002"


def test_where_the_data_set_is_not(tmp_path, cihp):
    for archive in ("CIHP.zip", "LV-MHP-v2.tar.gz"):
        (tmp_path / archive).write_bytes(b"")
        with pytest.raises(NotADirectoryError, match=f"{archive} is an archive: unpack it first"):
            prepare(tmp_path / archive)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        prepare(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=f"none of train_id.txt.*Did you mean {cihp}"):
        prepare(tmp_path)
    with pytest.raises(FileNotFoundError, match="no val split: there is no val_id.txt"):
        prepare(cihp, splits=("val",))
    folder = tmp_path / "download"
    (folder / "annotations").mkdir(parents=True)
    (folder / "instance-level_human_parsing.tar.gz").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="Unpack .*parsing.tar.gz.*COCO-style"):
        prepare(folder)


def test_report_lists_few_and_the_table_all(cihp, tmp_path):
    for number in range(20):
        folders.save(
            cihp / "Training" / "Images" / f"extra{number}.jpg", np.zeros((2, 2), dtype=np.uint8)
        )
    report = prepare(cihp)
    assert report.summary().count("extra") == 3 and "and 17 more" in report.summary()
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert markdown.count("extra") == 10 and "and 10 more" in markdown
    assert (tmp_path / "out" / "findings.csv").read_text().count("extra") == 20
