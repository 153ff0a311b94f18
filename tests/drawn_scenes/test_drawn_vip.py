"""Tests of the drawn videos and of VIP's layout: through files and the real loader."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

from aiparsing_d2.data.annotations import read_person_annotations
from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper
from aiparsing_d2.data.datasets import load_vip
from aiparsing_d2.drawn_scenes import (
    DrawnVideo,
    FolderInUseError,
    VIPRequest,
    write_data_set,
)
from aiparsing_d2.drawn_scenes.__main__ import main
from aiparsing_d2.drawn_scenes.parts import Side
from aiparsing_d2.drawn_scenes.person import sample_person
from aiparsing_d2.drawn_scenes.poses import standing, walking
from aiparsing_d2.drawn_scenes.skeleton import LimbPose, Skeleton
from aiparsing_d2.drawn_scenes.video import (
    Actor,
    KeyFrame,
    interpolate_poses,
    plan,
    walk,
)
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS

REQUEST = VIPRequest(num_train=3, num_val=2, seed=5, image_size=(96, 128), annotated_frames=3)
FRAMES = ("000000000001", "000000000026", "000000000051")
KINDS = ("Category_ids", "Human_ids", "Instance_ids")


@pytest.fixture(autouse=True)
def no_index_cache(monkeypatch):
    monkeypatch.setenv("AIPARSING_INDEX_CACHE", "0")


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "data"
    return root, write_data_set(root, REQUEST)


def files_of(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def read_ids(root, kind, name):
    with Image.open(root / "Annotations" / kind / f"{name}.png") as image:
        assert image.mode == "L"
        return np.array(image)


# Movement


def test_ends_of_an_interpolation_are_the_poses():
    rng = np.random.default_rng(0)
    for _ in range(5):
        start, end = walking(rng), standing(rng)
        person = sample_person(rng)
        for share, pose in ((0.0, start), (1.0, end)):
            between = interpolate_poses(start, end, share)
            expected = Skeleton(person.body, pose, 0.0, 0.0).joints()
            found = Skeleton(person.body, between, 0.0, 0.0).joints()
            assert np.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("start", "end", "raised", "azimuth"),
    [
        ((20.0, 90.0), (20.0, -90.0), 0.0, None),  # a leg swings through below the hip
        ((0.0, 0.0), (90.0, 0.0), 45.0, 0.0),
        ((90.0, 0.0), (90.0, 90.0), 90.0, 45.0),
        ((60.0, 170.0), (60.0, -170.0), None, 180.0),  # over the seam of the azimuth
    ],
)
def test_limbs_turn_the_shortest_way(start, end, raised, azimuth):
    pose = standing(np.random.default_rng(0))
    first, last = (
        dataclasses.replace(pose, legs={side: LimbPose(way, way) for side in Side})
        for way in (start, end)
    )
    middle = interpolate_poses(first, last, 0.5).legs[Side.LEFT].upper
    if raised is not None:
        assert middle[0] == pytest.approx(raised, abs=1e-4)
    if azimuth is not None:
        assert abs(middle[1]) == pytest.approx(azimuth, abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_feet_on_the_ground_do_not_slide(seed):
    rng = np.random.default_rng(seed)
    person, scale = sample_person(rng), 100.0
    start = KeyFrame(0.0, standing(rng), 0.0, 0.0)
    steps = walk(rng, person, scale, (-50.0, 400.0), start)
    assert len(steps) >= 3
    for step, following in zip(steps[:-1], steps[1:], strict=True):
        assert following.x > step.x and following.time > step.time
        assert 0 < step.yaw <= 90  # walks to where it looks
        ankles = [
            {
                side: frame.x + scale * leg.ankle[0]
                for side, leg in Skeleton(person.body, frame.pose, frame.yaw, 0.0).legs.items()
            }
            for frame in (step, following)
        ]
        front = max(ankles[0], key=ankles[0].get)
        assert ankles[1][front] == pytest.approx(ankles[0][front], abs=1.0)
        assert ankles[1][Side(-front)] > ankles[0][Side(-front)] + 10


@pytest.mark.parametrize("seed", range(4))
def test_key_frames_are_met_and_nothing_jumps_between_them(seed):
    rng = np.random.default_rng(seed)
    person, scale = sample_person(rng), 100.0
    key_frames = plan(rng, person, scale, (0.0, 300.0), 120)
    assert key_frames[0].time <= 0 and key_frames[-1].time >= 120
    actor = Actor(person, 0.0, scale, key_frames)

    def joints(time):
        now, x = actor.at(time)
        return now.skeleton(0.0).joints() * scale + (x, 0, 0)

    for key in key_frames[:-1]:
        posed = dataclasses.replace(person, pose=key.pose, yaw=key.yaw)
        expected = posed.skeleton(0.0).joints() * scale + (key.x, 0, 0)
        assert np.allclose(joints(key.time), expected, atol=0.01)
    moved = np.linalg.norm(np.diff([joints(time) for time in range(120)], axis=0), axis=2)
    assert 5 < moved.max() < 15  # at most 0.15 of the height from one frame to the next


def test_people_move_smoothly_and_stay_who_they_are():
    moved = []
    for seed in range(6):
        video = DrawnVideo(np.random.default_rng([6, seed]), 96, 128, 51)
        frames = [video.draw_frame(index) for index in (0, 1, 2, 25, 50)]
        people = [
            {(p.seed, p.body, p.outfit) for p in (layer.person for layer in frame.layers)}
            for frame in frames
        ]
        # Some come and go, but nobody changes.
        assert len({seed for seed, _, _ in set.union(*people)}) == len(set.union(*people))
        assert set.intersection(*people)

        def change(a, b, frames=frames):
            return np.mean(frames[a].category_map != frames[b].category_map)

        assert change(0, 1) < 0.1 and change(1, 2) < 0.1
        moved.append((change(0, 1), change(0, 3), change(3, 4)))
    small, *large = np.mean(moved, axis=0)
    assert min(large) > 3 * small > 0


def test_place_and_light_stay_the_same():
    unchanged = []
    for seed in range(8):
        video = DrawnVideo(np.random.default_rng([7, seed]), 96, 128, 51)
        first, last = video.draw_frame(0), video.draw_frame(50)
        # Above all heads there are no shadows.
        top = min(np.nonzero(frame.human_map)[0].min() for frame in (first, last))
        if top > 4:
            unchanged.append((first.image[: top - 2] == last.image[: top - 2]).mean())
    still = [share for share in unchanged if share > 0.99]
    assert 0 < len(still) < len(unchanged), unchanged  # in the others the camera turns


def test_somebody_is_in_every_frame():
    for seed in range(8):
        video = DrawnVideo(np.random.default_rng([8, seed]), 64, 80, 201)
        for index in range(0, 201, 40):
            assert video.draw_frame(index).num_people >= 1


def test_frames_can_be_drawn_in_any_order():
    forth, back = (DrawnVideo(np.random.default_rng(3), 64, 80, 30) for _ in range(2))
    images = [forth.draw_frame(index).image for index in (0, 12, 29)]
    again = [back.draw_frame(index).image for index in (29, 12, 0)]
    assert all(np.array_equal(a, b) for a, b in zip(images, again[::-1], strict=True))
    with pytest.raises(IndexError, match="Frame 30 is not one of 30"):
        forth.draw_frame(30)


# The data set on disk


def test_layout_and_lists(data_set):
    root, manifest = data_set
    videos = {"train": ("videos1", "videos2", "videos3"), "val": ("videos4", "videos5")}
    expected = {"drawn_scenes.json"}
    for split, names in videos.items():
        ids = [f"{name}/{frame}" for name in names for frame in FRAMES]
        assert (root / "lists" / f"{split}_id.txt").read_text().splitlines() == ids
        expected.add(f"lists/{split}_id.txt")
        for frame_id in ids:
            expected |= {f"Images/{frame_id}.jpg", f"Annotations/Instance_ids/{frame_id}.txt"}
            expected |= {f"Annotations/{kind}/{frame_id}.png" for kind in KINDS}
    assert (root / "lists" / "val_videos.txt").read_text() == "videos4\nvideos5\n"
    assert set(files_of(root)) == expected | {"lists/val_videos.txt"}
    assert (manifest["layout"], manifest["annotated_frames"]) == ("vip", 3)


def test_loader_and_mapper_read_it(data_set):
    root, manifest = data_set
    mapper = ParsingDatasetMapper(True, augmentations=[], part_labels=CIHP_PART_LABELS)
    for split, num_frames in (("train", 9), ("val", 6)):
        records = load_vip(root, split)
        assert len({record["image_id"] for record in records}) == len(records) == num_frames
        people = 0
        for record in records:
            instances = mapper(record)["instances"]
            assert instances.image_size == (96, 128)
            assert len(instances) >= 1
            people += len(instances)
        assert people == manifest["num_people"][split]


def test_tables_agree_with_the_maps(data_set):
    root = data_set[0]
    for record in [*load_vip(root, "train"), *load_vip(root, "val")]:
        name = record["image_id"]
        category, human, instance = (read_ids(root, kind, name) for kind in KINDS)
        table = (root / "Annotations" / "Instance_ids" / f"{name}.txt").read_text()
        rows = [tuple(map(int, line.split())) for line in table.splitlines()]
        assert [row[0] for row in rows] == sorted(set(instance[instance > 0].tolist()))
        for value, part, number in rows:
            assert value == part + 20 * (number - 1)
            assert np.array_equal(instance == value, (category == part) & (human == number))
        assert np.array_equal(instance > 0, category > 0)
        assert len(read_person_annotations(record, 20).boxes) == len({row[2] for row in rows})


def test_annotated_frames_of_a_video_differ(data_set):
    for video in ("videos1", "videos4"):
        maps = [read_ids(data_set[0], "Category_ids", f"{video}/{frame}") for frame in FRAMES]
        for before, after in zip(maps[:-1], maps[1:], strict=True):
            assert 0.01 < np.mean(before != after) < 0.7


def test_all_frames_can_be_written(tmp_path):
    request = VIPRequest(num_train=1, num_val=0, image_size=(64, 80), annotated_frames=2)
    write_data_set(tmp_path / "few", request)
    write_data_set(tmp_path / "all", dataclasses.replace(request, all_frames=True))
    few, everything = files_of(tmp_path / "few"), files_of(tmp_path / "all")
    images = {name for name in everything if name.endswith(".jpg")}
    assert images == {f"Images/videos1/{frame:012d}.jpg" for frame in range(1, 27)}
    extra = {name for name in images if not re.search("0(01|26).jpg$", name)}
    shared = everything.keys() - extra - {"drawn_scenes.json"}
    assert shared == few.keys() - {"drawn_scenes.json"}
    assert all(everything[name] == few[name] for name in shared)
    with pytest.raises(FolderInUseError, match="all_frames True instead of False"):
        write_data_set(tmp_path / "all", request)


def test_drawing_twice_or_going_on_gives_the_same_bytes(data_set, tmp_path):
    root = tmp_path / "again"
    assert write_data_set(root, REQUEST) == data_set[1]
    assert files_of(root) == files_of(data_set[0])

    # As if the power had failed before the last file of a frame.
    (root / "drawn_scenes.json").unlink()
    (root / "drawn_scenes.unfinished.json").write_text(json.dumps(REQUEST.manifest()))
    annotations = root / "Annotations"
    (annotations / "Instance_ids" / "videos2" / f"{FRAMES[1]}.txt").unlink()
    (annotations / "Human_ids" / "videos2" / f"{FRAMES[1]}.png").write_bytes(b"half")
    assert write_data_set(root, REQUEST) == data_set[1]
    assert files_of(root) == files_of(data_set[0])


@pytest.mark.parametrize("change", [{"annotated_frames": 0}, {"num_train": 0, "num_val": 0}])
def test_impossible_requests_are_refused(change):
    with pytest.raises(ValueError, match="at least one annotated frame|0 validation videos"):
        dataclasses.replace(REQUEST, **change)


def test_command_line(data_set, tmp_path, capsys):
    command = ["--layout", "vip", "--output", str(tmp_path / "out"), "--annotated-frames", "3"]
    options = "--train 3 --val 2 --seed 5 --size 96 128 --workers 1".split()
    assert main([*command, *options]) == 0
    assert "3 training and 2 validation videos" in capsys.readouterr().out
    assert files_of(tmp_path / "out") == files_of(data_set[0])
