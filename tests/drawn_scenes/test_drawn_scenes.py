"""Tests of the generator of drawn scenes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from aiparsing_d2 import drawn_scenes
from aiparsing_d2.drawn_scenes import (
    CIHPRequest,
    FolderInUseError,
    Part,
    cihp_writer,
    draw_scene,
    write_data_set,
)
from aiparsing_d2.drawn_scenes.__main__ import main
from aiparsing_d2.drawn_scenes.canvas import FigureCanvas
from aiparsing_d2.drawn_scenes.contact_sheet import draw_contact_sheet
from aiparsing_d2.drawn_scenes.data_set_writer import MANIFEST_NAME
from aiparsing_d2.drawn_scenes.figure import draw_figure
from aiparsing_d2.drawn_scenes.parts import Side
from aiparsing_d2.drawn_scenes.person import sample_person
from aiparsing_d2.drawn_scenes.scene import MIN_VISIBLE_PIXELS
from aiparsing_d2.drawn_scenes.skeleton import LimbPose, Pose
from aiparsing_d2.parallel import WorkerDiedError
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS

REQUEST = CIHPRequest(num_train=4, num_val=2, seed=5, image_size=(96, 128))


def files_of(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "new" / "data"
    manifest = write_data_set(root, REQUEST)
    return root, manifest


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(np.random.default_rng([3, i]), 144, 192) for i in range(60)]


def read_ids(root, folder, kind, name):
    with Image.open(root / folder / kind / f"{name}.png") as image:
        assert image.mode == "L"
        return np.array(image)


# Scenes


def test_part_names_are_those_of_cihp():
    words = [name.replace("-", "").replace("_", "").lower() for name in CIHP_PART_LABELS.names]
    assert words == [part.name.replace("_", "").lower() for part in Part]


def test_scene_is_decided_by_its_generator():
    first, again, other = (draw_scene(np.random.default_rng(s), 96, 128) for s in (8, 8, 9))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.category_map, again.category_map)
    assert np.array_equal(first.human_map, again.human_map)
    assert not np.array_equal(first.image, other.image)


def test_maps_agree_and_every_person_can_be_seen(scenes):
    for scene in scenes:
        assert scene.image.shape == (144, 192, 3)
        assert {m.dtype for m in (scene.image, scene.category_map, scene.human_map)} == {
            np.dtype(np.uint8)
        }
        assert np.array_equal(scene.category_map > 0, scene.human_map > 0)
        pixels = np.bincount(scene.human_map.ravel())[1:]
        assert len(pixels) == scene.num_people >= 1
        assert pixels.min() >= MIN_VISIBLE_PIXELS
        assert scene.num_people <= 6


def test_every_part_is_worn_by_a_fair_share_of_people(scenes):
    wearers = Counter()
    for scene in scenes:
        for human in range(1, scene.num_people + 1):
            pixels = np.bincount(scene.category_map[scene.human_map == human], minlength=20)
            wearers.update(np.nonzero(pixels >= 8)[0].tolist())
    people = sum(scene.num_people for scene in scenes)
    shares = {part.name: wearers[part] / people for part in Part if part}
    assert min(shares.values()) > 0.08, shares
    assert max(shares.values()) < 1.0, shares


def test_edges_of_the_picture_lie_on_the_edges_of_the_labels(scenes):
    def mean_step(scene, shift):
        """Mean step of the image's colours across label edges moved by ``shift`` columns."""
        labels = scene.human_map.astype(int) * 20 + scene.category_map
        edges = (labels[:, 1:] != labels[:, :-1])[:, 10:-10]
        steps = np.abs(np.diff(scene.image.astype(float), axis=1)).sum(axis=2)
        return steps[:, 10 + shift : steps.shape[1] - 10 + shift][edges].mean()

    steps = {s: np.mean([mean_step(scene, s) for scene in scenes]) for s in range(-6, 7)}
    assert max(steps, key=steps.get) == 0, steps
    assert steps[0] > 2.5 * max(steps[-6], steps[6]), steps


def test_people_hide_each_other(scenes):
    def touch(human_map):
        left, right = human_map[:, :-1], human_map[:, 1:]
        return bool(((left != right) & (left > 0) & (right > 0)).any())

    groups = [scene for scene in scenes if scene.num_people > 1]
    assert np.mean([touch(scene.human_map) for scene in groups]) > 0.5


def test_most_people_are_large(scenes):
    areas = []
    for scene in scenes:
        for human in range(1, scene.num_people + 1):
            rows, columns = np.nonzero(scene.human_map == human)
            areas.append(np.ptp(rows + 1) * np.ptp(columns + 1) / scene.human_map.size)
    assert np.mean(np.array(areas) > 0.1) > 0.6
    assert min(areas) < 0.08


@pytest.mark.parametrize("num_people", [0, 1, 6])
def test_number_of_people_can_be_chosen(num_people):
    for seed in range(4):
        scene = draw_scene(np.random.default_rng(seed), 64, 80, num_people)
        assert sorted(np.unique(scene.human_map)) == list(range(num_people + 1))


@pytest.mark.parametrize("arguments", [(63, 200), (200, 63), (100, 100, 7), (100, 100, -1)])
def test_impossible_scenes_are_refused(arguments):
    with pytest.raises(ValueError, match="at least 64|num_people"):
        draw_scene(np.random.default_rng(0), *arguments)


# Figures


def upright_person(seed, yaw):
    """Somebody with hanging arms, bare arms and legs, and nothing in front of them."""
    person = sample_person(np.random.default_rng(seed))
    arms = {side: LimbPose((15.0, 0.0), (12.0, 0.0)) for side in Side}
    legs = {side: LimbPose((7.0, 0.0), (6.0, 0.0)) for side in Side}
    top = dataclasses.replace(person.outfit.top, sleeves=0.0, hem=0.2)
    pants = None
    if person.outfit.pants is not None:
        pants = dataclasses.replace(person.outfit.pants, length=0.6)
    outfit = dataclasses.replace(
        person.outfit, top=top, coat=None, pants=pants, gloves=None, handbag=None, socks=None
    )
    if outfit.skirt is not None:
        outfit = dataclasses.replace(
            outfit, skirt=dataclasses.replace(outfit.skirt, length=0.6, flare=1.1)
        )
    pose = Pose("upright", arms=arms, legs=legs)
    return dataclasses.replace(person, pose=pose, outfit=outfit, yaw=yaw)


def draw_upright(seed, yaw):
    layer = draw_figure(upright_person(seed, yaw), (75.0, 205.0), 190.0, 5.0, (220, 150), 1.0)
    columns = {part: np.nonzero(layer.label == part)[1] for part in Part}
    return layer, columns


@pytest.mark.parametrize("seed", range(6))
def test_left_is_the_persons_left(seed):
    for yaw, sign in ((0.0, 1), (180.0, -1)):
        _, columns = draw_upright(seed, yaw)
        for left, right in (
            (Part.LEFT_ARM, Part.RIGHT_ARM),
            (Part.LEFT_LEG, Part.RIGHT_LEG),
            (Part.LEFT_SHOE, Part.RIGHT_SHOE),
        ):
            # The left of somebody who faces the viewer is on the image's right.
            assert sign * (columns[left].mean() - columns[right].mean()) > 5


@pytest.mark.parametrize("seed", range(6))
def test_face_shows_from_the_front_only(seed):
    assert len(draw_upright(seed, 0.0)[1][Part.FACE]) > 30
    assert len(draw_upright(seed, 180.0)[1][Part.FACE]) == 0
    assert len(draw_upright(seed, 180.0)[1][Part.SUNGLASSES]) == 0


def test_profile_faces_where_it_is_turned_to():
    for yaw, sign in ((90.0, 1), (-90.0, -1)):
        layer, columns = draw_upright(3, yaw)
        head = (layer.label == Part.FACE) | (layer.label == Part.HAIR) | (layer.label == Part.HAT)
        assert sign * (columns[Part.FACE].mean() - np.nonzero(head)[1].mean()) > 1


def test_layer_holds_labels_only_where_it_is_drawn():
    for seed in range(8):
        person = sample_person(np.random.default_rng(seed))
        layer = draw_figure(person, (80.0, 150.0), 140.0, 5.0, (160, 160), -1.0)
        assert layer.solid[layer.label > 0].all()
        assert (layer.alpha[layer.solid] > 0).all()
        assert (layer.alpha[layer.label > 0] >= 0.25).all()
        # Where nothing covers the pixel nothing is drawn, and a fully covered one holds a shape.
        assert not layer.solid[layer.alpha == 0].any()
        assert layer.solid[layer.alpha == 1].all()
        assert (layer.rgb[layer.alpha == 0] == 0).all()


def test_figure_outside_of_the_image_is_none():
    person = sample_person(np.random.default_rng(0))
    assert draw_figure(person, (900.0, 100.0), 90.0, 5.0, (100, 100), 1.0) is None


def test_canvas_writes_colour_and_label_through_one_mask():
    canvas = FigureCanvas(40, 30, 1.0, (0, 0))
    square = np.array([[5.0, 5.0], [25.0, 5.0], [25.0, 20.0], [5.0, 20.0]])
    canvas.fill([square], (200.0, 100.0, 50.0), Part.COAT)
    assert np.array_equal(canvas.label == Part.COAT, canvas.covered == 255)
    assert np.array_equal(canvas.rgb.any(axis=2), canvas.covered == 255)
    assert (canvas.covered > 0).sum() == pytest.approx(20 * 15, rel=0.15)

    before = canvas.label.copy()
    canvas.decorate([square + 10.0], (1.0, 2.0, 3.0), Part.COAT)
    assert np.array_equal(canvas.label, before)
    changed = (canvas.rgb == (1, 2, 3)).all(axis=2)
    assert changed.any() and (before[changed] == Part.COAT).all()

    canvas.fill([square], (9.0, 9.0, 9.0), Part.HAT, holes=[square * 0.5 + 6.0])
    assert canvas.label[12, 11] == Part.COAT and canvas.label[6, 6] == Part.HAT


# The data set on disk


def test_layout_and_lists(data_set):
    root, manifest = data_set
    lists = {name: (root / f"{name}_id.txt").read_text().split() for name in ("train", "val")}
    assert lists == {
        "train": ["0000001", "0000002", "0000003", "0000004"],
        "val": ["0000005", "0000006"],
    }
    expected = {"train_id.txt", "val_id.txt", "drawn_scenes.json"}
    for folder, names in (("Training", lists["train"]), ("Validation", lists["val"])):
        for name in names:
            expected.add(f"{folder}/Images/{name}.jpg")
            for kind in ("Category_ids", "Human_ids", "Instance_ids"):
                expected.add(f"{folder}/{kind}/{name}.png")
            expected.add(f"{folder}/Instance_ids/{name}.txt")
    assert set(files_of(root)) == expected
    assert manifest == json.loads((root / "drawn_scenes.json").read_text())
    assert (manifest["num_train"], manifest["num_val"], manifest["seed"]) == (4, 2, 5)


def test_files_of_an_image_agree(data_set):
    root, manifest = data_set
    people = Counter()
    for split, folder in (("train", "Training"), ("val", "Validation")):
        for name in (root / f"{split}_id.txt").read_text().split():
            category, human, instance = (
                read_ids(root, folder, kind, name)
                for kind in ("Category_ids", "Human_ids", "Instance_ids")
            )
            with Image.open(root / folder / "Images" / f"{name}.jpg") as image:
                assert (image.mode, image.size, image.format) == ("RGB", (128, 96), "JPEG")
            assert np.array_equal(category > 0, human > 0)
            assert sorted(np.unique(human)) == list(range(human.max() + 1))
            table = (root / folder / "Instance_ids" / f"{name}.txt").read_text().splitlines()
            rows = [tuple(map(int, line.split())) for line in table]
            assert [row[0] for row in rows] == sorted(set(np.unique(instance).tolist()) - {0})
            for value, part, number in rows:
                assert value == part + 20 * (number - 1)
                mask = (category == part) & (human == number)
                assert np.array_equal(instance == value, mask)
            people[split] += int(human.max())
    assert manifest["num_people"] == dict(people)


def test_files_hold_the_drawn_scene(data_set):
    root, _ = data_set
    name = (root / "val_id.txt").read_text().split()[1]
    scene = draw_scene(REQUEST.rng("val", 1), *REQUEST.image_size)
    with Image.open(root / "Validation" / "Images" / f"{name}.jpg") as image:
        assert np.abs(np.array(image) - scene.image.astype(float)).mean() < 12  # JPEG loses a bit
    for kind, ids in (("Category_ids", scene.category_map), ("Human_ids", scene.human_map)):
        assert np.array_equal(read_ids(root, "Validation", kind, name), ids)


def test_bytes_do_not_depend_on_the_number_of_workers(data_set, tmp_path):
    write_data_set(tmp_path / "data", REQUEST, num_workers=2)
    assert files_of(tmp_path / "data") == files_of(data_set[0])


class KilledRequest(CIHPRequest):
    """As if the system killed the process of the third image."""

    def write_image(self, root, split, index, name):
        if name == "0000003":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write_image(root, split, index, name)


def test_a_killed_process_is_an_error_and_the_next_run_goes_on(data_set, tmp_path):
    root = tmp_path / "data"
    with pytest.raises(WorkerDiedError, match="fewer workers"):
        write_data_set(root, KilledRequest(**dataclasses.asdict(REQUEST)), num_workers=2)
    for path in root.rglob("*.part"):  # what the ended processes were writing, under no name yet
        path.unlink()
    write_data_set(root, REQUEST)
    assert files_of(root) == files_of(data_set[0])


def test_an_image_depends_on_seed_split_and_index_alone(data_set, tmp_path):
    write_data_set(tmp_path / "a", dataclasses.replace(REQUEST, num_train=1, num_val=1))
    small, large = files_of(tmp_path / "a"), files_of(data_set[0])
    for kind, suffix in (("Images", "jpg"), ("Human_ids", "png"), ("Instance_ids", "txt")):
        train = f"Training/{kind}/0000001.{suffix}"
        assert small[train] == large[train]
        # Ids run on over the splits, so the first validation image has another name.
        first, moved = (f"Validation/{kind}/{name}.{suffix}" for name in ("0000002", "0000005"))
        assert small[first] == large[moved]
        assert small[first] != small[train]
    write_data_set(tmp_path / "b", dataclasses.replace(REQUEST, num_train=1, num_val=0, seed=6))
    other = files_of(tmp_path / "b")
    assert other["Training/Images/0000001.jpg"] != small["Training/Images/0000001.jpg"]


def test_finished_folder_is_left_alone(data_set):
    root, _ = data_set
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert write_data_set(root, REQUEST) is None
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == times


def test_interrupted_drawing_goes_on(data_set, tmp_path, monkeypatch):
    drawn = []

    def draw_and_fail(rng, height, width):
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(draw_scene(rng, height, width))
        return drawn[-1]

    root = tmp_path / "data"
    monkeypatch.setattr(cihp_writer, "draw_scene", draw_and_fail)
    with pytest.raises(KeyboardInterrupt):
        write_data_set(root, REQUEST)
    assert not (root / MANIFEST_NAME).exists()
    with pytest.raises(FolderInUseError, match="seed 5 instead of 1"):
        write_data_set(root, dataclasses.replace(REQUEST, seed=1))
    # As if the power had failed between two files of an image.
    (root / "Training" / "Instance_ids" / "0000002.txt").unlink()
    (root / "Training" / "Human_ids" / "0000002.png").write_bytes(b"half")

    drawn.clear()

    def draw_and_count(rng, height, width):
        drawn.append(draw_scene(rng, height, width))
        return drawn[-1]

    monkeypatch.setattr(cihp_writer, "draw_scene", draw_and_count)
    assert write_data_set(root, REQUEST) == data_set[1]
    assert len(drawn) == 4  # image 2 again, and 4 to 6
    assert files_of(root) == files_of(data_set[0])


def test_other_peoples_folders_are_refused(data_set, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FolderInUseError, match="no drawn data set"):
        write_data_set(tmp_path, REQUEST)
    assert files_of(tmp_path) == {"notes.txt": b"mine"}

    before = files_of(data_set[0])
    with pytest.raises(FolderInUseError, match="num_train 4 instead of 5"):
        write_data_set(data_set[0], dataclasses.replace(REQUEST, num_train=5))
    assert files_of(data_set[0]) == before

    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / MANIFEST_NAME).write_text("{")
    with pytest.raises(FolderInUseError, match="not readable as JSON"):
        write_data_set(tmp_path / "broken", REQUEST)


@pytest.mark.parametrize(
    "change",
    [{"num_train": 0, "num_val": 0}, {"num_val": -1}, {"seed": -1}, {"image_size": (32, 320)}],
)
def test_impossible_requests_are_refused(change):
    with pytest.raises(ValueError):
        dataclasses.replace(REQUEST, **change)


def test_command_line(data_set, tmp_path, capsys):
    root = tmp_path / "out"
    command = f"--output {root} --train 4 --val 2 --seed 5 --size 96 128 --workers 1".split()
    assert main(command) == 0
    assert f"images of {sum(data_set[1]['num_people'].values())} people" in capsys.readouterr().out
    assert files_of(root) == files_of(data_set[0])
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*command, "--seed", "6"]) == 1
    assert "error: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([])


def test_a_contact_sheet_is_named_as_a_picture(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--contact-sheet", str(tmp_path / "new" / "sheet.xyz")])
    assert "sheet.xyz is not named as a picture, as .png" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    for suffix in ("psd", "h5", "xbm", "blp"):  # only read, or without colours
        with pytest.raises(SystemExit):
            main(["--contact-sheet", str(tmp_path / "new" / f"sheet.{suffix}")])
        assert f"sheet.{suffix} is not named as a picture" in capsys.readouterr().err
    (tmp_path / "file").touch()
    for sheet, seed, problem in (("file/s.png", "0", "exists"), ("s.png", "-1", "The seed must")):
        assert main(["--contact-sheet", str(tmp_path / sheet), "--seed", seed]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ") and problem in error
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "drawn_scenes.json").write_text("[]")
    assert main(["--output", str(tmp_path / "mine"), "--train", "1", "--val", "1"]) == 1
    assert "no manifest of drawn scenes" in capsys.readouterr().err
    assert main(["--contact-sheet", str(tmp_path / "new" / "sheet.webp")]) == 0
    with Image.open(tmp_path / "new" / "sheet.webp") as sheet:
        assert sheet.format == "WEBP"


def test_contact_sheet_shows_scenes_beside_their_labels():
    sheet = draw_contact_sheet(seed=2, rows=1, columns=2, height=64, width=80)
    scene = draw_scene(np.random.default_rng([2, 0]), 64, 80)
    assert np.array_equal(sheet[:, :80], scene.image)
    colours = np.array(CIHP_PART_LABELS.colors)[scene.category_map]
    assert np.array_equal(sheet[:, 80:160], colours)


def test_package_needs_neither_torch_nor_detectron2():
    code = (
        f"import sys, {drawn_scenes.__name__}.__main__;"
        "print([m for m in ('torch', 'detectron2') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
