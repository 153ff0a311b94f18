import dataclasses

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from aiparsing_d2.structures import PartMaps
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS
from aiparsing_d2.visualization import ParsingExample, image_grid, part_legend, result_sheet

RED, GREEN, BLUE = [255, 0, 0], [0, 255, 0], [0, 0, 255]
UPPER_CLOTHES, FACE = 5, 13


def picture(color, height=40, width=60):
    return np.full((height, width, 3), color, dtype=np.uint8)


def block_of(sheet, color):
    """Rows and columns of a sheet's pixels of one colour, ends exclusive; they fill a rectangle."""
    ys, xs = np.nonzero((sheet == color).all(axis=2))
    y0, y1, x0, x1 = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    assert len(ys) == (y1 - y0) * (x1 - x0)
    return y0, y1, x0, x1


def test_grid_keeps_pictures_in_rows_and_columns():
    sheet = image_grid([[picture(RED), picture(GREEN)], [None, picture(BLUE, height=20, width=30)]])
    red, green, blue = (block_of(sheet, color) for color in (RED, GREEN, BLUE))
    assert (red[1] - red[0], red[3] - red[2]) == (40, 60)
    assert (blue[1] - blue[0], blue[3] - blue[2]) == (20, 30)
    assert red[:2] == green[:2] and red[3] < green[2]
    assert blue[0] > green[1]
    assert blue[2] - green[2] == green[3] - blue[3] == 15  # centred in its column
    others = ~np.isin(sheet, (0, 255)).all(axis=2)
    assert not others.any()


def test_grid_makes_room_for_titles_names_and_legend():
    rows = [[picture(RED)], [picture(BLUE)]]
    plain = image_grid(rows)
    named = image_grid(rows, row_names=["first", ""])
    titled = image_grid(rows, column_titles=["Title"])
    legend = image_grid(rows, legend=[("grass", (0, 255, 0))])
    for sheet in (named, titled, legend):
        assert sheet.shape[0] > plain.shape[0] and sheet.shape[1] == plain.shape[1]
    assert block_of(titled, RED)[0] > block_of(plain, RED)[0] == block_of(named, RED)[0]
    assert block_of(named, BLUE)[0] > block_of(plain, BLUE)[0]
    assert block_of(legend, GREEN)[0] > block_of(legend, BLUE)[1]
    # Two entries do not fit beside each other on a sheet of 84 pixels.
    longer = image_grid(rows, legend=[("grass", (0, 255, 0)), ("heather", (9, 9, 9))])
    assert longer.shape[0] > legend.shape[0]


def test_grid_refuses_what_is_no_grid():
    for rows in ([], [[None]]):
        with pytest.raises(ValueError, match="No pictures"):
            image_grid(rows)
    with pytest.raises(ValueError, match="same number"):
        image_grid([[picture(RED)], [picture(RED), None]])
    with pytest.raises(ValueError, match="1 rows of 1 pictures.* 2 titles"):
        image_grid([[picture(RED)]], column_titles=["a", "b"])


def test_legend_names_parts_in_label_order():
    assert part_legend(CIHP_PART_LABELS, [0, 255, FACE, UPPER_CLOTHES, FACE]) == [
        ("UpperClothes", (255, 85, 0)),
        ("Face", (0, 0, 255)),
    ]


@pytest.fixture
def example():
    """An annotated face; predicted are clothes to its right and, in its place, a doubtful hat."""
    maps = np.zeros((3, 40, 60), dtype=np.uint8)
    maps[0, 5:35, 5:25] = FACE
    maps[1, 5:35, 35:55] = UPPER_CLOTHES
    maps[2, 5:35, 5:25] = 1
    prediction = Instances((40, 60))
    prediction.pred_part_maps = PartMaps.from_full(maps[1:])
    prediction.pred_boxes = Boxes(torch.tensor([[35.0, 5, 55, 35], [5, 5, 25, 35]]))
    prediction.scores = torch.tensor([0.8, 0.1])
    return ParsingExample(
        picture([100] * 3), PartMaps.from_full(maps[:1]), prediction, np.ones((40, 60)), "0000001"
    )


def columns_of(sheet, num_columns):
    """Equally wide columns of a sheet's pictures, without legend and titles."""
    gap = 12
    width = (sheet.shape[1] - gap) // num_columns
    return [sheet[:, i * width + gap : (i + 1) * width] for i in range(num_columns)]


def test_sheet_columns(example):
    sheet = result_sheet([example], CIHP_PART_LABELS, cell_width=60)
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 4 * 60 + 5 * 12
    blended_face = [30, 30, 208]  # 0.3 * 100 + 0.7 * (0, 0, 255), rounded to even
    blended_clothes = [208, 90, 30]
    counts = [
        [
            (column == color).all(axis=2).sum()
            for color in (blended_face, blended_clothes, [255, 0, 255])
        ]
        for column in columns_of(sheet, 4)
    ]
    assert counts[0] == [0, 0, 0]
    assert counts[1][0] == 28 * 18 and counts[1][1:] == [0, 0]
    assert counts[2][0] == 0 and counts[2][1] > 100 and counts[2][2] > 50
    assert counts[3] == [0, 0, 0]
    # The doubtful person appears neither in the picture nor in the legend.
    assert not (sheet == CIHP_PART_LABELS.colors[1]).all(axis=2).any()
    with_hat = result_sheet([example], CIHP_PART_LABELS, cell_width=60, score_threshold=0.05)
    assert (with_hat == CIHP_PART_LABELS.colors[1]).all(axis=2).any()


def test_sheet_leaves_out_columns_that_no_example_has(example):
    only_image = ParsingExample(example.image)
    assert result_sheet([only_image], CIHP_PART_LABELS, cell_width=60).shape[1] == 60 + 2 * 12
    annotated = ParsingExample(example.image, example.ground_truth)
    sheet = result_sheet([only_image, annotated], CIHP_PART_LABELS, cell_width=60)
    assert sheet.shape[1] == 2 * 60 + 3 * 12


def test_pictures_are_scaled_to_the_cells():
    wide = ParsingExample(picture(RED, height=20, width=100))
    tall = ParsingExample(picture(BLUE, height=100, width=20))
    sheet = result_sheet([wide, tall], CIHP_PART_LABELS, cell_width=200)
    red, blue = block_of(sheet, RED), block_of(sheet, BLUE)
    assert (red[1] - red[0], red[3] - red[2]) == (40, 200)
    assert (blue[1] - blue[0], blue[3] - blue[2]) == (250, 50)


def test_sheet_of_nothing_and_of_nobody():
    with pytest.raises(ValueError, match="No examples"):
        result_sheet([], CIHP_PART_LABELS)
    nobody = PartMaps.from_full(np.zeros((0, 40, 60), dtype=np.uint8))
    prediction = Instances((40, 60))
    prediction.pred_part_maps = nobody
    prediction.pred_boxes = Boxes(torch.zeros(0, 4))
    prediction.scores = torch.zeros(0)
    sheet = result_sheet(
        [ParsingExample(picture(RED), nobody, prediction)], CIHP_PART_LABELS, cell_width=60
    )
    assert (sheet == RED).all(axis=2).sum() == 3 * 40 * 60


def test_other_models_and_figures_stand_beside_each_other(example):
    plain = result_sheet([example], CIHP_PART_LABELS, cell_width=200)
    other = dataclasses.replace(
        example,
        others={"Another model": example.prediction},
        figures={"First": "mIoU 12.3", "Another model": "mIoU 45.6"},
    )
    sheet = result_sheet([other], CIHP_PART_LABELS, cell_width=200, prediction_title="First")
    assert sheet.shape[1] - plain.shape[1] == 200 + 12
    assert sheet.shape[0] >= plain.shape[0]


def test_captions_are_below_their_pictures():
    row = [picture(RED), picture(GREEN)]
    plain = image_grid([row])
    sheet = image_grid([row], captions=[["", "12.3"]])
    assert sheet.shape[0] > plain.shape[0]
    below = (sheet[block_of(sheet, GREEN)[1] :] < 128).all(axis=2)
    y0, y1, x0, x1 = block_of(sheet, GREEN)
    assert below[:, x0:x1].any() and not below[:, :x0].any()
