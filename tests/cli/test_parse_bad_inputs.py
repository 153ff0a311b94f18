"""Whatever is wrong with a picture, a name or a disk: said clearly, and the rest is parsed."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures_on_disk import names_below, save_picture
from PIL import Image

from aiparsing_d2.cli import main


def png_chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(width: int, height: int, color_type: int = 2, chunks: bytes = b"", depth: int = 8) -> bytes:
    """A PNG with this header and no pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(b"\0" * 20))
    return b"\x89PNG\r\n\x1a\n" + header + chunks + pixels + png_chunk(b"IEND", b"")


def encoded(mode: str, image_format: str, size=(90, 80), **options) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, image_format, **options)
    return file.getvalue()


def noise(image_format: str) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, image_format)
    return file.getvalue()


UNREADABLE = {
    "empty.jpg": b"",
    "text.jpg": b"Dear photograph,\n",
    "cut.jpg": noise("JPEG")[:2000],
    "cut.png": noise("PNG")[:2000],
    "only_header.jpg": noise("JPEG")[:20],
    "corrupt.png": noise("PNG")[:60] + b"\xff" * 4000,
    "corrupt.webp": noise("WEBP")[:30] + b"\0" * 500,
    "bomb.png": png(60000, 60000),
    "no_width.png": png(0, 80),
    "no_palette.png": png(90, 80, color_type=3),
    "floats.tif": encoded("F", "TIFF"),
    "video.gif.png": b"GIF89a" + b"\0" * 20,
    "page.png": b"<!doctype html><title>404</title>",
    "line.png": encoded("RGB", "PNG", size=(9000, 1)),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_pictures(parse, tmp_path, capsys, name):
    """Each is named once, in one line with a reason; its neighbours are parsed."""
    save_picture(tmp_path / "in" / "a.png")
    save_picture(tmp_path / "in" / "z.png")
    (tmp_path / "in" / name).write_bytes(UNREADABLE[name])
    assert parse(tmp_path / "in", "--save", "json") == 1
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if name in line]
    assert str(tmp_path / "in" / name) in line and "Error" not in line and len(line) < 400
    assert out.endswith("6 people in 2 pictures, 1 failed\n")
    assert names_below(tmp_path / "out") == {"a.json", "z.json"}


def animated() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("P", (90, 80), n) for n in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


UNUSUAL = {
    "cmyk.jpg": encoded("CMYK", "JPEG"),
    "grey.jpg": encoded("L", "JPEG"),
    "16_bits.png": encoded("I;16", "PNG"),
    "bilevel.png": encoded("1", "PNG"),
    "grey_alpha.png": encoded("LA", "PNG"),
    "palette.png": encoded("P", "PNG"),
    "rgba.webp": encoded("RGBA", "WEBP"),
    "lab.tif": encoded("LAB", "TIFF"),
    "animated.png": animated(),
    "broken_exif.jpg": encoded("RGB", "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "wrong_suffix.bmp": encoded("RGB", "PNG"),
    "one_pixel.png": encoded("RGB", "PNG", size=(1, 1)),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_pictures(parse, tmp_path, name):
    (tmp_path / name).write_bytes(UNUSUAL[name])
    assert parse(tmp_path / name, "--save", "json,parts,instances,overlay,cutouts") == 0
    content = json.loads((tmp_path / "out" / f"{Path(name).stem}.json").read_text())
    expected = (1, 1) if name == "one_pixel.png" else (90, 80)
    assert (content["width"], content["height"]) == expected


def test_a_picture_without_people(parse, predictor, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predictor, "score_threshold", 1.0)
    picture = save_picture(tmp_path / "1.png")
    kinds = "overlay,parts,instances,json,coco,npz,cutouts,person_maps"
    assert parse(picture, "--save", kinds) == 0
    out, err = capsys.readouterr()
    assert "0 people in 1 picture" in out and f"Nobody found in {picture};" in err
    assert json.loads((tmp_path / "out" / "1.json").read_text())["people"] == []
    assert list((tmp_path / "out" / "1.cutouts").iterdir()) == []
    assert not np.asarray(Image.open(tmp_path / "out" / "1.parts.png")).any()


NAMES = [
    "a b.png",
    "ü 人.png",
    "two\nlines.png",
    "-x.png",
    "[a].png",
    "'\".png",
    "50%.png",
    "{}.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(parse, tmp_path, monkeypatch, name, capsys):
    save_picture(tmp_path / "in" / name)
    save_picture(tmp_path / "in" / f"sub {name}" / name)
    stem = name.removesuffix(".png")
    assert parse(tmp_path / "in", "--save", "json") == 0
    assert names_below(tmp_path / "out") == {f"{stem}.json", f"sub {name}/{stem}.json"}
    # find -print0
    shutil.rmtree(tmp_path / "out")
    standard_input = io.TextIOWrapper(io.BytesIO(f"{tmp_path / 'in' / name}\0".encode()))
    monkeypatch.setattr("sys.stdin", standard_input)
    assert parse("-", "--save", "json") == 0
    assert names_below(tmp_path / "out") == {f"{stem}.json"}
    (tmp_path / "in" / name).write_text("no picture")
    capsys.readouterr()
    assert parse(tmp_path / "in", "--save", "json", "--overwrite") == 1
    assert (
        len([line for line in capsys.readouterr().err.splitlines() if "not a readable" in line])
        == 1
    )


def test_names_that_are_not_utf_8(parse, tmp_path, capsys):
    folder = os.fsencode(save_picture(tmp_path / "in" / "1.png").parent)
    try:
        shutil.copy(folder + b"/1.png", folder + b"/caf\xe9.png")
    except OSError:
        pytest.skip("the file system takes no such name")
    Path(os.fsdecode(folder + b"/bad\xe9.png")).touch()
    assert parse(tmp_path / "in", "--save", "json,coco") == 1
    assert os.path.exists(os.fsencode(tmp_path) + b"/out/caf\xe9.json")
    out, err = capsys.readouterr()
    assert r"bad\udce9.png" in err and "2 pictures, 1 failed" in out


def test_a_name_too_long_for_its_results(parse, tmp_path, capsys):
    picture, short = (
        save_picture(tmp_path / "in" / name) for name in ("a" * 250 + ".png", "b.png")
    )
    assert parse(tmp_path / "in", "--save", "json") == 1
    assert f"{picture}: [Errno {errno.ENAMETOOLONG}]" in capsys.readouterr().err
    assert names_below(tmp_path / "out") == {"b.json"}


def test_links(parse, tmp_path, capsys):
    """Each folder is searched once; a link to a picture is a picture."""
    folder = tmp_path / "in"
    save_picture(folder / "real" / "1.png")
    save_picture(tmp_path / "elsewhere" / "2.png")
    (folder / "a_link").symlink_to("real")
    (folder / "real" / "up").symlink_to("..", target_is_directory=True)
    (folder / "real" / "self").symlink_to(".", target_is_directory=True)
    (folder / "b_results").symlink_to(tmp_path / "out")
    (folder / "c_outside").symlink_to(tmp_path / "elsewhere")
    (folder / "3.png").symlink_to("real/1.png")
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "out" / "old").mkdir(parents=True)
    save_picture(tmp_path / "out" / "old" / "4.png")
    assert parse(tmp_path / "link", "--save", "json") == 0
    results = {name for name in names_below(tmp_path / "out") if name.endswith(".json")}
    assert results == {"real/1.json", "c_outside/2.json", "3.json"}
    assert capsys.readouterr().out.endswith("9 people in 3 pictures\n")


@pytest.mark.parametrize(
    "target, reason", [("none.png", "No such file"), ("1.png", "Too many levels")]
)
def test_links_to_nothing(parse, tmp_path, capsys, target, reason):
    save_picture(tmp_path / "in" / "2.png")
    link = tmp_path / "in" / "1.png"
    link.symlink_to(target)
    for given, status in ((link.parent, 1), (link, 1)):
        assert parse(given, "--save", "json") == status
        assert f"{link}: {reason}" in capsys.readouterr().err
    assert names_below(tmp_path / "out") == {"2.json"}


def test_folders_named_as_pictures(parse, tmp_path):
    save_picture(tmp_path / "in" / "album.jpg" / "1.png")
    (tmp_path / "in" / "empty.jpg").mkdir()
    assert parse(tmp_path / "in", "--save", "json") == 0
    assert names_below(tmp_path / "out") == {"album.jpg/1.json"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_waited_for(parse, tmp_path, capsys):
    save_picture(tmp_path / "in" / "1.png")
    os.mkfifo(tmp_path / "in" / "pipe.jpg")
    for given in ("in", "in/pipe.jpg"):
        assert parse(tmp_path / given, "--save", "json") == 1
        assert "pipe.jpg: not a file, but a pipe" in capsys.readouterr().err
    assert names_below(tmp_path / "out") == {"1.json"}


@pytest.fixture
def nobodys_folder():
    """A folder whose permissions hold, also when the tests are run by root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield folder
    if is_root:
        os.seteuid(0)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o700)
    shutil.rmtree(folder)


def test_without_permission_to_read(parse, nobodys_folder, capsys):
    folder = nobodys_folder
    save_picture(folder / "in" / "1.png")
    secret = save_picture(folder / "in" / "2.png")
    save_picture(folder / "in" / "closed" / "3.png")
    secret.chmod(0)
    (folder / "in" / "closed").chmod(0)
    output = folder / "out"
    assert parse(folder / "in", "--output", output, "--save", "json") == 1
    (folder / "in" / "closed").chmod(0o700)
    out, err = capsys.readouterr()
    for name in (secret, folder / "in" / "closed"):
        (line,) = [line for line in err.splitlines() if str(name) in line]
        assert "ermission denied" in line
    assert out.endswith("1 picture, 2 failed\n") and names_below(output) == {"1.json"}


def test_without_permission_to_write(parse, nobodys_folder, monkeypatch, capsys):
    """Said before the model is loaded."""
    picture = save_picture(nobodys_folder / "1.png")
    output = nobodys_folder / "out"
    output.mkdir(mode=0o500)
    monkeypatch.setattr("aiparsing_d2.cli.parse._make_predictor", None)
    for folder in (output, output / "below"):
        assert parse(picture, "--output", folder) == 1
        message = f"aiparsing parse: {folder} cannot be written to: Permission denied\n"
        assert capsys.readouterr().err == message
    assert names_below(output) == set()


def test_a_file_in_the_way(parse, tmp_path, capsys):
    (tmp_path / "out").touch()
    assert parse(save_picture(tmp_path / "1.png")) == 1
    assert str(tmp_path / "out") in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_full_disk(parse, tmp_path, monkeypatch, capsys):
    """Nothing can be written any more: the run ends at once, and goes on when there is room."""
    num_opened = 0

    def open_on_full_disk(path, *args, **options):
        nonlocal num_opened
        num_opened += 1
        return builtins.open(path if num_opened <= 5 else "/dev/full", *args, **options)

    for n in range(60):
        save_picture(tmp_path / f"in/{n:02}.png")
    monkeypatch.setattr("aiparsing_d2.whole_files.open", open_on_full_disk, raising=False)
    assert parse(tmp_path / "in", "--save", "json") == 1
    out, err = capsys.readouterr()
    assert names_below(tmp_path / "out") == {f"{n:02}.json" for n in range(5)}
    assert err.splitlines()[-1] == (
        "Ended, since no space left on device: 5 of 60 pictures done; the same command goes "
        "on from here."
    )
    assert 6 <= num_opened <= 15
    monkeypatch.undo()


def test_pictures_that_vanish(parse, predictor, tmp_path, monkeypatch, capsys):
    for n in range(12):
        save_picture(tmp_path / f"in/{n:02}.png")
    original = predictor.parse_prepared

    def parse_prepared(prepared):
        (tmp_path / "in" / "11.png").unlink(missing_ok=True)
        return original(prepared)

    monkeypatch.setattr(predictor, "parse_prepared", parse_prepared)
    assert parse(tmp_path / "in", "--save", "json") == 1
    assert "No such file" in capsys.readouterr().err
    assert len(names_below(tmp_path / "out")) == 11


def test_names_that_clash(parse, tmp_path, capsys):
    """The first has the name."""
    for name in ("in/1.jpg", "in/1.png", "in/a/1.png", "b/1.png"):
        save_picture(tmp_path / name)
    assert parse(tmp_path / "in", tmp_path / "b", tmp_path / "in/1.jpg", "--save", "json") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "has the same name" in line]
    assert [line.split(":")[0] for line in lines] == [
        str(tmp_path / "in/1.png"), str(tmp_path / "b/1.png")
    ]  # fmt: skip
    assert names_below(tmp_path / "out") == {"1.json", "a/1.json"}


def test_results_that_clash(parse, tmp_path, capsys):
    """1.coco.json would be of two pictures."""
    save_picture(tmp_path / "in" / "1.png")
    save_picture(tmp_path / "in" / "1.coco.png")
    assert parse(tmp_path / "in", "--save", "json") == 0
    assert parse(tmp_path / "in", "--output", tmp_path / "both", "--save", "json,coco") == 1
    assert "in/1.png: " in capsys.readouterr().err
    assert names_below(tmp_path / "both") == {"1.coco.json", "1.coco.coco.json"}


def test_output_in_the_folder_of_the_pictures(parse, tmp_path, capsys):
    picture = save_picture(tmp_path / "in" / "1.png")
    output = ["--output", picture.parent]
    assert parse(picture.parent, *output, "--save", "overlay") == 1
    assert "not parsed; give another --output" in capsys.readouterr().err
    assert names_below(picture.parent) == {"1.png"}
    assert parse(picture, *output, "--save", "overlay") == 0  # beside a picture that is named
    assert names_below(picture.parent) == {"1.png", "1.overlay.jpg"}
    inside = ["--output", picture.parent / "results"]
    for _ in range(2):
        assert parse(picture.parent, *inside, "--save", "overlay") == 0
    results = {"results/1.overlay.jpg", "results/1.overlay.overlay.jpg"}
    assert names_below(picture.parent) == {"1.png", "1.overlay.jpg", *results}


def test_lists(parse, tmp_path, monkeypatch, capsys):
    for n in range(3):
        save_picture(tmp_path / f"{n} ü.png")
    monkeypatch.chdir(tmp_path)
    names = "0 ü.png\r\n\r\n1 ü.png\n2 ü.png"
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + names.encode())
    assert parse("list.txt", "--save", "json") == 0
    assert names_below(tmp_path / "out") == {f"{n} ü.json" for n in range(3)}


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "list.txt: No such file or directory"),
        (b"", "list.txt: no names in this list"),
        (b"\n \r\n", "list.txt: no names in this list"),
        (b"none.png\n", "none.png: No such file or directory"),
    ],
)
def test_lists_of_nothing(parse, tmp_path, capsys, content, message):
    picture = save_picture(tmp_path / "1.png")
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    assert parse(tmp_path / "list.txt", picture, "--save", "json") == 1
    assert message in capsys.readouterr().err
    assert names_below(tmp_path / "out") == {"1.json"}


@pytest.mark.parametrize(
    "given, message",
    [
        ("none.jpg", "No such file or directory"),
        ("none", "No such file or directory"),
        ("no/*.jpg", "nothing has such a name"),
        ("", "No such file or directory"),
        ("empty", "no pictures (.jpg, "),
        ("1.png/2.png", "Not a directory"),
        ("a" * 300, "File name too long"),
    ],
)
def test_inputs_that_are_not_there(parse, tmp_path, monkeypatch, capsys, given, message):
    monkeypatch.chdir(tmp_path)
    save_picture(tmp_path / "1.png")
    (tmp_path / "empty").mkdir()
    assert parse(given, "1.png", "--save", "json") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if message in line]
    assert line.startswith(f"{given}: ")
    assert names_below(tmp_path / "out") == {"1.json"}


def test_no_inputs(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["parse", "--output", str(tmp_path)])
    assert end.value.code == 2 and "INPUT" in capsys.readouterr().err
