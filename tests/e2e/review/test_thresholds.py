"""The thresholds page in a browser: dragging, keys, numbers, saving, conflicts, operators."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Route, expect

from tests.e2e.review.shop import Person, Shop, fits_screens, person

pytestmark = pytest.mark.browser
SPOTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.58, 0.66, 0.74, 0.9)
PATH = "/v1/recipes/bolt/thresholds"
expect.set_options(timeout=60_000)


@pytest.fixture
def ada(chromium: Browser, shop: Shop) -> Iterator[Person]:
    shop.fill(SPOTS)
    with person(chromium, shop, "ada") as ada:
        ada.go("/thresholds")
        yield ada


def handle(who: Person, name: str) -> Locator:
    found = who.page.locator(f".handle.{name}")
    expect(found).to_be_visible()
    return found


def value(who: Person, name: str) -> float:
    return float(handle(who, name).get_attribute("aria-valuenow") or "nan")


def figure(who: Person, name: str) -> Locator:
    return who.page.locator(f'[data-rate="{name}"] .value')


def limits(shop: Shop) -> dict[str, Any]:
    return dict(shop.get(PATH))


def set_limits(shop: Shop, review: float, reject: float, based_on: int, why: str = "lot 17") -> None:
    sent = {"review": review, "reject": reject, "why": why, "based_on": based_on}
    httpx.post(f"{shop.url}{PATH}", json=sent, headers=shop.key).raise_for_status()


def previewed(shop: Shop, review: float, reject: float) -> dict[str, Any]:
    sent = {"review": review, "reject": reject}
    answer = httpx.post(f"{shop.url}{PATH}/preview", json=sent, headers=shop.key)
    return dict(answer.raise_for_status().json())


def save(who: Person, why: str) -> None:
    who.page.locator("[name=why]").fill(why)
    who.page.locator("#save .primary").click()


def test_figures_follow_while_a_limit_is_dragged(ada: Person, shop: Shop) -> None:
    page, box = ada.page, handle(ada, "review").bounding_box()
    assert box is not None
    before, load = value(ada, "review"), figure(ada, "review_rate").inner_text()
    page.mouse.move(box["x"] + 36, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] - 250, box["y"] + 100, steps=10)
    now = value(ada, "review")
    assert now < before - 1
    expect(figure(ada, "review_rate")).not_to_have_text(load)  # and the button is still down
    flips = previewed(shop, now, value(ada, "reject"))["flips"]
    assert flips["total"] > 0
    expect(figure(ada, "flips")).to_have_text(str(flips["total"]))
    page.mouse.up()
    expect(page.locator("#strip .card")).to_have_count(flips["total"])
    first = page.locator("#strip .card").first
    assert first.get_attribute("href") == f"/inspections/{flips['items'][0]['id']}"
    assert (first.locator(".before").inner_text(), first.locator(".after").inner_text()) == ("PASS", "REVIEW")
    assert page.locator("#limits [name=review]").input_value() == f"{now:g}"
    assert f"review={now:g}" in page.url
    assert ada.complaints == []


def test_positions_that_were_passed_are_skipped_and_the_last_one_is_shown(ada: Person, shop: Shop) -> None:
    expect(ada.page.locator("#effect")).not_to_have_class("panel behind")
    asked: list[float] = []
    held: list[Route] = []

    def hold(route: Route) -> None:
        asked.append(json.loads(route.request.post_data or "{}")["review"])
        held.append(route) if len(asked) == 1 else route.continue_()

    ada.page.route("**/preview?*", hold)
    slider = handle(ada, "review")
    slider.focus()
    for _ in range(20):
        ada.page.keyboard.press("ArrowLeft")
    last = value(ada, "review")
    assert asked == [pytest.approx(last + 0.95)]  # one at a time
    assert ada.page.locator("#effect.behind").count() == 1  # and the figures say that they lag
    held[0].continue_()
    expect(ada.page.locator("#effect.behind")).to_have_count(0)
    assert asked[1:] == [last]
    total = previewed(shop, last, value(ada, "reject"))["flips"]["total"]
    expect(figure(ada, "flips")).to_have_text(str(total))


def test_keys_move_a_limit(chromium: Browser, shop: Shop) -> None:
    steps = {"ArrowRight": 0.05, "ArrowUp": 0.05, "ArrowLeft": -0.05, "ArrowDown": -0.05}
    steps |= {"Shift+ArrowRight": 0.01, "Shift+ArrowLeft": -0.01, "PageUp": 0.5, "PageDown": -0.5}
    with person(chromium, shop, "ada") as ada:
        ada.go("/thresholds?recipe=bolt")
        slider = handle(ada, "review")
        slider.focus()
        for key, by in steps.items():
            before = value(ada, "review")
            ada.page.keyboard.press(key)
            assert value(ada, "review") == pytest.approx(before + by), key
            assert (slider.get_attribute("aria-valuetext") or "").startswith(f"{before + by:.2f} ")


def test_home_end_and_numbers_keep_review_below_reject(ada: Person) -> None:
    reject = value(ada, "reject")
    handle(ada, "review").focus()
    ada.page.keyboard.press("End")
    assert value(ada, "review") == reject
    ada.page.keyboard.press("Home")
    assert value(ada, "review") == -3
    typed = ada.page.locator("#limits [name=review]")
    typed.fill("2.34")
    assert value(ada, "review") == 2.34
    typed.fill(str(reject + 1))  # refused, and said
    assert value(ada, "review") == 2.34
    assert typed.evaluate("field => field.validationMessage") == "Review must not be above reject."
    ada.page.locator('[data-do="reset"]').click()
    assert (value(ada, "review"), value(ada, "reject")) == (3, 5)
    assert typed.input_value() == "3"


def test_a_finger_drags_a_limit(chromium: Browser, shop: Shop) -> None:
    shop.fill(SPOTS[:3])
    with person(
        chromium, shop, "ada", viewport={"width": 820, "height": 1180}, has_touch=True, is_mobile=True
    ) as ada:
        ada.go("/thresholds")
        box = handle(ada, "reject").bounding_box()
        assert box is not None
        touch = ada.page.context.new_cdp_session(ada.page)
        x, y = box["x"] + 8, box["y"] + 100
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        for step in range(1, 9):
            points = [{"x": x + 10 * step, "y": y + 2 * step}]
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": points})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert value(ada, "reject") > 5.5
        assert ada.page.evaluate("scrollY") == 0


def test_saving_asks_why_and_restoring_brings_old_limits_back(ada: Person, shop: Shop) -> None:
    expect(ada.page.locator("#save .primary")).to_be_disabled()
    handle(ada, "review").focus()
    ada.page.keyboard.press("PageDown")
    ada.page.locator("#save .primary").click()  # without a reason nothing is saved
    assert limits(shop)["current"]["version"] == 1
    save(ada, "more scratches seen")
    expect(ada.page.locator(".notice.good")).to_contain_text("Version 2 is in force")
    current = limits(shop)["current"]
    assert (current["review"], current["reject"], current["who"], current["why"]) == (
        *(2.5, 5.0, "ada", "more scratches seen"),
    )
    expect(ada.page.locator("tbody tr", has_text="more scratches seen")).to_contain_text("in force")
    ada.page.locator('[data-restore="1"]').click()
    assert value(ada, "review") == 3
    expect(ada.page.locator("#save-what")).to_contain_text("Version 1 again")
    save(ada, "it was better")
    expect(ada.page.locator(".notice.good")).to_contain_text("Version 3 is in force")
    current = limits(shop)["current"]
    assert (current["review"], current["why"]) == (3.0, "version 1 restored: it was better")
    assert ada.complaints == []


def test_what_somebody_saved_meanwhile_is_shown_and_nothing_typed_is_lost(ada: Person, shop: Shop) -> None:
    handle(ada, "reject").focus()
    ada.page.keyboard.press("PageUp")
    set_limits(shop, 2.0, 4.0, based_on=1)
    save(ada, "my reason")
    expect(ada.page.locator("#conflict")).to_contain_text("shop saved version 2 meanwhile")
    assert ada.page.locator("[name=why]").input_value() == "my reason"
    assert value(ada, "reject") == 5.5
    assert limits(shop)["current"]["version"] == 2
    assert ada.barriers() == []
    ada.page.locator('[data-do="insist"]').click()
    expect(ada.page.locator(".notice.good")).to_contain_text("Version 3 is in force")
    current = limits(shop)["current"]
    assert (current["reject"], current["why"]) == (5.5, "my reason")


def test_limits_are_suggested_for_rates(ada: Person) -> None:
    page = ada.page
    page.locator("[name=reject_rate]").fill("0.5")
    page.locator("[name=review_rate]").fill("2")
    page.locator("#ask button").click()
    page.locator(".suggestions button").first.click()
    # Of so few parts only the training says something: quantiles of the standard normal.
    assert (value(ada, "review"), value(ada, "reject")) == (2.05, 2.58)


def test_an_operator_looks_and_cannot_save(chromium: Browser, shop: Shop) -> None:
    shop.fill(SPOTS)
    set_limits(shop, 2.5, 5.0, based_on=1)
    with person(chromium, shop, "eva") as eva:
        eva.go("/thresholds")
        assert eva.page.locator("#save").count() == 0
        expect(eva.page.locator("main")).to_contain_text("Only admins change limits")
        handle(eva, "review").focus()
        eva.page.keyboard.press("PageDown")
        expect(figure(eva, "flips")).not_to_have_text("0")
        token = eva.page.locator('meta[name="csrf-token"]').get_attribute("content") or ""
        sent = {"review": 1.0, "reject": 2.0, "why": "x", "based_on": 2}
        answer = eva.page.request.post(f"{shop.url}{PATH}", data=sent, headers={"X-CSRF-Token": token})
        assert answer.status == 403


def test_nothing_inspected_and_nothing_reviewed_are_said(chromium: Browser, shop: Shop) -> None:
    with person(chromium, shop, "ada") as ada:
        ada.go("/thresholds?recipe=bolt")
        expect(ada.page.locator(".note").first).to_contain_text("Nothing to try limits on yet")
        assert ada.barriers() == []
        shop.fill(SPOTS)
        ada.go("/thresholds?recipe=bolt")
        expect(ada.page.locator(".missing").first).to_contain_text("random audits")
        assert not any(map(str.isdigit, figure(ada, "escape").inner_text()))
        handle(ada, "review").focus()
        ada.page.keyboard.press("PageDown")
        expect(figure(ada, "flips")).not_to_have_text("0")
        assert not any(map(str.isdigit, figure(ada, "escape").inner_text()))
        assert ada.complaints == []


def test_without_scripts_limits_are_typed_and_their_effect_is_shown(chromium: Browser, shop: Shop) -> None:
    shop.fill(SPOTS)
    with person(chromium, shop, "ada", java_script_enabled=False) as ada:
        ada.go("/thresholds")
        ada.page.locator("#limits [name=review]").fill("2")
        ada.page.locator("#limits button:visible").click()
        assert figure(ada, "flips").inner_text() == str(previewed(shop, 2, 5)["flips"]["total"])
        assert ada.page.locator(".bars rect.f-unreviewed").count() > 3
        assert ada.page.locator("#save").is_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_barriers_and_no_layout_shift(chromium: Browser, shop: Shop, theme: str) -> None:
    shop.fill(SPOTS)
    with person(chromium, shop, "ada", color_scheme=theme, locale="de-DE") as ada:
        ada.watch_shifts()
        ada.go("/thresholds?review=1")
        expect(ada.page.locator("#strip .card").first).to_be_visible()
        expect(ada.page.locator("h1")).to_have_text("Schwellen")
        assert ada.barriers() == []
        assert ada.shifts < 0.1
        assert fits_screens(ada.page)
        assert ada.complaints == []
