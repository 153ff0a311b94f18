"""Files as disks, networks, editors and other programs leave them, drawn by Hypothesis.

``FUZZ_EXAMPLES=2000 pytest --hypothesis-seed=1 -k damaged`` looks further than the suite does.
"""

import copy
import json
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

_NUM_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 0))

fuzz = settings(
    max_examples=_NUM_EXAMPLES or 80,
    derandomize=not _NUM_EXAMPLES,
    database=None,
    deadline=None,
    # Files of one folder are written anew for each example.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_LARGE = st.sampled_from([0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 10**9])
_INSERTED = st.binary(min_size=1, max_size=8) | st.sampled_from(
    [b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b"1e999", b"nan", b"9" * 400]
    + [b"../../etc/passwd", "é".encode(), b"\xe2\x80\xa8", b"\x0c"]
)


@st.composite
def damaged(draw, content):
    """Bytes of a file, of which up to four places are changed, lost, repeated or cut off."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "set", "delete", "insert", "cut", "repeat", "number"]))
        if kind == "flip" and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set" and content:
            content[place] = draw(st.integers(0, 255))
        elif kind == "delete":
            del content[place : place + draw(st.sampled_from([1, 4, 50, 1000]))]
        elif kind == "insert":
            content[place:place] = draw(_INSERTED)
        elif kind == "cut":
            del content[place:]
        elif kind == "repeat":
            other = draw(st.integers(0, max(len(content) - 1, 0)))
            content[place : place + 8] = content[other : other + 8]
        else:
            content[place : place + 4] = draw(_LARGE).to_bytes(4, draw(st.sampled_from(ORDERS)))
    return bytes(content)


ORDERS = ["big", "little"]

ODD_VALUES = st.sampled_from(
    [None, True, False, 0, -1, 1, 2, 255, 65536, 2**31, 2**63, 10**30, 10**400, 10**9, 0.5, -0.0]
    + [1e308, float("nan"), float("inf"), "", "a", "../x", "/etc/passwd", "..", ".", "~", "a\0b"]
    + ["x" * 5000, "x/" * 3000, "\ud800", "é", "0", "-1", "1.0", "C:\\x", [], [[]], {}, {"a": 1}]
    + [[1, 2], [None], [0] * 50]
).map(copy.deepcopy)  # as they become parts of what is changed


def _places(value):
    """(container, key) of all values inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    if isinstance(value, (dict, list)):
        for key, child in items:
            yield value, key
            if isinstance(child, (dict, list)):
                yield from _places(child)


@st.composite
def changed(draw, value):
    """A JSON value of which up to three parts are something else, missing or there twice."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(value)) if isinstance(value, (dict, list)) else []
        if not places:
            return draw(ODD_VALUES)
        container, key = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(["replace", "replace", "remove", "copy", "add"]))
        if kind == "replace":
            container[key] = draw(ODD_VALUES)
        elif kind == "remove":
            del container[key]
        elif kind == "copy":
            other, other_key = draw(st.sampled_from(places))
            if other_key in (other if isinstance(other, dict) else range(len(other))):
                container[key] = copy.deepcopy(other[other_key])
        elif isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        else:
            container[draw(st.sampled_from(["a", "id", "\ud800"]))] = draw(ODD_VALUES)
    return value


def damaged_json(value):
    """The bytes of a JSON file with other values, or damaged ones."""

    def dump(value):
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")

    return changed(value).map(dump) | damaged(dump(value))
