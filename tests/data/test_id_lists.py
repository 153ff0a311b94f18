import pytest

from aiparsing_d2.data.id_lists import IdListError, path_problem, read_id_list, scan_id_list


@pytest.fixture
def id_list(tmp_path):
    return tmp_path / "train_id.txt"


def test_ids_in_their_order(id_list):
    id_list.write_bytes(b"\xef\xbb\xbfvideos2/001\r\n\r\n  b c \n\xc3\xa9")
    assert read_id_list(id_list) == ["videos2/001", "b c", "é"]


BAD_LINES = {
    "repeated": (b"2", "repeats '2' of line 1"),
    "latin-1": (b"caf\xe9", "is not UTF-8 text: b'caf"),
    "zero byte": (b"a\0b", "control characters"),
    "line separator of text": (b"a\x0cb", "control characters"),
    "above": (b"../3", "'../3' leads out of its folder"),
    "absolute": (b"/3", "leads out"),
    "of windows": (b"videos1\\3", "backslash"),
    "empty name": (b"videos1//3", "empty name"),
    "too long": (b"9" * 300, "more than 255 bytes"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_bad_line_is_named(id_list, line, message):
    id_list.write_bytes(b"2\n\n" + line + b"\n4\n")
    with pytest.raises(IdListError, match=f"train_id.txt: line 3 .*{message}"):
        read_id_list(id_list)
    ids, (problem,) = scan_id_list(id_list)
    assert ids == {"2": 1, "4": 4}
    assert problem.line == 3 and problem.is_repetition == (line == b"2")


def test_number_of_bad_lines(id_list):
    id_list.write_text("1\n1\n1\n")
    with pytest.raises(IdListError, match=r"line 2 .*\(2 lines are wrong\)"):
        read_id_list(id_list)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_empty(id_list, content):
    id_list.write_bytes(content)
    with pytest.raises(IdListError, match="train_id.txt lists no image"):
        read_id_list(id_list)


def test_missing(id_list):
    with pytest.raises(FileNotFoundError, match="train_id.txt does not exist.*datasets/README.md"):
        read_id_list(id_list)


@pytest.mark.parametrize("path", ["0000006.jpg", "a/b..c.png", "~", "Sieben Hennen\u202f.png"])
def test_sound_paths(path):
    assert path_problem(path) is None
