"""The command app, up to where the page begins."""

from __future__ import annotations

import argparse
import sys

import pytest

from aiparsing_d2.cli import app, main


@pytest.fixture
def arguments():
    parser = argparse.ArgumentParser()
    app.add_parser(parser.add_subparsers())
    return lambda *words: parser.parse_args(["app", *words])


def test_only_this_machine_unless_told(arguments):
    assert arguments().host == "127.0.0.1"
    assert arguments("--host", "0.0.0.0", "--port", "8000").host == "0.0.0.0"


@pytest.mark.parametrize("threshold", ["1.2", "-1", "many"])
def test_thresholds_are_in_0_to_1(arguments, threshold, capsys):
    with pytest.raises(SystemExit):
        arguments(f"--threshold={threshold}")
    assert f"{threshold} is not in 0..1" in capsys.readouterr().err


def test_a_clip_has_a_frame_at_least(arguments, capsys):
    assert arguments().max_frames == 300 and arguments("--max-frames", "25").max_frames == 25
    with pytest.raises(SystemExit):
        arguments("--max-frames", "0")
    assert "--max-frames: 0 is not a positive integer" in capsys.readouterr().err


def test_without_gradio_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "aiparsing_d2.app.page", raising=False)
    assert main(["app"]) == 1
    assert "pip install 'aiparsing_d2[app]'" in capsys.readouterr().err
