"""Runs that retrained, on the pages of models: none, all their ends in words, and the gate's report."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from service.retraining.lease import Held
from tests.e2e.review.shop import Shop, fits_screens, person
from tests.service.retraining.test_history import add, held_gate

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)


def fill(shop: Shop, folder: Path) -> None:
    """A run of every end; the newest last."""
    add(shop.database, folder, "default", "interrupted")
    add(
        shop.database, folder, "bolt", "failed", step="train", detail="retrain ended with status 2: no images"
    )
    add(shop.database, held_gate(folder / "run"), "bolt", "rejected", step="gate")
    add(shop.database, folder, "bolt", "passed", step="done", cause="drift", candidate_hash="a7" * 32)
    add(shop.database, folder, "bolt", step="train", cause="a person")


def test_every_end_is_said_in_words(chromium: Browser, shop: Shop, tmp_path: Path) -> None:
    with person(chromium, shop, "eva") as eva:
        eva.go("/models")
        panel = eva.page.locator("section", has=eva.page.get_by_role("heading", name="Retraining"))
        expect(panel).to_contain_text("Nothing was retrained yet")
        eva.go("/models/runs")
        expect(eva.page.locator(".empty code").first).to_have_text("inlier-service retrain RECIPE")
        fill(shop, tmp_path)
        with Held(shop.database, "bolt"):
            eva.go("/models")
            rows = panel.locator("tbody tr")
            expect(rows).to_have_count(5)
            for number, words in enumerate(
                (
                    ("running", "a person", "Trains."),
                    ("passed", "drift", "5 min 0 s", "released as a shadow", "a7a7a7a7a7a7"),
                    ("refused", "the schedule", "escape set: 2 of 3 pass, 1 before", "Gate report"),
                    ("failed", "The training failed; the active model goes on.", "status 2: no images"),
                    ("interrupted", "the next run takes it up"),
                )
            ):
                for each in words:
                    expect(rows.nth(number)).to_contain_text(each)
        eva.page.get_by_role("link", name="Gate report").click()
        expect(eva.page.locator("h1")).to_have_text("Gate")
        eva.complaints.clear()  # the page's policy stops the report's script, and says so
        eva.go("/models/runs?state=failed")
        expect(eva.page.locator("table.runs tbody tr")).to_have_count(1)
        eva.go("/models/runs?recipe=nut")
        expect(eva.page.locator(".empty")).to_contain_text("No run is of this recipe and state.")
        assert eva.complaints == []


@pytest.mark.parametrize(("theme", "language"), [("light", "en-GB"), ("dark", "de-DE")])
def test_no_barriers(chromium: Browser, shop: Shop, tmp_path: Path, theme: str, language: str) -> None:
    fill(shop, tmp_path)
    with person(chromium, shop, "eva", color_scheme=theme, locale=language) as eva:
        for path in ("/models", "/models/runs"):
            eva.go(path)
            assert eva.barriers() == []
            assert fits_screens(eva.page)
        assert eva.complaints == []
