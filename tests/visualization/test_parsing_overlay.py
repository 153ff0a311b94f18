import numpy as np
import pytest
import torch
from detectron2.structures import Boxes
from PIL import Image, ImageDraw

from aiparsing_d2.structures import PartMaps
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS
from aiparsing_d2.visualization import box_labels, draw_edges, draw_parsing
from aiparsing_d2.visualization.box_labels import draw_boxes, person_color

WHITE = [255, 255, 255]
BOX_COLORS = [person_color(1), person_color(2)]
HAIR, FACE = 2, 13
# Half (100, 100, 100) and half of the palette's red and blue.
HALF_RED, HALF_BLUE, HALF_GREY = [178, 50, 50], [50, 50, 178], [162, 162, 162]


@pytest.fixture
def image():
    return np.full((20, 30, 3), 100, dtype=np.uint8)


@pytest.fixture
def overlapping_people():
    """Hair in columns 5..14 and a face in columns 10..19 of rows 4..13."""
    maps = np.zeros((2, 20, 30), dtype=np.uint8)
    maps[0, 4:14, 5:15] = HAIR
    maps[1, 4:14, 10:20] = FACE
    return maps


def test_colors_outlines_and_what_stays(image, overlapping_people):
    drawing = draw_parsing(image, overlapping_people, CIHP_PART_LABELS, alpha=0.5)
    assert drawing.dtype == np.uint8 and drawing.shape == image.shape
    assert (image == 100).all()

    row = drawing[8].tolist()
    # Without scores the later person is on top: columns 10..19, its outline at 10 and 19.
    assert row[4] == [100] * 3 and row[20] == [100] * 3
    assert row[5] == WHITE and row[6] == HALF_RED and row[8] == HALF_RED
    assert row[9] == WHITE and row[10] == WHITE
    assert row[11] == HALF_BLUE and row[18] == HALF_BLUE and row[19] == WHITE
    assert drawing[4, 7].tolist() == WHITE and drawing[13, 7].tolist() == WHITE
    assert drawing[3, 7].tolist() == [100] * 3


def test_higher_score_is_on_top(image, overlapping_people):
    scores = torch.tensor([0.9, 0.2])
    drawing = draw_parsing(image, overlapping_people, CIHP_PART_LABELS, scores=scores, alpha=0.5)
    assert drawing[8, 12].tolist() == HALF_RED
    assert drawing[8, 17].tolist() == HALF_BLUE


def test_part_maps_and_full_maps_draw_the_same(image, overlapping_people):
    from_full = draw_parsing(image, overlapping_people, CIHP_PART_LABELS)
    part_maps = PartMaps.from_full(overlapping_people)
    np.testing.assert_array_equal(draw_parsing(image, part_maps, CIHP_PART_LABELS), from_full)


def test_alpha_1_gives_the_palette_and_ignored_pixels_are_grey(image, overlapping_people):
    overlapping_people[1, 4:14, 12:20] = 255
    opaque = draw_parsing(image, overlapping_people, CIHP_PART_LABELS, alpha=1.0)
    assert opaque[8, 7].tolist() == [255, 0, 0]
    half = draw_parsing(image, overlapping_people, CIHP_PART_LABELS, alpha=0.5)
    assert half[8, 15].tolist() == HALF_GREY


@pytest.mark.parametrize("box_type", [np.array, torch.tensor, lambda rows: Boxes(rows)])
def test_boxes_lie_on_their_outermost_pixels(image, overlapping_people, box_type):
    boxes = box_type([[5.0, 4.0, 15.0, 14.0], [10.0, 4.0, 20.0, 14.0]])
    drawing = draw_parsing(image, overlapping_people, CIHP_PART_LABELS, boxes=boxes)
    for (x0, x1), color in zip(((5, 15), (10, 20)), BOX_COLORS, strict=True):
        expected = np.zeros((20, 30), dtype=bool)
        expected[[4, 13], x0:x1] = True
        expected[4:14, [x0, x1 - 1]] = True
        if color == BOX_COLORS[0]:  # the second box is drawn over the first one's upper side
            expected[[4, 13], 10:15] = False
        np.testing.assert_array_equal((drawing == color).all(axis=2), expected)


def test_ignore_boxes_are_dashed_in_two_greys_and_lie_inside_themselves():
    image = np.full((40, 60, 3), 255, np.uint8)
    nobody = np.zeros((0, 40, 60), np.uint8)
    boxes = Boxes(torch.tensor([[10.0, 5.0, 30.0, 25.0], [8.0, 8.0, 8.0, 20.0]]))
    drawing = draw_parsing(image, nobody, CIHP_PART_LABELS, ignore_boxes=boxes)
    changed = np.zeros((40, 60), bool)
    changed[5:25, 10:30] = True
    changed[6:24, 11:29] = False
    np.testing.assert_array_equal((drawing != 255).any(2), changed)
    assert np.ptp(drawing, axis=2).max() == 0
    for side in (drawing[5, 10:30, 0], drawing[24, 10:30, 0], drawing[5:25, 10, 0]):
        assert np.bincount(side)[np.unique(side)].tolist() == [8, 12]  # 3 light dashes of 4


def test_words_are_written_above_the_boxes(overlapping_people):
    image = np.full((200, 300, 3), 100, dtype=np.uint8)
    maps = overlapping_people.repeat(10, axis=1).repeat(10, axis=2)
    boxes = PartMaps.from_full(maps).get_bounding_boxes()
    options = {"boxes": boxes, "scores": [0.9, 0.2]}
    drawing = draw_parsing(image, maps, CIHP_PART_LABELS, **options)
    for x, color in zip((50, 100), BOX_COLORS, strict=True):
        label = drawing[28:39, x : x + 28]
        assert (label == color).all(axis=2).sum() > 100
        assert (label != color).any(axis=2).sum() > 10  # the letters
    # With identities there is more to write, and the colours are theirs.
    named = draw_parsing(image, maps, CIHP_PART_LABELS, **options, track_ids=[7, 1])
    assert (named == person_color(7)).all(axis=2)[28:39, 50:90].sum() > 200
    assert (named == BOX_COLORS[0]).all(axis=2)[28:39, 100:140].sum() > 200


def test_words_stay_in_the_picture_and_apart(monkeypatch):
    places = []
    monkeypatch.setattr(
        "aiparsing_d2.visualization.box_labels._draw_words",
        lambda draw, words, font, place, color, line: places.append(place),
    )
    drawing = np.zeros((240, 320, 3), dtype=np.uint8)
    box = [150, 100, 250, 200]
    corners = [[-5, -5, 40, 60], [290, 0, 330, 50], [0, 200, 30, 240], [300, 230, 320, 240]]
    boxes = np.array([box, box, box, box, *corners], dtype=float)
    colors = [person_color(n) for n in range(1, 9)]
    draw_boxes(drawing, boxes, colors, ["#12 0.95"] * 8, range(8))
    assert len(places) == 8
    for n, (x0, y0, x1, y1) in enumerate(places):
        assert x0 >= 0 and y0 >= 0 and x1 <= 320 and y1 <= 240
        for left, top, right, bottom in places[:n]:
            assert min(x1, right) <= max(x0, left) or min(y1, bottom) <= max(y0, top)


def test_boxes_and_words_are_those_of_pillow(monkeypatch):
    rng = np.random.default_rng(3)
    places = []

    def draw_and_note(drawing, words, font, place, color, line):
        places.append((place, words, font, color, line))
        draw_words(drawing, words, font, place, color, line)

    draw_words = box_labels._draw_words
    monkeypatch.setattr(box_labels, "_draw_words", draw_and_note)
    for height, width in ((60, 80), (1200, 1000)):
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        starts = rng.uniform(-20, 40, (6, 2))
        boxes = np.hstack([starts, starts + rng.uniform(30, 50, (6, 2))])
        colors = [person_color(n) for n in range(1, 7)]
        drawing = noise.copy()
        draw_boxes(drawing, boxes, colors, ["#3 0.95"] * 6, range(6))

        canvas = Image.fromarray(noise)
        draw = ImageDraw.Draw(canvas)
        for (x0, y0, x1, y1), color in zip(boxes, colors, strict=True):
            line = box_labels.line_width(height, width)
            draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=color, width=line)
        for (left, top, right, bottom), words, font, color, line in places:
            draw.rectangle((left, top, right - 1, bottom - 1), fill=color)
            ink = "white" if np.dot(color, (0.299, 0.587, 0.114)) <= 125 else "black"
            draw.text((left + 2 * line, top), words, fill=ink, font=font)
        np.testing.assert_array_equal(drawing, canvas)
        assert len(places) == 6
        places.clear()


def test_a_box_narrower_than_its_lines_is_filled():
    drawing = np.zeros((1200, 1200, 3), dtype=np.uint8)  # with lines of 4 pixels
    draw_boxes(drawing, np.array([[50.0, 100.0, 52.0, 300.0]]), [WHITE], [""], [0])
    expected = np.zeros_like(drawing)
    expected[100:300, 50:52] = 255
    np.testing.assert_array_equal(drawing, expected)


def test_one_colour_a_person(image, overlapping_people):
    options = {"color_by": "person", "alpha": 1.0, "track_ids": [3, 9]}
    drawing = draw_parsing(image, overlapping_people, CIHP_PART_LABELS, **options)
    assert drawing[8, 7].tolist() == list(person_color(3))
    assert drawing[8, 15].tolist() == list(person_color(9))
    with pytest.raises(ValueError, match="color_by is 'people'"):
        draw_parsing(image, overlapping_people, CIHP_PART_LABELS, color_by="people")
    with pytest.raises(ValueError, match="2 people, but 1 track_ids"):
        draw_parsing(image, overlapping_people, CIHP_PART_LABELS, track_ids=[1])


def test_colours_of_people_differ():
    colors = np.array([person_color(number) for number in range(1, 25)])
    distances = np.abs(colors[:, None] - colors).max(axis=2) + 255 * np.eye(24)
    assert distances.min() > 20
    assert distances[np.arange(23), np.arange(1, 24)].min() > 100  # of neighbours


def test_parts_of_a_person_are_outlined(image):
    maps = np.zeros((1, 20, 30), dtype=np.uint8)
    maps[0, 4:14, 5:12] = HAIR
    maps[0, 4:14, 12:20] = FACE
    drawing = draw_parsing(image, maps, CIHP_PART_LABELS, alpha=1.0)
    assert drawing[8, 10].tolist() == [255, 0, 0] and drawing[8, 12].tolist() == [0, 0, 255]
    assert drawing[8, 11].tolist() == [115, 0, 0]  # 0.45 of red, on one side of the border


@pytest.mark.parametrize("height, width", [(240, 1), (2160, 7)])
def test_lines_are_as_wide_as_suits_the_picture(height, width):
    image = np.full((height, height, 3), 100, dtype=np.uint8)
    maps = np.zeros((1, height, height), dtype=np.uint8)
    maps[0, : height // 2] = HAIR
    drawing = draw_parsing(image, maps, CIHP_PART_LABELS)
    assert (drawing[:, height // 2] == WHITE).all(axis=1).sum() == width


@pytest.mark.parametrize("num_people", [1, 3, 300])
@pytest.mark.parametrize("color_by", ["part", "person"])
@pytest.mark.parametrize("scale", [1, 2])
def test_every_pixel_against_its_definition(num_people, color_by, scale):
    """Opaque colours; whoever is near another's pixel is outlined, at the picture's edge nobody."""
    rng = np.random.default_rng(num_people)
    height, width = 40, 50
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    maps = np.zeros((num_people, height, width), dtype=np.uint8)
    for n in range(num_people):
        y, x = rng.integers(0, 27, 2) + (0, 10)  # columns 0..9 are nobody's
        maps[n, y : y + 14, x : x + 14] = rng.choice([HAIR, FACE], (14, 14), p=[0.95, 0.05])
    options = {"color_by": color_by, "alpha": 1.0, "scale": scale}
    drawing = draw_parsing(image, maps, CIHP_PART_LABELS, **options)

    grown = maps.repeat(scale, axis=1).repeat(scale, axis=2)
    labels, owners = np.zeros((2, *grown.shape[1:]), dtype=int)
    for n, person in enumerate(grown):
        labels[person > 0], owners[person > 0] = person[person > 0], n + 1
    expected = drawing * (owners == 0)[..., None]
    for y, x in np.argwhere(owners):
        near = np.s_[max(y - 1, 0) : y + 2, x], np.s_[y, max(x - 1, 0) : x + 2]
        color = CIHP_PART_LABELS.colors[labels[y, x]]
        if color_by == "person":
            color = person_color(owners[y, x])
        elif any(labels[part].max() > labels[y, x] for part in near):
            color = np.rint(np.multiply(color, 0.45))
        is_outline = any((owners[part] != owners[y, x]).any() for part in near)
        expected[y, x] = WHITE if is_outline else color
    np.testing.assert_array_equal(drawing, expected)
    if scale == 1:
        assert (drawing[owners == 0] == image[owners == 0]).all()


def test_person_256_is_not_nobody(image, overlapping_people):
    maps = np.zeros((256, 20, 30), dtype=np.uint8)
    maps[[0, 255]] = overlapping_people
    np.testing.assert_array_equal(
        draw_parsing(image, maps, CIHP_PART_LABELS),
        draw_parsing(image, overlapping_people, CIHP_PART_LABELS),
    )


def test_scaled_drawing(image, overlapping_people):
    boxes = np.array([[5, 4, 15, 14], [10, 4, 20, 14]])
    drawing = draw_parsing(
        image, overlapping_people, CIHP_PART_LABELS, boxes=boxes, alpha=0.5, scale=2
    )
    assert drawing.shape == (40, 60, 3)
    assert drawing[16, 14].tolist() == HALF_RED and drawing[16, 34].tolist() == HALF_BLUE
    first, second = ((drawing == color).all(axis=2) for color in BOX_COLORS)
    lines = first | second
    assert lines[8, 10:40].all() and lines[27, 10:40].all()
    assert first[8:28, 10].all() and second[8:28, 39].all()
    assert not lines[:8].any() and not lines[28:].any()
    assert draw_parsing(image, overlapping_people, CIHP_PART_LABELS, scale=0.5).shape == (10, 15, 3)


def test_nobody_and_degenerate_boxes(image):
    nobody = PartMaps.from_full(np.zeros((0, 20, 30), dtype=np.uint8))
    drawing = draw_parsing(
        image, nobody, CIHP_PART_LABELS, boxes=np.zeros((0, 4)), scores=np.zeros(0)
    )
    np.testing.assert_array_equal(drawing, image)

    empty_maps = np.zeros((3, 20, 30), dtype=np.uint8)
    boxes = np.array([[5, 5, 5, 9], [-9, -9, -2, -2], [40, 2, 50, 9]])
    drawing = draw_parsing(image, empty_maps, CIHP_PART_LABELS, boxes=boxes)
    np.testing.assert_array_equal(drawing, image)


def test_sizes_that_do_not_fit(image, overlapping_people):
    with pytest.raises(ValueError, match=r"\(19, 30\).*\(20, 30, 3\)"):
        draw_parsing(image, overlapping_people[:, :19], CIHP_PART_LABELS)
    with pytest.raises(ValueError, match="2 people, but 1 boxes"):
        draw_parsing(image, overlapping_people, CIHP_PART_LABELS, boxes=np.zeros((1, 4)))
    with pytest.raises(ValueError, match="2 people, but 3 scores"):
        draw_parsing(image, overlapping_people, CIHP_PART_LABELS, scores=np.zeros(3))
    with pytest.raises(ValueError, match=r"\(19, 30\)"):
        draw_edges(image, np.zeros((19, 30)))


def test_edges(image):
    edges = np.zeros((20, 30), dtype=np.float32)
    edges[10] = 1.0
    edges[12] = 0.5
    drawing = draw_edges(image, torch.as_tensor(edges))
    assert drawing[10, 3].tolist() == WHITE
    assert drawing[0, 0].tolist() == [35] * 3
    assert drawing[12, 3].tolist() == [145] * 3  # half of 35 and 255
    np.testing.assert_array_equal(draw_edges(image, edges > 0.7)[10], drawing[10])
    assert draw_edges(image, edges, scale=3).shape == (60, 90, 3)
