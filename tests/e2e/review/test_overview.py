"""The overview in a browser: live, without barriers, and no obstacle to the end of the service."""

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.review.shop import Shop, person

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_live_and_without_barriers(chromium: Browser, shop: Shop, theme: str) -> None:
    shop.post(1, 0.0)
    with person(chromium, shop, color_scheme=theme) as eva:
        eva.go("/")
        expect(eva.page.locator("#live")).to_have_text("live")
        expect(eva.page.locator(".line")).to_have_count(1)
        shop.post(2, 0.6, line="B", station="cam9")
        expect(eva.page.locator(".line")).to_have_count(2)  # without a reload
        expect(eva.page.locator(".line").nth(1)).to_contain_text("cam9")
        expect(eva.page.locator(".line").nth(1)).to_contain_text("REVIEW")
        assert eva.barriers() == []
        assert eva.fits()
        assert eva.complaints == []


def test_nothing_yet_is_said(chromium: Browser, shop: Shop) -> None:
    with person(chromium, shop) as eva:
        eva.go("/")
        expect(eva.page.locator(".empty h2")).to_be_visible()
        assert eva.barriers() == []
