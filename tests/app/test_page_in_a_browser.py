"""The page in Chromium: files go in and come out, and nothing is asked of other machines."""

from __future__ import annotations

import json
import shutil
import socket
import time

import numpy as np
import pytest
from PIL import Image
from two_people import COAT, part_maps

pytest.importorskip("gradio", reason="needs the extra 'app'")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

pytestmark = pytest.mark.slow  # half a minute, most of it for starting Gradio and the browser

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def address(browser, parser, monkeypatch):
    """The server, which talks to this machine only."""
    from aiparsing_d2.app.page import serving

    asked = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def noted_connect(self, address):
        if self.family != socket.AF_UNIX:
            asked.append(address[0])
        return connect(self, address)

    def noted_look_up(host, *args, **options):
        asked.append(host)
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket.socket, "connect", noted_connect)
    monkeypatch.setattr(socket, "getaddrinfo", noted_look_up)
    with serving(parser, threshold=0.3) as address:
        assert address.startswith("http://127.0.0.1:")
        yield address
    assert "127.0.0.1" in asked  # Gradio looks whether its server answers
    assert set(asked) <= {"127.0.0.1", "localhost", "::1", None}


@pytest.fixture(params=SIZES)
def tab(request, browser, address):
    width, height = SIZES[request.param]
    tab = browser.new_page(viewport={"width": width, "height": height})
    tab.set_default_timeout(15_000)
    asked = []
    tab.on("request", lambda call: asked.append(call.url))
    tab.goto(address)
    yield tab
    assert tab.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
    outside = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert asked and outside == []
    tab.close()


def upload(tab, file) -> None:
    tab.set_input_files("#file input[type=file]", file)


def download(tab, button: str, folder):
    with tab.expect_download() as event:
        tab.click(f"#download-{button}")
    file = folder / event.value.suggested_filename
    event.value.save_as(file)
    return file


def test_from_a_picture_to_a_mask(tab, picture_file, tmp_path):
    assert not tab.is_visible("#drawing")
    upload(tab, picture_file)
    drawing = tab.locator("#drawing img")
    drawing.wait_for()
    sync_api.expect(tab.locator("#status")).to_contain_text("2 people")
    sync_api.expect(tab.locator("#legend")).to_contain_text("Coat")
    tab.wait_for_function("document.querySelector('#drawing img').naturalWidth == 1000")
    box = drawing.bounding_box()
    drawing.click(position={"x": box["width"] * 20.5 / 60, "y": box["height"] * 25.5 / 40})
    sync_api.expect(tab.locator("#part input")).to_have_value("Person 1: Coat")
    tab.locator("#mask img").wait_for()
    with Image.open(download(tab, "mask", tmp_path)) as mask:
        assert (np.array(mask) == 255 * (part_maps()[0] == COAT)).all()
    assert download(tab, "cutout", tmp_path).name.endswith("Coat.cutout.png")

    tab.click("#shown input")
    tab.get_by_role("option", name="Person 2").click()
    sync_api.expect(tab.locator("#legend")).not_to_contain_text("Coat")
    sync_api.expect(tab.locator("#legend")).to_contain_text("Face")
    (person,) = json.loads(download(tab, "json", tmp_path).read_text())["people"]
    assert person["score"] == pytest.approx(0.4)

    tab.fill("#threshold input[type=number]", "0.5")
    tab.press("#threshold input[type=number]", "Enter")
    sync_api.expect(tab.locator("#status")).to_contain_text("1 person")
    sync_api.expect(tab.locator("#shown input")).to_have_value("Everybody (1)")
    tab.uncheck("#labels input")
    sync_api.expect(tab.locator("#legend")).not_to_contain_text("Coat")


def test_from_a_clip_to_its_data_and_on_to_a_picture(
    tab, finder, clip_file, picture_file, tmp_path
):
    upload(tab, clip_file)
    sync_api.expect(tab.locator("#status")).to_contain_text("2 different people in 40 frames")
    tab.wait_for_function("document.querySelector('#video video').videoWidth == 60")
    tab.wait_for_function("document.querySelector('#video video').currentTime > 0")  # it plays
    sync_api.expect(tab.locator("#legend")).to_contain_text("Coat")
    assert not tab.is_visible("#drawing") and not tab.is_visible("#download-json")
    lines = download(tab, "jsonl", tmp_path).read_text().splitlines()
    assert [person["track_id"] for person in json.loads(lines[39])["people"]] == [1, 2]
    assert download(tab, "video", tmp_path).name == "on the beach.overlay.mp4"

    finder.seconds = 0.3
    tab.fill("#threshold input[type=number]", "0.5")
    tab.press("#threshold input[type=number]", "Enter")
    tab.click("#again")
    tab.locator("#status progress[value]").wait_for()
    tab.click("#stop")
    sync_api.expect(tab.locator("#status")).to_contain_text("1 person in ")
    sync_api.expect(tab.locator("#status")).to_contain_text(" was left out")

    tab.click("#again")
    tab.locator("#status progress[value]").wait_for()
    tab.click("#file button[aria-label='Clear']")
    sync_api.expect(tab.locator("#status")).to_have_text("")
    upload(tab, picture_file)
    tab.locator("#drawing img").wait_for()
    assert not tab.is_visible("#video") and not tab.is_visible("#again")
    sync_api.expect(tab.locator("#status")).to_contain_text("1 person in a picture")


def test_closing_the_page_ends_a_clip(browser, address, finder, clip_file):
    finder.seconds = 0.3
    tab = browser.new_page()
    tab.goto(address)
    upload(tab, clip_file)
    tab.locator("#status progress[value]").wait_for()
    tab.close()
    for _ in range(20):
        before = len(finder.calls)
        time.sleep(1)
        if len(finder.calls) == before:
            break
    assert 0 < len(finder.calls) < 20


def test_a_clip_waits_for_another(browser, address, finder, clip_file, picture_file):
    finder.seconds = 0.3
    first, second = browser.new_page(), browser.new_page()
    for tab in (first, second):
        tab.goto(address)
        upload(tab, clip_file)
        tab.locator("#status progress").wait_for()
    sync_api.expect(second.locator("#status")).to_contain_text("waits for 1 clip before it")
    assert not second.is_visible("#stop") and first.is_visible("#stop")
    third = browser.new_page()
    third.goto(address)
    upload(third, picture_file)  # waits for nobody
    sync_api.expect(third.locator("#status")).to_contain_text("2 people")
    first.close()
    second.locator("#status progress[value]").wait_for()
    second.click("#stop")
    sync_api.expect(second.locator("#status")).to_contain_text("2 different people in ")
    for tab in (second, third):
        tab.close()


def test_what_is_no_picture_is_told(tab, tmp_path, picture_file):
    file = tmp_path / "holiday.jpg"
    file.write_text("hello")
    upload(tab, file)
    sync_api.expect(tab.get_by_role("alert")).to_contain_text("holiday.jpg is not a readable image")
    assert not tab.is_visible("#drawing")
    tab.click("#file button[aria-label='Clear']")
    sync_api.expect(tab.locator("#status")).to_have_text("")
    upload(tab, picture_file)
    tab.locator("#drawing img").wait_for()
