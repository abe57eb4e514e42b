"""The page in a browser: by keyboard, on a phone, for screen readers, while things change.

The browser is the system's (Debian: chromium-headless-shell); without one these tests are skipped,
unless COLORDAEMON_REQUIRE_BROWSER is 1.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uvicorn
from pages import TOKEN, House

from colordaemon.media.drawing import jpeg_of
from colordaemon.service.job import State
from colordaemon.service.publisher import tag_of
from colordaemon.service.records import Records
from colordaemon.service.thumbnails import Thumbnails
from colordaemon.web.app import make_app
from colordaemon.web.guard import LOCAL_HOSTS
from colordaemon.web.server import bound

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
DESK, PHONE = (1200, 850), (390, 844)
LONG = "a film with a name that is much longer than any screen of a phone is wide " * 2
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2).png"
Visit = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if PROGRAM is None:
        if os.environ.get("COLORDAEMON_REQUIRE_BROWSER") == "1":
            pytest.fail("COLORDAEMON_REQUIRE_BROWSER is 1, but there is no chromium")
        pytest.skip("no chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def house(tmp_path: Path) -> House:
    """With jobs in every state, and pictures of one that is done."""
    house = House(tmp_path)
    house.fill(State.DONE, source=house.folders.inbox / "portrait.png")
    ramp = np.repeat(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], 48, 0)
    gray, color = np.repeat(ramp, 3, 2), np.dstack((ramp, ramp // 2, ramp // 3))
    with Records(house.folders.journal) as records:
        tag = tag_of(records.token, 1)
    pair = jpeg_of(gray), jpeg_of(color)
    Thumbnails(house.folders.thumbnails).write(tag, [pair, pair])
    house.fail(60)
    house.fill(State.QUEUED, 3)
    house.fill(State.QUEUED, source=house.folders.inbox / LONG.strip() / LONG.strip())
    house.fill(State.QUEUED, source=house.folders.inbox / HOSTILE)
    house.fill(State.RUNNING)
    house.fill(State.SKIPPED, code="color", reason="in color already")
    return house


@contextmanager
def served(house: House) -> Iterator[str]:
    """The page in a thread; its address."""
    with bound("127.0.0.1:0") as listener:
        app = make_app(house.page(), house.keys, [*LOCAL_HOSTS])
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            house.is_over = server.should_exit = True
            thread.join()


@pytest.fixture
def visit(house: House, browser: Browser) -> Iterator[Visit]:
    """Opens an address of the page; whatever the browser complains about fails the test."""
    complaints, contexts = list[str](), list[Any]()
    with served(house) as url:

        def visit(address: str, size: tuple[int, int] = DESK, **options: Any) -> Page:
            viewport = {"width": size[0], "height": size[1]}
            context = browser.new_context(viewport=viewport, **options)  # type: ignore[arg-type]
            contexts.append(context)
            page = context.new_page()
            page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("dialog", lambda dialog: complaints.append(dialog.message))
            page.goto(f"{url}/?token={TOKEN}")
            page.goto(f"{url}{address}")
            return page

        yield visit
        for context in contexts:
            context.close()
    assert not complaints


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_axe_finds_no_hindrance_and_nothing_is_wider_than_the_screen(
    house: House, visit: Visit, size: tuple[int, int], scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with house.daemon(waiting="the disk is full"):
        for address in ("/", "/queue", "/failed?page=2", "/job/1"):
            page = visit(address, size, color_scheme=scheme)
            found = Axe().run(page).response["violations"]
            grave = [each for each in found if each["impact"] in ("serious", "critical")]
            assert not [(each["id"], each["nodes"][0]["html"]) for each in grave], address
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0], address


def test_the_form_for_the_token_is_no_hindrance_either(house: House, browser: Browser) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with served(house) as url:
        page = browser.new_page()
        page.goto(url)
        assert not Axe().run(page).response["violations"]
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Now").wait_for()
        page.context.close()


def test_everything_can_be_done_by_keyboard_and_the_focus_stays(house: House, visit: Visit) -> None:
    with house.daemon():
        page = visit("/queue")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # past the navigation
        assert page.evaluate("document.activeElement.id") == "main"
        page.get_by_role("button", name="First queued 2.png").focus()
        page.keyboard.press("Enter")
        page.get_by_text("1 file moved to the front").wait_for()
        assert page.locator(".jobs .name").first.inner_text() == "queued 2.png"
        page.get_by_role("button", name="Pause").focus()
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Resume").wait_for()
        assert page.evaluate("document.activeElement.textContent").strip() == "Resume"
    with Records(house.folders.journal) as records:
        assert records.fact("paused") == "yes"


def test_the_slider_uncovers_what_was_there_before(visit: Visit) -> None:
    page = visit("/job/1", PHONE)
    sliders = page.get_by_role("slider")
    assert sliders.count() == 2
    sliders.first.focus()
    page.keyboard.press("Home")
    cut = "getComputedStyle(document.querySelector('.pair')).getPropertyValue('--cut').trim()"
    assert page.evaluate(cut) == "0%"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(cut) == "1%"
    loaded = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
    page.wait_for_function(loaded)


def test_what_changes_is_shown_without_a_click(house: House, visit: Visit) -> None:
    page = visit("/failed")
    page.locator("#count-failed").filter(has_text="60").wait_for()
    page.get_by_role("searchbox").focus()
    page.keyboard.type("half a wo")
    house.fail(source=house.folders.inbox / "just now.png")
    page.locator(".jobs .name").filter(has_text="just now.png").wait_for()
    page.locator("#count-failed").filter(has_text="61").wait_for()
    page.keyboard.type("rd")
    assert page.get_by_role("searchbox").input_value() == "half a word"


def test_names_of_files_run_no_script(house: House, visit: Visit) -> None:
    page = visit("/queue")
    page.get_by_role("link", name=HOSTILE).wait_for()
    with house.daemon():
        page.get_by_role("button", name=f"Cancel {HOSTILE}").click()
        page.get_by_text("1 file cancelled").wait_for()
    assert page.locator("main img, main script").count() == 0


def test_without_scripts_commands_work_at_the_next_page(house: House, visit: Visit) -> None:
    with house.daemon():
        page = visit("/failed?page=2", java_script_enabled=False)
        page.get_by_role("button", name="Retry failed 0.png").click()
        page.get_by_text("1 file queued again").wait_for()
        assert page.url.endswith("/failed?page=2")
