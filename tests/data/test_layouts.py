import itertools
import subprocess
import sys

import pytest

from aiparsing_d2.data import layouts


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (
            layouts.CIHP,
            {"Training/", "Validation/", "Testing/", "train_id.txt", "val_id.txt", "test_id.txt"},
        ),
        (layouts.LV_MHP_V2, {"train/", "val/", "test/", "list/"}),
        (layouts.VIP, {"Images/", "Annotations/", "lists/"}),
        (layouts.VIP_FLAT, {"Images/", "Category_ids/", "Human_ids/", "lists/"}),
    ],
)
def test_top_level_names(layout, names):
    assert set(layouts.top_level_names(layout)) == names


def test_the_layout_of_vip_is_found(tmp_path):
    assert layouts.vip_layout(tmp_path) is layouts.VIP_FLAT
    (tmp_path / "Annotations").mkdir()
    assert layouts.vip_layout(tmp_path) is layouts.VIP


def test_names():
    assert layouts.cihp_image_id(35374) == "0035374"
    assert layouts.vip_frame_id("videos7", 26) == "videos7/000000000026"
    name = layouts.PersonFileName("a_01", 12, 3)
    assert str(name) == "a_01_12_03.png"
    assert layouts.PersonFileName.parse("a_01_12_03") == name
    for stem in ("10_02", "10_02_x", "_02_01", "10_02_" + "9" * 5000):
        assert layouts.PersonFileName.parse(stem) is None


def test_choice_does_not_depend_on_the_order():
    names = ["a.JPG", "a.jpg", "a.png", "b.PNG", "b.Jpeg", "c.JPG", "c.txt", "._a.jpg", "d.e.Png"]
    expected = {"a": "a.jpg", "b": "b.Jpeg", "c": "c.JPG", "d.e": "d.e.Png"}
    for order in itertools.islice(itertools.permutations(names), 0, None, 997):
        assert layouts.choose_files(order, layouts.IMAGE_SUFFIXES) == expected


def test_neither_torch_nor_detectron2_is_needed():
    code = (
        "import sys; import aiparsing_d2.data.layouts, aiparsing_d2.data.id_lists; "
        "import aiparsing_d2.data.image_files, aiparsing_d2.preparation; "
        "sys.exit('torch' in sys.modules or 'detectron2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
