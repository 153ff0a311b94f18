import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aiparsing_d2.data.annotations import (
    AnnotationError,
    read_label_png,
    read_person_annotations,
)
from aiparsing_d2.data.datasets import load_cihp
from aiparsing_d2.structures.part_labels import LV_MHP_V2_PART_LABELS


@pytest.fixture
def record(two_people):
    (record,) = load_cihp(two_people.root, "train")
    return record


def add_scene(folder, category_map, human_map):
    folder.add("0000001", category_map, human_map)
    (record,) = load_cihp(folder.root, "train")
    return record


def test_people_maps_and_boxes(record, category_map):
    annotations = read_person_annotations(record, num_classes=20)

    np.testing.assert_array_equal(annotations.category_map, category_map)
    left, right = category_map.copy(), category_map.copy()
    left[:, 3:] = 0
    right[:, :4] = 0
    np.testing.assert_array_equal(annotations.person_maps, [left, right])
    assert annotations.person_maps.dtype == np.uint8
    # The numbers of the people, 1 and 4, are not contiguous. The ignored pixel counts.
    np.testing.assert_array_equal(annotations.boxes, [[0, 0, 3, 3], [4, 1, 6, 3]])
    assert annotations.boxes.dtype == np.float64


def test_boxes_against_brute_force(cihp_folder):
    rng = np.random.default_rng(0)
    category_map = rng.integers(0, 20, (30, 40), dtype=np.uint8)
    human_map = np.zeros((30, 40), dtype=np.uint8)
    for number in (3, 7, 200, 254):
        top, left = rng.integers(0, 20, 2)
        human_map[top : top + rng.integers(1, 10), left : left + rng.integers(1, 20)] = number
    record = add_scene(cihp_folder, category_map, human_map)

    annotations = read_person_annotations(record)
    numbers = sorted(set(human_map.ravel().tolist()) - {0})
    assert len(annotations.boxes) == len(numbers)
    for number, person_map, box in zip(numbers, annotations.person_maps, annotations.boxes):
        xs, ys = [], []
        for y in range(30):
            for x in range(40):
                mine = human_map[y, x] == number
                assert person_map[y, x] == (category_map[y, x] if mine else 0)
                if mine and category_map[y, x]:
                    xs.append(x)
                    ys.append(y)
        assert box.tolist() == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]


def test_image_without_people(cihp_folder):
    category_map = np.zeros((5, 7), dtype=np.uint8)
    category_map[0, 0] = 255
    annotations = read_person_annotations(add_scene(cihp_folder, category_map, category_map * 0))
    assert annotations.person_maps.shape == (0, 5, 7)
    assert annotations.person_maps.dtype == np.uint8
    assert annotations.boxes.shape == (0, 4)
    np.testing.assert_array_equal(annotations.category_map, category_map)


def test_numbers_without_labelled_pixels_and_255_are_no_people(cihp_folder):
    category_map = np.array([[0, 5, 6, 255]], dtype=np.uint8)
    human_map = np.array([[1, 2, 255, 255]], dtype=np.uint8)
    annotations = read_person_annotations(add_scene(cihp_folder, category_map, human_map))
    np.testing.assert_array_equal(annotations.person_maps, [[[0, 5, 0, 0]]])


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palette_keeps_indices(tmp_path, bits):
    labels = np.array([[0, 1, 1], [1, 0, 0]], dtype=np.uint8)
    image = Image.fromarray(labels)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.save(tmp_path / "labels.png", bits=bits)
    np.testing.assert_array_equal(read_label_png(tmp_path / "labels.png"), labels)


def png_with_4_bit_grey(rows):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 2 * len(rows[0]), len(rows), 4, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_4_bit_grey_is_refused_because_decoders_scale_it(tmp_path):
    path = tmp_path / "labels.png"
    path.write_bytes(png_with_4_bit_grey([bytes([0x12]), bytes([0x00])]))
    # What the labels 1 and 2 would have become.
    assert np.asarray(Image.open(path))[0].tolist() == [17, 34]
    with pytest.raises(AnnotationError, match=r"labels\.png is a 4-bit grey PNG"):
        read_label_png(path)


@pytest.mark.parametrize(
    ("dtype", "shape", "kind"),
    [
        (np.uint8, (4, 6, 3), "8-bit RGB"),
        (np.uint8, (4, 6, 4), "8-bit RGBA"),
        (np.uint8, (4, 6, 2), "8-bit grey with alpha"),
        (np.uint16, (4, 6), "16-bit grey"),
        (np.bool_, (4, 6), "1-bit grey"),
    ],
)
@pytest.mark.parametrize("key", ["category_file_name", "human_file_name"])
def test_other_kinds_of_png_are_refused(record, key, dtype, shape, kind):
    Image.fromarray(np.ones(shape, dtype=dtype)).save(record[key])
    with pytest.raises(AnnotationError, match=f"{record[key]} is a {kind} PNG"):
        read_person_annotations(record)


@pytest.mark.parametrize("key", ["category_file_name", "human_file_name"])
class TestBrokenFiles:
    def test_size_mismatch_names_both_files(self, record, key):
        Image.fromarray(np.zeros((6, 4), dtype=np.uint8)).save(record[key])
        with pytest.raises(AnnotationError, match="4x6 pixels.* 6x4") as error:
            read_person_annotations(record)
        assert record[key] in str(error.value) and record["file_name"] in str(error.value)

    @pytest.mark.parametrize("keep", [0, 20, 50, -30])
    def test_truncated(self, record, key, keep):
        with open(record[key], "rb") as file:
            data = file.read()
        with open(record[key], "wb") as file:
            file.write(data[:keep])
        with pytest.raises(AnnotationError, match=record[key]):
            read_person_annotations(record)

    def test_damaged_pixels(self, record, key):
        with open(record[key], "r+b") as file:
            file.seek(45)
            file.write(b"\xff" * 8)
        with pytest.raises(AnnotationError, match=record[key]):
            read_person_annotations(record)

    def test_not_a_png(self, record, key):
        Image.fromarray(np.zeros((4, 6), dtype=np.uint8)).save(record[key], format="JPEG")
        with pytest.raises(AnnotationError, match=f"{record[key]} .* is not a PNG file"):
            read_person_annotations(record)

    def test_missing(self, record, key):
        record[key] += ".gone.png"
        with pytest.raises(FileNotFoundError, match="gone"):
            read_person_annotations(record)


def test_label_out_of_range(record):
    category_map = read_label_png(record["category_file_name"])
    category_map[0, 0] = 20
    Image.fromarray(category_map).save(record["category_file_name"])

    with pytest.raises(AnnotationError, match=r"1 pixels with label\(s\) 20") as error:
        read_person_annotations(record, num_classes=20)
    assert record["category_file_name"] in str(error.value)
    # Person numbers are no labels: there may be more people than parts.
    read_person_annotations(record, num_classes=21)

    record["ignore_unknown_labels"] = True
    assert read_person_annotations(record, num_classes=20).category_map[0, 0] == 255


# Two people of LV-MHP-v2 who share three pixels; the second one is painted over the first.
FIRST = np.array([[1, 1, 2, 2], [0, 1, 2, 0], [0, 0, 0, 0]], dtype=np.uint8)
SECOND = np.array([[0, 0, 58, 0], [0, 3, 3, 3], [0, 0, 0, 255]], dtype=np.uint8)


def in_red(label_map):
    rgb = np.zeros((*label_map.shape, 3), dtype=np.uint8)
    rgb[..., 0] = label_map
    return Image.fromarray(rgb)


def with_palette(label_map):
    image = Image.fromarray(label_map)
    image.putpalette(list(range(255, -1, -1)) * 3)
    return image


@pytest.fixture
def people_record(tmp_path):
    """Writes label maps, one a person, and gives their record."""

    def write(*people, **entries):
        names = [
            str(tmp_path / f"7_{len(people):02}_{k:02}.png") for k in range(1, 1 + len(people))
        ]
        for name, person in zip(names, people):
            (person if isinstance(person, Image.Image) else in_red(person)).save(name)
        record = {"file_name": "7.jpg", "image_id": "7", "height": 3, "width": 4}
        return {**record, "person_file_names": names, **entries}

    return write


class TestOneFileAPerson:
    @pytest.mark.parametrize("encode", [in_red, Image.fromarray, with_palette])
    def test_people_overlap_and_are_painted_in_order(self, people_record, encode):
        record = people_record(encode(FIRST), encode(SECOND))
        annotations = read_person_annotations(record, num_classes=59)
        np.testing.assert_array_equal(annotations.person_maps, [FIRST, SECOND])
        assert annotations.person_maps.dtype == annotations.category_map.dtype == np.uint8
        np.testing.assert_array_equal(
            annotations.category_map, [[1, 1, 58, 2], [0, 3, 3, 3], [0, 0, 0, 255]]
        )
        np.testing.assert_array_equal(annotations.boxes, [[0, 0, 4, 2], [1, 0, 4, 3]])
        assert annotations.boxes.dtype == np.float64

        record["person_file_names"].reverse()
        turned = read_person_annotations(record, num_classes=59)
        np.testing.assert_array_equal(turned.person_maps, [SECOND, FIRST])
        np.testing.assert_array_equal(
            turned.category_map, [[1, 1, 2, 2], [0, 1, 2, 3], [0, 0, 0, 255]]
        )

    def test_person_without_a_pixel_is_left_out_and_ignored_pixels_are_some(self, people_record):
        ignored = np.where(FIRST, np.uint8(255), np.uint8(0))
        record = people_record(FIRST * 0, ignored, SECOND)
        annotations = read_person_annotations(record, num_classes=59)
        np.testing.assert_array_equal(annotations.person_maps, [ignored, SECOND])
        np.testing.assert_array_equal(annotations.boxes, [[0, 0, 4, 2], [1, 0, 4, 3]])

    def test_nobody(self, people_record):
        annotations = read_person_annotations(people_record(), num_classes=59)
        assert annotations.person_maps.shape == (0, 3, 4)
        assert annotations.boxes.shape == (0, 4)
        np.testing.assert_array_equal(annotations.category_map, np.zeros((3, 4)))

    def test_a_category_map_of_its_own_is_used(self, people_record, tmp_path):
        category_map = np.arange(12, dtype=np.uint8).reshape(3, 4)
        path = tmp_path / "7.png"
        Image.fromarray(category_map).save(path)
        annotations = read_person_annotations(people_record(FIRST, category_file_name=str(path)))
        np.testing.assert_array_equal(annotations.category_map, category_map)
        # A map of all people in red is as suspicious there as in CIHP.
        in_red(category_map).save(path)
        with pytest.raises(AnnotationError, match="7.png is a 8-bit RGB PNG"):
            read_person_annotations(people_record(FIRST, category_file_name=str(path)))


def colour_rendering(path):
    Image.fromarray(LV_MHP_V2_PART_LABELS.colorize(SECOND)).save(path)


def saved(pixels, **options):
    return lambda path: Image.fromarray(pixels).save(path, **options)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-30])


def two_headers(path):
    """Pillow goes by the second header, that of an RGB picture."""
    content = path.read_bytes()
    header = b"IHDR" + struct.pack(">IIBBBBB", 4, 3, 8, 0, 0, 0, 0)
    grey = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(content[:8] + grey + content[8:])


def damaged(path):
    content = bytearray(path.read_bytes())
    content[45:50] = b"\xff" * 5
    path.write_bytes(content)


# What is wrong with the file of the second person -> how it gets so, and what the message says.
BROKEN_PERSON_FILES = {
    "empty": (lambda path: path.write_bytes(b""), r"\(0 bytes\) is not a PNG"),
    "truncated": (truncated, "is not a readable image: "),
    "damaged": (damaged, "is not a readable image: "),
    "two headers": (two_headers, "two headers that contradict"),
    "jpeg": (saved(SECOND, format="JPEG"), "is not a PNG"),
    "colour rendering": (colour_rendering, "is a colour rendering"),
    "label in green": (saved(np.stack([SECOND * 0, SECOND, SECOND * 0], -1)), "colour rendering"),
    "rgb of grey": (saved(np.stack([SECOND] * 3, -1)), "colour rendering"),
    "rgba": (saved(np.stack([SECOND] * 4, -1)), "8-bit RGBA PNG"),
    "grey with alpha": (saved(np.stack([SECOND] * 2, -1)), "8-bit grey with alpha PNG"),
    "16 bits": (saved(SECOND.astype(np.uint16)), "16-bit grey PNG"),
    "1 bit": (saved(SECOND != 0), "1-bit grey PNG"),
    "wrong size": (lambda path: in_red(SECOND.T.copy()).save(path), "3x4 pixels.* is 4x3"),
    "label 59 of 59": (lambda path: in_red(SECOND + np.uint8(1)).save(path), r"label\(s\) 59;"),
}


@pytest.mark.parametrize(
    ("spoil", "message"), BROKEN_PERSON_FILES.values(), ids=BROKEN_PERSON_FILES.keys()
)
def test_broken_file_of_a_person(people_record, spoil, message):
    record = people_record(FIRST, SECOND)
    path = Path(record["person_file_names"][1])
    spoil(path)
    with pytest.raises(AnnotationError, match=f"7_02_02.png.*{message}"):
        read_person_annotations(record, num_classes=59)


def test_missing_file_of_a_person(people_record):
    record = people_record(FIRST, SECOND)
    Path(record["person_file_names"][1]).unlink()
    with pytest.raises(FileNotFoundError, match="7_02_02.png"):
        read_person_annotations(record, num_classes=59)


def test_record_without_annotations():
    with pytest.raises(KeyError, match="street.jpg names no annotation files"):
        read_person_annotations({"file_name": "street.jpg", "height": 4, "width": 6})
