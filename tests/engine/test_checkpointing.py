"""What a run may start from."""

import pytest

from aiparsing_d2.engine import check_init_checkpoint


def test_missing_weights_are_named_with_what_to_do(tmp_path):
    missing = tmp_path / "model_final.pth"
    with pytest.raises(FileNotFoundError, match="convert-weights authors") as error:
        check_init_checkpoint(str(missing))
    assert str(missing) in str(error.value) and "train.init_checkpoint=" in str(error.value)
    with pytest.raises(FileNotFoundError):  # a folder is no file
        check_init_checkpoint(str(tmp_path))


def test_everything_else_passes(tmp_path):
    file = tmp_path / "model_final.pth"
    file.touch()
    for checkpoint in (
        "",
        str(file),
        f"{file}?matching_heuristics=True",
        "detectron2://ImageNetPretrained/MSRA/R-50.pkl",
        "https://example.org/model_final.pth",
    ):
        check_init_checkpoint(checkpoint)
