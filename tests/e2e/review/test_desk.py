"""The page of an inspection in a browser: every key, the next one in place, what happens when two meet."""

import re
import time
from collections.abc import Iterator

import cv2
import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.review.shop import Person, Shop, fits_screens, person, picture

pytestmark = pytest.mark.browser
WAIT_MS = 60_000
SPOTS = (0.0, 0.5, 0.58, 0.66, 0.74)  # all but the first are for review
expect.set_options(timeout=WAIT_MS)


@pytest.fixture
def eva(chromium: Browser, shop: Shop) -> Iterator[Person]:
    shop.fill(SPOTS)
    with person(chromium, shop) as eva:
        start(eva)
        yield eva


def start(who: Person) -> str:
    who.go("/review")
    who.page.locator("#start").click()
    return ready(who)


def ready(who: Person) -> str:
    """The id of what is shown, once the next one can be gone to."""
    expect(who.page.locator("#zoom")).to_contain_text("%")
    return str(who.page.locator("#desk").get_attribute("data-id"))


def press(who: Person, key: str) -> str:
    """Press a key that leads to another inspection -> its id."""
    before = ready(who)
    who.page.keyboard.press(key)
    expect(who.page.locator("#desk")).not_to_have_attribute("data-id", before)
    return ready(who)


def can_go_on(who: Person) -> None:
    expect(who.page.locator('[data-do="next"]')).to_be_enabled()


def sent(who: Person) -> None:
    expect(who.page.locator("#unsent")).to_be_hidden()


def state(shop: Shop, identifier: str) -> object:
    return shop.get(f"/v1/inspections/{identifier}")["review"]["state"]  # type: ignore[index]


@pytest.mark.parametrize(("key", "decision"), [("g", "good"), ("d", "defective"), ("u", "unsure")])
def test_one_key_decides_and_moves_on(eva: Person, shop: Shop, key: str, decision: str) -> None:
    first = ready(eva)
    can_go_on(eva)
    assert press(eva, key) != first
    sent(eva)
    assert state(shop, first) == decision
    assert eva.complaints == []


def test_reason_and_comment_go_along_and_undo_takes_all_back(eva: Person, shop: Shop) -> None:
    first = ready(eva)
    can_go_on(eva)
    eva.page.keyboard.press("2")
    expect(eva.page.locator('[value="dent"]')).to_be_checked()
    eva.page.keyboard.press("c")
    eva.page.keyboard.type("good light")  # letters are no keys while somebody types
    eva.page.keyboard.press("Escape")
    press(eva, "d")
    sent(eva)
    said = shop.get(f"/v1/inspections/{first}/reviews")["items"][0]  # type: ignore[index]
    assert (said["decision"], said["reason"], said["comment"]) == ("defective", "dent", "good light")
    assert press(eva, "Control+z") == first
    sent(eva)
    assert state(shop, first) == "none"
    can_go_on(eva)
    press(eva, "g")  # at the revision that the undo made
    sent(eva)
    assert state(shop, first) == "good"
    assert eva.complaints == []


def test_keys_that_only_look(eva: Person) -> None:
    page = eva.page
    first = ready(eva)
    can_go_on(eva)
    second = press(eva, "j")
    assert press(eva, "k") == first
    can_go_on(eva)
    assert press(eva, "ArrowRight") == second
    assert press(eva, "ArrowLeft") == first
    heat = page.locator("image.heat")
    assert heat.get_attribute("opacity") == "0.6"
    page.keyboard.press(" ")
    assert heat.get_attribute("opacity") == "0"
    page.keyboard.press(" ")
    views = "[...document.querySelectorAll('svg.picture')].map(e => e.getAttribute('viewBox'))"
    fitted = page.evaluate(views)
    page.keyboard.press("+")
    page.keyboard.press("Shift+ArrowRight")
    zoomed = page.evaluate(views)
    assert len(set(zoomed)) == 1  # all three show the same place
    assert zoomed != fitted
    page.keyboard.press("x")
    expect(page.locator("#zoom")).to_have_text("100 %")
    page.keyboard.press("f")
    assert page.evaluate(views) == fitted
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    assert eva.barriers() == []
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    assert eva.complaints == []


def test_wheel_zooms_and_the_pointer_reads_the_map(eva: Person, shop: Shop) -> None:
    page = eva.page
    ready(eva)
    box = page.locator("svg.picture").first.bounding_box()
    assert box is not None
    before = page.locator("#zoom").inner_text()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#value")).to_have_text(re.compile(r"\(4\d, 4\d\) 1\.\d\d"))
    page.mouse.wheel(0, -300)
    expect(page.locator("#zoom")).not_to_have_text(before)


def test_without_scripts_the_form_decides(chromium: Browser, shop: Shop) -> None:
    item = shop.post(1, 0.6)
    with person(chromium, shop, java_script_enabled=False) as eva:
        eva.go(f"/inspections/{item['id']}?in=review")
        eva.page.locator(".decision.defective").click()
        eva.page.wait_for_url("**/review")
        assert state(shop, str(item["id"])) == "defective"


def test_two_operators_never_get_the_same_part(chromium: Browser, shop: Shop) -> None:
    shop.fill(SPOTS)
    with person(chromium, shop, "eva") as eva, person(chromium, shop, "max") as other:
        seen = [start(eva)]
        can_go_on(eva)  # the next one is claimed ahead
        theirs = [start(other)]
        can_go_on(other)
        seen.append(press(eva, "g"))
        theirs.append(press(other, "d"))
        sent(eva)
        sent(other)
        assert not set(seen) & set(theirs)


def test_a_decision_on_what_somebody_decided_meanwhile_is_refused_and_said(eva: Person, shop: Shop) -> None:
    first = ready(eva)
    can_go_on(eva)
    said = {"decision": "unsure", "expected_revision": 0}

    httpx.post(f"{shop.url}/v1/inspections/{first}/reviews", json=said, headers=shop.key).raise_for_status()
    press(eva, "g")
    expect(eva.page.locator(".notice.bad")).to_contain_text("decided meanwhile")
    sent(eva)
    assert state(shop, first) == "unsure"


def test_decisions_survive_a_lost_connection_and_are_sent_later(eva: Person, shop: Shop) -> None:
    first = ready(eva)
    can_go_on(eva)
    eva.page.context.set_offline(True)
    press(eva, "g")  # the next one is here already
    expect(eva.page.locator(".notice.bad")).to_contain_text("kept here")
    expect(eva.page.locator("#unsent")).to_be_visible()
    assert state(shop, first) == "none"
    eva.page.context.set_offline(False)
    sent(eva)
    assert state(shop, first) == "good"
    expect(eva.page.locator("#unsent")).to_be_hidden()


def test_an_answer_that_was_lost_is_no_conflict(eva: Person, shop: Shop) -> None:
    first = ready(eva)
    can_go_on(eva)
    lost: list[str] = []

    def lose(route: object) -> None:
        if route.request.method == "POST" and not lost:  # type: ignore[attr-defined]
            lost.append(route.fetch().text())  # type: ignore[attr-defined]
            route.abort()  # type: ignore[attr-defined]
        else:
            route.continue_()  # type: ignore[attr-defined]

    eva.page.route(f"**/v1/inspections/{first}/reviews", lose)
    press(eva, "g")
    sent(eva)
    assert lost
    assert eva.page.locator(".notice.bad", has_text="meanwhile").count() == 0
    assert len(shop.get(f"/v1/inspections/{first}/reviews")["items"]) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_barriers_and_no_layout_shift(chromium: Browser, shop: Shop, theme: str) -> None:
    shop.fill(SPOTS)
    with person(chromium, shop, color_scheme=theme) as eva:
        eva.watch_shifts()
        for path in ("/review", "/inspections"):
            eva.go(path)
            assert eva.barriers() == []
        start(eva)
        assert eva.barriers() == []
        assert eva.shifts < 0.1
        assert fits_screens(eva.page)
        assert eva.complaints == []


def test_the_pages_speak_german(chromium: Browser, shop: Shop) -> None:
    shop.fill(SPOTS)
    with person(chromium, shop, locale="de-DE") as eva:
        start(eva)
        expect(eva.page.locator(".decision.good")).to_contain_text("Gut")
        assert eva.page.locator("html").get_attribute("lang") == "de"
        assert eva.complaints == []


def claimant(shop: Shop, identifier: str) -> object:
    return shop.get(f"/v1/inspections/{identifier}")["review"]["claimed_by"]  # type: ignore[index]


def test_who_steps_on_or_leaves_keeps_no_part_from_others(eva: Person, shop: Shop) -> None:
    first = ready(eva)
    can_go_on(eva)
    second = press(eva, "j")
    can_go_on(eva)  # the third is claimed ahead, the first left to others
    expect(eva.page.locator("#desk")).to_have_attribute("data-ready", "next")
    assert claimant(shop, second) == "eva"
    assert claimant(shop, first) is None
    eva.go("/inspections")
    until = time.monotonic() + 30  # the browser sends it behind the page's back
    while claimant(shop, second) and time.monotonic() < until:
        time.sleep(0.1)
    assert claimant(shop, second) is None
    assert eva.complaints == []


def test_two_fingers_zoom_all_three_pictures(chromium: Browser, shop: Shop) -> None:
    shop.fill(SPOTS)
    tablet = {"viewport": {"width": 820, "height": 1180}, "has_touch": True, "is_mobile": True}
    with person(chromium, shop, **tablet) as eva:
        start(eva)
        box = eva.page.locator("svg.picture").first.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        screen = eva.page.context.new_cdp_session(eva.page)

        def touch(kind: str, apart: float) -> None:
            points = [] if kind == "touchEnd" else [{"x": x - apart, "y": y}, {"x": x + apart, "y": y}]
            screen.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        before = eva.page.locator("#zoom").inner_text()
        touch("touchStart", 20)
        for apart in (30, 40, 50, 60):
            touch("touchMove", apart)
        touch("touchEnd", 60)
        fitted, zoomed = (int(text.split()[0]) for text in (before, eva.page.locator("#zoom").inner_text()))
        assert zoomed > 2 * fitted
        views = "[...document.querySelectorAll('svg.picture')].map(e => e.getAttribute('viewBox'))"
        assert len(set(eva.page.evaluate(views))) == 1
        assert eva.complaints == []


def test_one_to_one_shows_the_pixels_of_a_large_image(chromium: Browser, shop: Shop) -> None:
    small = cv2.imdecode(np.frombuffer(picture(1, 0.6), np.uint8), cv2.IMREAD_GRAYSCALE)
    item = shop.send(cv2.imencode(".png", cv2.resize(small, (2400, 1800)))[1].tobytes())
    with person(chromium, shop) as eva:
        eva.go(f"/inspections/{item['id']}")
        ready(eva)
        image = eva.page.locator("image.base").first
        expect(image).to_have_attribute("href", re.compile(r"size=1024$"))
        eva.page.keyboard.press("x")
        expect(image).to_have_attribute("href", re.compile(r"size=16384$"))
        assert eva.complaints == []
