import json

import pytest

from aiparsing_d2.data.json_files import JsonError, parse_json, read_json, shortened

VALUE = {"é": [1, 2.5, None, True, "a"]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_of_other_systems(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(VALUE, ensure_ascii=False).encode(encoding))
    assert read_json(path) == VALUE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"{'a': 1}", "property name"),
        (b'{"a": \xff}', "codec can't decode"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5000, "limit"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "an object has the key 'b' twice"),
    ],
)
def test_broken_files_are_named(tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(JsonError, match=f"a.json is not valid JSON: .*{reason}"):
        read_json(path)
    with pytest.raises(JsonError, match=reason):
        parse_json(content)


def test_values_in_messages_are_short_and_of_one_line():
    deep = []
    for _ in range(10_000):
        deep = [deep]
    for value in (deep, "a\n\ud800" * 1000, {"a" * 999: "b" * 999}, list(range(999)), 10**400):
        text = shortened(value)
        assert len(text) <= 170 and "\n" not in text
        text.encode()
    assert shortened({"id": 1}) == "{'id': 1}"
