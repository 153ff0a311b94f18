import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from detectron2.utils.events import EventStorage, JSONWriter
from PIL import Image

from aiparsing_d2.visualization import training_curves as curves
from aiparsing_d2.visualization.training_curves import plot_training_curves


@pytest.fixture
def run(tmp_path):
    """Metrics of a run of 40 iterations, as Detectron2 writes them."""
    path = tmp_path / "run" / "metrics.json"
    path.parent.mkdir()
    writer = JSONWriter(str(path), window_size=1)
    with EventStorage() as storage:
        for iteration in range(40):
            storage.put_scalars(
                total_loss=2.0 / (iteration + 1), loss_edge=1.0 / (iteration + 1), lr=0.01
            )
            if iteration % 20 == 19:
                storage.put_scalars(**{"parsing/mIoU": 50.0, "parsing/IoU-Hat": 10.0})
                storage.put_scalar("bbox/AP50", float("nan"))
            writer.write()
            storage.step()
    writer.close()
    return path


def test_read_metrics(run):
    series = curves.read_metrics(run)
    iterations, values = series["loss_edge"]
    np.testing.assert_array_equal(iterations, np.arange(40))
    np.testing.assert_allclose(values, 1 / np.arange(1, 41))
    assert series["parsing/mIoU"][0].tolist() == [19, 39]
    assert "iteration" not in series


def test_resumed_and_killed_run(run):
    with open(run, "a", encoding="utf-8") as file:
        for iteration in (38, 39, 40):
            file.write(json.dumps({"iteration": iteration, "loss_edge": 7}) + "\n")
        file.write('{"iteration": 41, "loss_')
    iterations, values = curves.read_metrics(run)["loss_edge"]
    np.testing.assert_array_equal(iterations, np.arange(41))
    assert values[37] == pytest.approx(1 / 38) and values[38:].tolist() == [7, 7, 7]


def test_files_that_are_no_metrics(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.json does not exist"):
        plot_training_curves(tmp_path / "nothing.json", tmp_path / "curves.png")
    path = tmp_path / "metrics.json"
    path.write_text("\n")
    with pytest.raises(ValueError, match="metrics.json holds no logged iterations"):
        plot_training_curves(path, tmp_path / "curves.png")
    for text in ("{}\n", "[1]\n", "nonsense\n", '{"iteration": 1, "lr": 1}\n?\n{"iteration": 2}\n'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"metrics.json, line \d"):
            plot_training_curves(path, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_centered_mean():
    values = np.array([1.0, 2.0, 6.0, 4.0, 2.0])
    np.testing.assert_allclose(curves._centered_mean(values, 0), values)
    np.testing.assert_allclose(curves._centered_mean(values, 1), [1, 3, 4, 4, 2])
    np.testing.assert_allclose(curves._centered_mean(values, 9), [1, 3, 3, 4, 2])


def plotted_figure(monkeypatch, *args, **kwargs):
    """The figure that a call saves."""
    figures = []
    monkeypatch.setattr(curves.Figure, "savefig", lambda self, path: figures.append(self))
    plot_training_curves(*args, **kwargs)
    (figure,) = figures
    return figure


def test_what_is_plotted(run, monkeypatch, tmp_path):
    figure = plotted_figure(monkeypatch, run, tmp_path / "curves.png", smoothing=0.0)
    losses, metrics, learning_rate = figure.axes
    total = next(line for line in losses.lines if line.get_label() == "total_loss")
    np.testing.assert_allclose(total.get_ydata(), 2 / np.arange(1, 41))
    labels = [text.get_text() for text in losses.get_legend().get_texts()]
    assert labels == ["total_loss", "loss_edge"]
    labels = [text.get_text() for text in metrics.get_legend().get_texts()]
    assert sorted(labels) == ["bbox/AP50 nan", "parsing/mIoU 50.0"]
    assert learning_rate.lines[0].get_ydata().tolist() == [0.01] * 40


def test_runs_are_told_apart(run, monkeypatch, tmp_path):
    other = tmp_path / "other" / "metrics.json"
    other.parent.mkdir()
    other.write_text('{"iteration": 5, "loss_edge": 1.0}\n')
    losses, metrics, _ = plotted_figure(monkeypatch, [run, other], tmp_path / "x.png").axes
    lines = {line.get_label(): line for line in losses.lines}
    first, second = lines["loss_edge (run)"], lines["loss_edge (other)"]
    assert first.get_color() == second.get_color()
    assert first.get_linestyle() != second.get_linestyle()


def evaluated_once(folder, name, iteration, figures):
    path = folder / name / "metrics.json"
    path.parent.mkdir()
    lines = [{"iteration": 0, "total_loss": 1.0}, {"iteration": iteration, **figures}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_single_evaluation_is_drawn_as_bars(monkeypatch, tmp_path):
    figures = {"parsing/mIoU": 69.8, "bbox/AP50": 98.8, "parsing/IoU-Hat": 3.0}
    run = evaluated_once(tmp_path, "run", 1999, figures)
    _, metrics, _ = plotted_figure(monkeypatch, run, tmp_path / "x.png").axes
    assert not metrics.lines
    assert [bar.get_width() for bar in metrics.patches] == [69.8, 98.8]
    assert [label.get_text() for label in metrics.get_yticklabels()] == [
        "parsing/mIoU",
        "bbox/AP50",
    ]
    assert [text.get_text() for text in metrics.texts] == ["69.8", "98.8"]
    assert metrics.get_title() == "Evaluation, iteration 1999"

    other = evaluated_once(tmp_path, "other", 999, {"parsing/mIoU": 50.0})
    _, metrics, _ = plotted_figure(monkeypatch, [run, other], tmp_path / "x.png").axes
    assert [bar.get_width() for bar in metrics.patches] == [69.8, 98.8, 50.0]
    assert metrics.get_yticklabels()[2].get_text() == "parsing/mIoU (other)"
    assert metrics.get_title() == "Evaluation"  # not of one iteration


def test_picture_without_touching_matplotlib(run, tmp_path):
    before = dict(matplotlib.rcParams)
    plot_training_curves(run, tmp_path / "curves.png")
    assert dict(matplotlib.rcParams) == before
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("L"))
    assert picture.shape == (550, 1760)
    assert (picture < 100).sum() > 1000  # something is drawn


def test_what_is_not_finite_is_left_out_of_the_mean():
    values = np.array([1.0, 2, np.nan, 4, np.inf, 6, 8])
    expected = [1, 1.5, 3, 4, 5, 7, 8]
    np.testing.assert_allclose(curves._centered_mean(values, 1), expected)
    assert np.isnan(curves._centered_mean(np.full(3, np.nan), 1)).all()


def test_runs_in_folders_of_one_name_are_told_apart(tmp_path):
    files = [tmp_path / a / b / "metrics.json" for a, b in (("s1", "run"), ("s2", "run"))]
    assert curves._run_names(files) == [str(Path("s1", "run")), str(Path("s2", "run"))]
    assert curves._run_names(files[:1]) == ["run"]
    assert curves._run_names([tmp_path / "a" / "m.json", files[0]]) == ["a", "run"]
    both = [tmp_path / "run" / name for name in ("metrics.json", "earlier.json")]
    assert curves._run_names(both) == ["metrics.json", "earlier.json"]
    with pytest.raises(ValueError, match="metrics.json is named twice"):
        curves._run_names(files[:1] * 2)
