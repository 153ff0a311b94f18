"""What is read of an image, against pixels set by hand and Pillow's own picture of each kind."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from aiparsing_d2.data.datasets import load_cihp
from aiparsing_d2.data.image_files import (
    UnreadableImageError,
    check_image_size,
    open_image,
    read_image,
    read_image_size,
)
from aiparsing_d2.preparation import DATA_SETS, Kind
from aiparsing_d2.preparation.inventory import take_inventory

# A red, a green and a blue pixel over a white, a black and a grey one.
COLORS = np.array(
    [[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(255, 255, 255), (0, 0, 0), (128, 128, 128)]],
    dtype=np.uint8,
)
GREY = np.array([[0, 1, 127], [128, 254, 255]], dtype=np.uint8)

# How EXIF's orientations have to be shown: number -> what makes it of the stored array.
TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def xmp(orientation):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/'
        '22-rdf-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        f'tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>'
    ).encode()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def add_chunk(path, before, kind, data):
    """Put a chunk of a PNG before the first of another kind."""
    content = path.read_bytes()
    place = content.index(before) - 4
    path.write_bytes(content[:place] + chunk(kind, data) + content[place:])


def save(path, pixels, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def check_size(path):
    """The index and the reader agree; gives what is read."""
    pixels = read_image(path, "RGB")
    assert read_image_size(path) == pixels.shape[:2]
    return pixels


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "webp"])
def test_exif_orientation(tmp_path, orientation, suffix):
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:8, :8], pixels[8:, :8], pixels[:8, 24:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    options = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}
    path = tmp_path / f"a.{suffix}"
    save(path, pixels, exif=exif(orientation), **options.get(suffix, {}))
    shown = check_size(path).astype(int)
    np.testing.assert_allclose(shown, TURNS[orientation](pixels.astype(int)), atol=12)


@pytest.mark.parametrize("orientation", TURNS)
def test_orientation_in_xmp_only(tmp_path, orientation):
    path = save(tmp_path / "a.png", COLORS)
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(orientation)
    add_chunk(path, b"IDAT", b"iTXt", text)
    np.testing.assert_array_equal(check_size(path), TURNS[orientation](COLORS))


def test_photograph_with_its_rotation_in_xmp(tmp_path):
    """As some programs write JPEGs. Older versions of Pillow do not see it, for either size."""
    file = io.BytesIO()
    Image.fromarray(COLORS).save(file, "JPEG")
    jpeg = file.getvalue()
    segment = b"http://ns.adobe.com/xap/1.0/\0" + xmp(6)
    path = tmp_path / "a.jpg"
    header = b"\xff\xe1" + struct.pack(">H", len(segment) + 2)
    path.write_bytes(jpeg[:2] + header + segment + jpeg[2:])
    is_seen = "xmp" in Image.open(path).info
    assert check_size(path).shape == ((3, 2, 3) if is_seen else (2, 3, 3))


def test_orientation_behind_the_pixels_does_not_count(tmp_path):
    path = save(tmp_path / "a.png", COLORS)
    add_chunk(path, b"IEND", b"eXIf", exif(6).removeprefix(b"Exif\0\0"))
    np.testing.assert_array_equal(check_size(path), COLORS)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about the metadata
@pytest.mark.parametrize("data", [b"", b"II", b"MM\0*\0\0\xff\xff", b"\xff" * 40, exif(6)[:-7]])
def test_broken_exif_is_none(tmp_path, data):
    path = save(tmp_path / "a.png", COLORS)
    add_chunk(path, b"IDAT", b"eXIf", data)
    np.testing.assert_array_equal(check_size(path), COLORS)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_is_none(tmp_path, orientation):
    path = save(tmp_path / "a.png", COLORS, exif=exif(orientation))
    np.testing.assert_array_equal(check_size(path), COLORS)


def palette():
    image = Image.new("P", (3, 2))
    image.putpalette(COLORS.tobytes())
    image.putdata(range(6))
    return image


def cmyk():
    """Without black, the inks are what is missing of the light."""
    pixels = np.concatenate([255 - COLORS, np.zeros((2, 3, 1), dtype=np.uint8)], axis=-1)
    return Image.frombytes("CMYK", (3, 2), pixels.tobytes())


def with_alpha():
    return np.concatenate([COLORS, np.arange(6, dtype=np.uint8).reshape(2, 3, 1) * 51], axis=-1)


@pytest.mark.parametrize(
    ("pixels", "suffix", "expected"),
    [
        pytest.param(COLORS, "png", COLORS, id="RGB"),
        pytest.param(with_alpha(), "png", COLORS, id="RGBA"),
        pytest.param(palette(), "png", COLORS, id="palette"),
        pytest.param(palette(), "gif", COLORS, id="gif"),
        pytest.param(cmyk(), "tiff", COLORS, id="CMYK"),
        pytest.param(GREY, "png", GREY[..., None].repeat(3, -1), id="grey"),
        pytest.param(np.dstack([GREY, GREY // 2]), "png", GREY[..., None].repeat(3, -1), id="LA"),
        pytest.param(
            GREY > 127, "png", np.uint8(255) * (GREY > 127)[..., None].repeat(3, -1), id="1 bit"
        ),
    ],
)
def test_kinds_of_pictures(tmp_path, pixels, suffix, expected):
    path = save(tmp_path / f"a.{suffix}", pixels)
    rgb, bgr = check_size(path), read_image(path)
    np.testing.assert_array_equal(rgb, expected)
    np.testing.assert_array_equal(bgr, expected[..., ::-1])
    assert rgb.dtype == bgr.dtype == np.uint8
    assert bgr.flags.writeable and bgr.flags.c_contiguous


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [30, 75, 98])
def test_jpegs_are_decoded_as_by_pillow(tmp_path, quality, subsampling, progressive):
    rng = np.random.default_rng(quality)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((117, 83)), dtype=int) + rng.integers(-30, 30, (83, 117, 3))
    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
    path = save(tmp_path / "a.jpg", pixels.clip(0, 255).astype(np.uint8), **options)
    expected = np.asarray(Image.open(path))
    np.testing.assert_array_equal(read_image(path, "RGB"), expected)
    np.testing.assert_array_equal(read_image(path, "BGR"), expected[..., ::-1])
    np.testing.assert_array_equal(read_image(path.read_bytes(), "RGB"), expected)


def test_cmyk_of_a_jpeg_is_not_inverted(tmp_path):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
    assert np.abs(check_size(save(tmp_path / "a.jpg", image)).astype(int) - (255, 0, 0)).max() < 30


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_scaled(tmp_path, suffix):
    values = np.array([[0, 1, 255, 256], [32768, 40000, 65279, 65535]], dtype=np.uint16)
    path = tmp_path / f"a.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5 4 2 65535\n" + values.astype(">u2").tobytes())
    else:
        save(path, values)
    expected = np.array([[0, 0, 0, 1], [128, 156, 254, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(check_size(path), expected[..., None].repeat(3, -1))
    np.testing.assert_array_equal(read_image(path, "L"), expected[..., None])


def tiff(values, bits, white):
    """A TIFF of one row of grey values; ``white`` is 1 if the highest one is white, 0 if 0 is."""
    packed = "".join(f"{value:0{bits}b}" for value in values)
    data = int(packed, 2).to_bytes(len(packed) // 8, "big")
    if bits == 16:
        data = np.frombuffer(data, ">u2").astype("<u2").tobytes()
    entries = [(256, len(values)), (257, 1), (258, bits), (259, 1), (262, white)]
    entries += [(273, 8 + 2 + 12 * 9 + 4), (277, 1), (278, 1), (279, len(data))]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + fields + bytes(4) + data


@pytest.mark.parametrize(("bits", "white"), [(8, 1), (8, 0), (12, 1), (16, 1), (16, 0)])
def test_what_a_tiff_says_of_its_grey_values_counts(tmp_path, bits, white):
    """Pillow leaves 12 bits as they are, and those of 0 as white unturned if there are 16."""
    values = [0, 1 << (bits - 2), 1 << (bits - 1), (1 << bits) - 1]
    path = tmp_path / "scan.tif"
    path.write_bytes(tiff(values, bits, white))
    expected = [0, 64, 128, 255] if white else [255, 191, 127, 0]
    assert read_image(path, "L").ravel().tolist() == expected


def test_postscript_is_not_run(tmp_path):
    path, mark = tmp_path / "a.jpg", tmp_path / "ran"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
        + f"({mark}) (w) file (x) writestring showpage\n".encode()
    )
    for read in (read_image, read_image_size):
        with pytest.raises(UnreadableImageError, match="a.jpg .*a PostScript program"):
            read(path)
    assert not mark.exists()


def test_sixteen_bits_of_grey_and_colour_agree(tmp_path):
    """A PNG of 16 bits a channel, as written by hand; Pillow reads its colours as 8 bits."""
    values = np.linspace(0, 65535, 301).astype(">u2")[None]
    rows = b"\0" + values[..., None].repeat(3, -1).tobytes()
    header = struct.pack(">IIBBBBB", values.size, 1, 16, 2, 0, 0, 0)
    path = tmp_path / "colour.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    grey = save(tmp_path / "grey.png", values.astype(np.uint16))
    np.testing.assert_array_equal(read_image(path), read_image(grey))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_without_a_known_range_are_refused(tmp_path, dtype):
    path = save(tmp_path / "a.tiff", GREY.astype(dtype))
    with pytest.raises(UnreadableImageError, match="a.tiff is not a readable image: the range of"):
        read_image(path)


def test_whatever_pillow_raises_names_the_file(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", COLORS)
    for error in (OSError("x"), SyntaxError("x"), ValueError("x"), struct.error("x"), IndexError()):
        with pytest.raises(UnreadableImageError, match="a.png is not a readable image: (x|Index)"):
            with open_image(path):
                raise error
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    for read in (read_image, read_image_size):
        with pytest.raises(UnreadableImageError, match="a.png is not .*decompression bomb"):
            read(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_bytes_give_no_other_error(tmp_path):
    """A few bytes of a JPEG with EXIF and of a PNG are changed, removed or repeated."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    whole = [
        save(tmp_path / "a.jpg", noise, exif=exif(6)).read_bytes(),
        save(tmp_path / "a.png", noise).read_bytes(),
    ]
    num_refused = 0
    for round_ in range(300):
        content = bytearray(whole[round_ % 2])
        for place in rng.integers(0, min(len(content), 200), rng.integers(1, 5)):
            content[place : place + rng.integers(0, 3)] = rng.bytes(rng.integers(0, 5))
        path = tmp_path / "b"
        path.write_bytes(content)
        try:
            size = read_image_size(path)
            pixels = read_image(path)
        except UnreadableImageError as e:
            assert str(path) in str(e)
            num_refused += 1
        else:
            assert pixels.shape == (*size, 3)
    assert 50 < num_refused < 300


def test_what_is_not_there(tmp_path):
    for read in (read_image, read_image_size):
        with pytest.raises(FileNotFoundError, match="a.png"):
            read(tmp_path / "a.png")
    with pytest.raises(ValueError, match="Unknown format 'CMYK': use one of BGR, RGB, L"):
        read_image(tmp_path / "a.png", "CMYK")


def test_sizes_that_files_state(monkeypatch):
    check_image_size(1, 10_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    check_image_size(10, 10)
    for size, message in (
        ((10, 11), "10 x 11 .*more than the 100 pixels"),
        ((-1, 2), '"height" is -1'),
        ((True, 2), '"height" is True'),
        ((2, 3.0), '"width" is 3.0'),
        ((2, "3"), "\"width\" is '3'"),
        ((2, None), '"width" is None'),
    ):
        with pytest.raises(ValueError, match=message):
            check_image_size(*size)


def test_suffixes_in_any_case(two_people):
    (record,) = load_cihp(two_people.root, "train")
    for folder in ("Images", "Category_ids", "Human_ids"):
        path = two_people.root / "Training" / folder / "0000001.png"
        path.rename(path.with_suffix(".PNG"))
    (renamed,) = load_cihp(two_people.root, "train")
    assert renamed == {
        key: value.replace(".png", ".PNG") if key.endswith("file_name") else value
        for key, value in record.items()
    }


@pytest.mark.parametrize(
    "name", ["0000001.jfif", "0000001.JPE", "0000001.webp", "0000001.BMP", "0000001.tif"]
)
def test_suffixes_of_other_programs(two_people, name):
    (record,) = load_cihp(two_people.root, "train")
    path = two_people.root / "Training" / "Images" / "0000001.png"
    path.rename(path.with_name(name))
    (renamed,) = load_cihp(two_people.root, "train")
    assert renamed["file_name"] == record["file_name"].replace("0000001.png", name)
    inventory = take_inventory(two_people.root, DATA_SETS["cihp"].as_own_data(), ["train"])
    (files,) = inventory.images["train"]
    assert files.image == f"Training/Images/{name}"


@pytest.mark.parametrize("name", ["0000001.heic", "0000001.png.part", "0000001"])
def test_a_file_that_does_not_fit_is_named(two_people, name):
    """By the loader and by ``prepare``, which both say what is there instead."""
    path = two_people.root / "Training" / "Images" / "0000001.png"
    path.rename(path.with_name(name))
    is_similar = not name.endswith(".part")
    with pytest.raises(FileNotFoundError) as error:
        load_cihp(two_people.root, "train")
    assert (f"There is {name}, which does not fit" in str(error.value)) == is_similar
    inventory = take_inventory(two_people.root, DATA_SETS["cihp"].as_own_data(), ["train"])
    (finding,) = [f for f in inventory.findings if f.kind is Kind.MISSING_IMAGE]
    assert (f"there is {name}, which does not fit" in finding.reason) == is_similar


def test_a_name_in_another_unicode_form_is_named(two_people):
    folder = two_people.root / "Training" / "Images"
    (folder / "0000001.png").rename(folder / "ANNE\u0301E.png")
    (two_people.root / "train_id.txt").write_text("ann\u00e9e\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="There is ANNE\u0301E.png, which does not fit"):
        load_cihp(two_people.root, "train")
