"""The masks page in a browser: every tool and key, what a mask would change, saving, conflicts, operators."""

from collections.abc import Iterator
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, expect

from tests.e2e.review.shop import SIDE, Person, Shop, fits_screens, person, picture

pytestmark = pytest.mark.browser
PATH = "/v1/recipes/bolt/mask"
expect.set_options(timeout=60_000)


@pytest.fixture
def ada(chromium: Browser, shop: Shop) -> Iterator[Person]:
    shop.fill((0.0, 0.6, 0.9))
    with person(chromium, shop, "ada") as ada:
        start(ada)
        yield ada


def start(who: Person, path: str = "/masks") -> None:
    who.go(path)
    expect(who.page.locator('[data-do="brush"]')).to_be_enabled()
    expect(who.page.locator("#zoom")).to_contain_text("%")


def spot(who: Person, x: float, y: float) -> tuple[float, float]:
    """Where a place of the image (shares of its side) is on the screen, while it is fitted."""
    box = who.page.locator("#stage").bounding_box()
    assert box is not None
    side = min(box["width"], box["height"]) - 2  # its border
    return box["x"] + box["width"] / 2 + (x - 0.5) * side, box["y"] + box["height"] / 2 + (y - 0.5) * side


def stroke(who: Person, *places: tuple[float, float]) -> None:
    who.page.mouse.move(*spot(who, *places[0]))
    who.page.mouse.down()
    for place in places[1:]:
        who.page.mouse.move(*spot(who, *place), steps=5)
    who.page.mouse.up()


def polygon(who: Person, *places: tuple[float, float]) -> None:
    who.page.keyboard.press("p")
    for place in places:
        who.page.mouse.click(*spot(who, *place))


def share(who: Person) -> float:
    """Of the image that is painted over, as the page says."""
    words = who.page.locator("#share").inner_text()
    return float(words.split(" %")[0]) / 100 if "%" in words else 0.0


def save(who: Person, why: str, button: str = ".primary") -> None:
    who.page.locator("[name=why]").fill(why)
    who.page.locator(f"#save {button}").click()


def stored(shop: Shop) -> NDArray[np.uint8]:
    answer = httpx.get(f"{shop.url}{PATH}", headers=shop.key).raise_for_status()
    mask = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert mask is not None
    return np.asarray(mask, dtype=np.uint8)


def versions(shop: Shop) -> list[dict[str, Any]]:
    found: Any = shop.get(f"{PATH}/versions")["items"]
    return list(found)


def put(shop: Shop, why: str = "clamp", side: float = 0.25) -> None:
    corners = [[0, 0], [side * SIDE, 0], [side * SIDE, SIDE], [0, SIDE]]
    body = {"width": SIDE, "height": SIDE, "polygons": [corners]}
    httpx.put(f"{shop.url}{PATH}", params={"why": why}, json=body, headers=shop.key).raise_for_status()


def test_what_is_painted_is_what_is_stored_and_not_inspected(ada: Person, shop: Shop) -> None:
    polygon(ada, (0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9))
    ada.page.keyboard.press("Enter")
    assert share(ada) == pytest.approx(0.64, abs=0.02)
    expect(ada.page.locator("#effect-text")).to_contain_text("2 of the newest 3 verdicts would change")
    expect(ada.page.locator("#strip .card")).to_have_count(2)
    expect(ada.page.locator("#strip .after").first).to_have_text("PASS")
    save(ada, "only the rim matters")
    expect(ada.page.locator(".notice.good")).to_contain_text("Version 1 of the mask is in force")
    mask = stored(shop)
    assert mask.shape == (SIDE, SIDE)
    assert mask[SIDE // 2, SIDE // 2] == 255
    assert mask[3, 3] == 0
    assert abs((mask == 255).mean() - 0.64) < 0.02
    assert (versions(shop)[0]["who"], versions(shop)[0]["why"]) == ("ada", "only the rim matters")
    assert shop.post(9, 0.9)["verdict"] == "PASS"
    assert ada.complaints == []


def test_brush_eraser_undo_redo_and_clear(ada: Person) -> None:
    page = ada.page
    undo, redo = page.locator('[data-do="undo"]'), page.locator('[data-do="redo"]')
    expect(undo).to_be_disabled()
    stroke(ada, (0.3, 0.5), (0.7, 0.5))
    line = share(ada)
    assert 0.01 < line < 0.06
    page.keyboard.press("e")
    expect(page.locator('[data-do="erase"]')).to_have_attribute("aria-pressed", "true")
    stroke(ada, (0.5, 0.45), (0.5, 0.55))
    cut = share(ada)
    assert 0 < cut < line
    page.keyboard.press("Control+z")
    assert share(ada) == line
    page.keyboard.press("Control+Shift+z")
    assert share(ada) == cut
    expect(redo).to_be_disabled()
    page.keyboard.press("Delete")
    assert share(ada) == 0
    undo.click()
    assert share(ada) == cut
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert share(ada) == 0
    expect(undo).to_be_disabled()
    expect(page.locator("#save .primary")).to_be_disabled()
    page.keyboard.press("Control+y")
    assert share(ada) == line
    page.keyboard.press("b")
    stroke(ada, (0.2, 0.2), (0.25, 0.2))  # what was taken back is gone for good
    expect(redo).to_be_disabled()


def test_the_other_keys(ada: Person) -> None:
    page, size = ada.page, ada.page.locator("#size-text")
    before = size.inner_text()
    page.keyboard.press(".")
    assert size.inner_text() != before
    page.keyboard.press(",")
    assert size.inner_text() == before
    zoom = page.locator("#zoom")
    fitted = zoom.inner_text()
    page.keyboard.press("+")
    assert zoom.inner_text() != fitted
    page.keyboard.press("f")
    assert zoom.inner_text() == fitted
    polygon(ada, (0.2, 0.2), (0.4, 0.2), (0.9, 0.9), (0.4, 0.4))
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    assert share(ada) == 0
    polygon(ada, (0.2, 0.2), (0.4, 0.2), (0.9, 0.9))
    page.keyboard.press("Backspace")
    page.mouse.click(*spot(ada, 0.4, 0.4))
    page.mouse.click(*spot(ada, 0.2, 0.2))  # its first corner
    assert 0.01 < share(ada) < 0.04
    picture_at = "document.querySelector('svg.picture').getAttribute('viewBox')"
    still = page.evaluate(picture_at)
    page.keyboard.press("b")
    page.keyboard.down(" ")
    stroke(ada, (0.3, 0.6), (0.6, 0.8))  # moves the picture
    page.keyboard.up(" ")
    assert page.evaluate(picture_at) != still
    assert share(ada) < 0.04
    page.keyboard.press("h")
    expect(page.locator('[data-do="move"]')).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    assert ada.barriers() == []
    assert ada.complaints == []


def test_a_finger_paints_and_two_zoom(chromium: Browser, shop: Shop) -> None:
    shop.fill((0.0,))
    options = {"viewport": {"width": 820, "height": 1180}, "has_touch": True, "is_mobile": True}
    with person(chromium, shop, "ada", **options) as ada:
        start(ada)
        touch = ada.page.context.new_cdp_session(ada.page)

        def fingers(kind: str, *places: tuple[float, float]) -> None:
            points = []
            for number, place in enumerate(places):
                x, y = spot(ada, *place)
                points.append({"x": x, "y": y, "id": number})
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        fingers("touchStart", (0.3, 0.5))
        for step in range(1, 6):
            fingers("touchMove", (0.3 + 0.08 * step, 0.5))
        fingers("touchEnd")
        painted, zoom = share(ada), ada.page.locator("#zoom").inner_text()
        assert painted > 0.01
        fingers("touchStart", (0.4, 0.4))
        fingers("touchStart", (0.4, 0.4), (0.6, 0.6))
        for step in range(1, 6):
            fingers(
                "touchMove", (0.4 - 0.03 * step, 0.4 - 0.03 * step), (0.6 + 0.03 * step, 0.6 + 0.03 * step)
            )
        fingers("touchEnd")
        assert share(ada) == painted
        assert ada.page.locator("#zoom").inner_text() != zoom
        assert ada.page.evaluate("scrollY") == 0


def test_old_masks_are_loaded_and_the_mask_is_turned_off(chromium: Browser, shop: Shop) -> None:
    shop.fill((0.0,))
    put(shop, "clamp", 0.25)
    put(shop, "wider clamp", 0.5)
    with person(chromium, shop, "ada") as ada:
        start(ada)
        assert share(ada) == pytest.approx(0.5, abs=0.02)  # the mask in force is there to begin with
        ada.page.locator('[data-load="1"]').click()
        expect(ada.page.locator("#share")).to_contain_text("26")
        expect(ada.page.locator("#uncovers")).to_be_visible()
        save(ada, "the first one was right")
        expect(ada.page.locator(".notice.good")).to_contain_text("Version 3")
        assert versions(shop)[0]["share"] == versions(shop)[2]["share"]
        expect(ada.page.locator('[value="off"]')).to_be_visible()
        save(ada, "clamp is gone", '[value="off"]')
        expect(ada.page.locator(".notice.good")).to_contain_text("Version 4")
        assert (versions(shop)[0]["share"], versions(shop)[0]["why"]) == (0, "clamp is gone")
        assert ada.page.locator('[value="off"]').count() == 0
        assert ada.complaints == []


def test_what_somebody_saved_meanwhile_is_shown_and_nothing_is_lost(ada: Person, shop: Shop) -> None:
    stroke(ada, (0.3, 0.5), (0.7, 0.5))
    painted = share(ada)
    put(shop, "their clamp")
    save(ada, "mine")
    expect(ada.page.locator("#conflict")).to_contain_text("shop saved version 1 meanwhile (their clamp)")
    assert (share(ada), ada.page.locator("[name=why]").input_value()) == (painted, "mine")
    assert len(versions(shop)) == 1
    assert ada.barriers() == []
    ada.page.locator('[data-do="insist"]').click()
    expect(ada.page.locator(".notice.good")).to_contain_text("Version 2")
    assert versions(shop)[0]["why"] == "mine"


def test_another_image_and_one_of_ones_own(ada: Person, shop: Shop) -> None:
    links = ada.page.locator(".images a")
    expect(links).to_have_count(3)
    links.nth(2).click()
    expect(links.nth(2)).to_have_attribute("aria-current", "true")
    expect(ada.page.locator('[data-do="brush"]')).to_be_enabled()
    file = ada.page.locator("#file")
    file.set_input_files({"name": "own.png", "mimeType": "image/png", "buffer": picture(3, 0.4)})
    stroke(ada, (0.3, 0.5), (0.7, 0.5))
    assert share(ada) > 0.01
    file.set_input_files({"name": "own.txt", "mimeType": "image/png", "buffer": b"no image"})
    expect(ada.page.locator(".notice.bad")).to_contain_text("own.txt is no image")


def test_an_operator_paints_and_cannot_save(chromium: Browser, shop: Shop) -> None:
    shop.fill((0.0, 0.9))
    with person(chromium, shop, "eva") as eva:
        start(eva)
        assert eva.page.locator("#save").count() == 0
        expect(eva.page.locator("main")).to_contain_text("Only admins change masks")
        polygon(eva, (0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9))
        eva.page.keyboard.press("Enter")
        expect(eva.page.locator("#effect-text")).to_contain_text("1 of the newest 2")
        token = eva.page.locator('meta[name="csrf-token"]').get_attribute("content") or ""
        answer = eva.page.request.put(
            f"{shop.url}{PATH}?why=x",
            data=picture(1, 0),
            headers={"X-CSRF-Token": token, "Content-Type": "image/png"},
        )
        assert answer.status == 403


def test_no_image_yet_and_a_mask_without_scripts(chromium: Browser, shop: Shop) -> None:
    with person(chromium, shop, "ada") as ada:
        ada.go("/masks?recipe=bolt")
        expect(ada.page.locator(".empty")).to_contain_text("No image of this recipe yet")
        assert ada.barriers() == []
        file = {"name": "own.png", "mimeType": "image/png", "buffer": picture(3, 0.4)}
        ada.page.locator("#file").set_input_files(file)
        expect(ada.page.locator('[data-do="brush"]')).to_be_enabled()
        stroke(ada, (0.3, 0.5), (0.7, 0.5))
        assert share(ada) > 0.01
        assert ada.complaints == []
    shop.fill((0.0,))
    put(shop)
    with person(chromium, shop, "eva", java_script_enabled=False) as eva:
        eva.go("/masks?recipe=bolt")
        assert eva.page.locator(".still image").count() == 1
        expect(eva.page.locator("#share")).to_contain_text("is not inspected")
        assert eva.page.locator("[data-do=brush]").is_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_barriers_and_no_layout_shift(chromium: Browser, shop: Shop, theme: str) -> None:
    shop.fill((0.0, 0.6))
    put(shop)
    with person(chromium, shop, "ada", color_scheme=theme, locale="de-DE") as ada:
        ada.watch_shifts()
        start(ada)
        expect(ada.page.locator("h1")).to_contain_text("Masken")
        assert ada.barriers() == []
        assert ada.shifts < 0.1
        assert fits_screens(ada.page)
        assert ada.complaints == []
