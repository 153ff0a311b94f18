import subprocess
import sys

import cv2
import numpy as np
import pytest

from aiparsing_d2.structures.part_labels import (
    CIHP_PART_LABELS,
    LV_MHP_V2_PART_LABELS,
    PartLabels,
    distinct_colors,
)

GREY = (128, 128, 128)


def make_labels(num_classes=4, **changes):
    fields = {
        "names": ["Background"] + [f"part-{i}" for i in range(1, num_classes)],
        "colors": [GREY] * num_classes,
        "flip_pairs": [],
    }
    return PartLabels(**{**fields, **changes})


def test_cihp_pairs_join_left_and_right_of_one_name():
    assert CIHP_PART_LABELS.num_classes == 20
    names = CIHP_PART_LABELS.names
    pairs = {(names[left], names[right]) for left, right in CIHP_PART_LABELS.flip_pairs}
    assert pairs == {(f"Left-{part}", f"Right-{part}") for part in ("arm", "leg", "shoe")}
    assert len(set(CIHP_PART_LABELS.colors)) == 20


def test_lv_mhp_v2_pairs_join_left_and_right_of_one_name():
    names = LV_MHP_V2_PART_LABELS.names
    assert LV_MHP_V2_PART_LABELS.num_classes == 59
    assert [names[label] for label in (0, 3, 11, 34, 58)] == [
        "Background",
        "Face",
        "Jacket/windbreaker/hoodie",
        "Coat",
        "Other-lower-body-clothes",
    ]
    pairs = LV_MHP_V2_PART_LABELS.flip_pairs
    assert pairs == ((5, 6), (7, 8), (22, 23), (24, 25), (26, 27), (28, 29), (30, 31), (32, 33))
    for left, right in pairs:
        assert names[left].removeprefix("Left-") == names[right].removeprefix("Right-")
    sided = {names.index(name) for name in names if name.startswith(("Left-", "Right-"))}
    assert sided == {label for pair in pairs for label in pair}


def test_distinct_colors_are_far_apart_to_the_eye():
    colors = LV_MHP_V2_PART_LABELS.colors
    assert colors[0] == (0, 0, 0)
    assert distinct_colors(20) == colors[:20]
    # OpenCV's L*a*b* as an independent one. A difference of 2.3 is just noticeable.
    bgr = np.array([*colors, (224, 224, 224)], dtype=np.float32)[None, :, ::-1] / 255
    lab = cv2.cvtColor(np.ascontiguousarray(bgr), cv2.COLOR_BGR2Lab)[0]
    distance = np.linalg.norm(lab[:, None] - lab, axis=-1)
    assert distance[np.triu_indices(60, 1)].min() > 20
    # As rule: each is the farthest from those before it, so distances to them never grow.
    nearest = [min(distance[k, :k].min(), distance[k, -1]) for k in range(1, 59)]
    assert np.all(np.diff(nearest) < 0.5)


def test_flip_table_swaps_pairs_and_keeps_the_rest():
    table = CIHP_PART_LABELS.flip_table()
    assert table.dtype == np.uint8 and table.shape == (256,)
    part_map = np.array([[0, 13, 14, 15], [16, 17, 18, 19], [255, 20, 1, 5]], dtype=np.uint8)
    expected = [[0, 13, 15, 14], [17, 16, 19, 18], [255, 20, 1, 5]]
    np.testing.assert_array_equal(table[part_map], expected)


def test_lists_and_tuples_make_equal_label_sets():
    as_lists = PartLabels(["Background", "Hat"], [[0, 0, 0], [1, 2, 3]], [])
    as_tuples = PartLabels(("Background", "Hat"), ((0, 0, 0), (1, 2, 3)))
    assert as_lists == as_tuples and hash(as_lists) == hash(as_tuples)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colors": [GREY] * 3}, "4 names but 3 colors"),
        ({"colors": [GREY] * 3 + [(0, 256, 0)]}, "outside of 0..255"),
        ({"colors": [GREY] * 3 + [(0, 1)]}, "must have 3 entries"),
        ({"names": ["Background", "Hat", "Hat", "Face"]}, "repeated: Hat"),
        ({"flip_pairs": [(1, 2, 3)]}, "must have 2 entries"),
        ({"flip_pairs": [(1, 4)]}, "label 4 is not a part"),
        ({"flip_pairs": [(0, 1)]}, "label 0 is not a part"),
        ({"flip_pairs": [(1, 2), (2, 3)]}, "Label 2 is in more than one"),
        ({"flip_pairs": [(1, 1)]}, "paired twice"),
        ({"names": ["Background"], "colors": [GREY]}, "background and 1 to 254 parts"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_labels(**changes)


def test_colorize():
    image = CIHP_PART_LABELS.colorize(np.array([[0, 13], [19, 255]], dtype=np.uint8))
    assert image.dtype == np.uint8
    assert image.tolist() == [[[0, 0, 0], [0, 0, 255]], [[255, 170, 0], [224, 224, 224]]]
    with pytest.raises(ValueError, match="20"):
        CIHP_PART_LABELS.colorize(np.array([[20]], dtype=np.uint8))


def test_label_sets_need_neither_torch_nor_detectron2():
    code = (
        "import sys, aiparsing_d2.data.annotations, aiparsing_d2.structures.part_labels\n"
        "loaded = {'torch', 'detectron2'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
