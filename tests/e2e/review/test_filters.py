"""Filters of the queue and the list in a browser: times in the reader's zone, models, reviews."""

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.review.shop import Shop, person

pytestmark = pytest.mark.browser


def test_times_are_typed_in_the_readers_zone_and_sent_in_utc(chromium: Browser, shop: Shop) -> None:
    shop.fill((0.6, 0.7))
    with person(chromium, shop, timezone_id="Asia/Tokyo") as eva:
        page = eva.page
        eva.go("/review")
        page.locator("details.more summary").click()
        page.locator("[name=since]").fill("2000-01-01T12:00")
        page.locator("[name=until]").fill("2000-01-02T12:00")
        page.locator(".filters .actions button").click()
        expect(page.locator(".empty h2")).to_have_text("Nothing matches")
        asked = parse_qs(urlsplit(page.url).query)
        assert asked == {
            "since": ["2000-01-01T03:00:00.000Z"],
            "until": ["2000-01-02T03:00:00.000Z"],
            "review_state": ["none"],
        }
        expect(page.locator("[name=since]")).to_have_value("2000-01-01T12:00")  # stands as it was typed
        page.locator("[data-hours='1']").click()
        expect(page.locator("a.card")).to_have_count(2)
        assert eva.barriers() == []
        assert eva.complaints == []


def test_a_model_and_what_was_reviewed(chromium: Browser, shop: Shop) -> None:
    first, _ = shop.fill((0.6, 0.7))
    httpx.post(
        f"{shop.url}/v1/inspections/{first['id']}/reviews",
        json={"decision": "defective", "expected_revision": 0},
        headers=shop.key,
    ).raise_for_status()
    with person(chromium, shop) as eva:
        page = eva.page
        eva.go("/review?recipe=bolt")
        expect(page.locator("a.card")).to_have_count(1)
        page.locator("details.more summary").click()
        page.locator("[name=model_hash]").select_option(index=1)
        page.locator("[name=review_state]").select_option("defective")
        page.locator(".filters .actions button").click()
        page.wait_for_url("**/inspections?*wanted=true*")
        assert parse_qs(urlsplit(page.url).query)["recipe"] == ["bolt"]
        expect(page.locator("a.card")).to_have_count(1)
        assert str(first["id"]) in str(page.locator("a.card").get_attribute("href"))
        assert page.locator("details.more").get_attribute("open") is not None
        assert eva.complaints == []


def test_without_scripts_times_are_utc(chromium: Browser, shop: Shop) -> None:
    shop.fill((0.6,))
    with person(chromium, shop, java_script_enabled=False) as eva:
        eva.go("/inspections?since=2001-02-03T04:05&until=&model_hash=&lot=")
        expect(eva.page.locator("a.card")).to_have_count(1)
        expect(eva.page.locator("details.more")).to_contain_text("From (UTC)")
        assert eva.page.locator("[name=since]").input_value() == "2001-02-03T04:05"
        expect(eva.page.locator(".with-scripts")).to_be_hidden()
