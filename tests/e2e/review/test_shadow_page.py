"""The comparison of a shadow with the active model in a browser."""

import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from models.bundle import Bundle
from service.access.principal import SYSTEM
from service.db.repository import model_life, models, shadow_scores
from service.db.tables import ShadowScoreRow
from service.model_life import ModelBook
from service.recipes.intervals import wilson
from tests.e2e.review.shop import Shop, fits_screens, open_shop, person

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)
SPOTS = (0.0, 0.1, 0.3, 0.55, 0.6, 0.7, 0.95)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with open_shop(tmp_path) as shop:
        yield shop


def verdict(score: float) -> str:
    return "PASS" if score < 3 else "REVIEW" if score < 5 else "REJECT"


def shadowed(shop: Shop, bundle: Bundle, spots: tuple[float, ...]) -> list[ShadowScoreRow]:
    """A bundle shadows `bolt`, and has scored parts with such flaws -> its scores, oldest first."""
    model, _ = ModelBook(shop.database).register(SYSTEM, bundle.path)
    with shop.database.write() as session:  # begun and left there: no worker scores beside this test
        models.note(session, "bolt", model.hash, None, model_life.SHADOWED, "ada", "compare")
    rng = random.Random(1)
    rows = []
    for posted in shop.fill(spots):
        active = float(posted["score"]["calibrated"])  # type: ignore[index]
        score = active + rng.uniform(-1.5, 1.5)
        row = ShadowScoreRow(
            inspection_id=str(posted["id"]),
            model_hash=model.hash,
            recipe="bolt",
            profile="fast",
            score_raw=1.0,
            score=score,
            review=3.0,
            reject=5.0,
            verdict=verdict(score),
            latency_ms=rng.uniform(20, 40),
            active_hash="e" * 64,
            active_score=active,
            active_verdict=str(posted["verdict"]),
            active_latency_ms=rng.uniform(5, 12),
            disagrees=verdict(score) != posted["verdict"],
            created_at=datetime.now(UTC),
        )
        assert shadow_scores.add(shop.database, row)
        rows.append(row)
    return rows


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_where_they_agree_and_where_not(
    chromium: Browser, shop: Shop, tiny_bundle: Bundle, theme: str
) -> None:
    rows = shadowed(shop, tiny_bundle, SPOTS)
    order = ("PASS", "REVIEW", "REJECT")
    by_strictness = [order.index(row.verdict) - order.index(row.active_verdict) for row in rows]
    differ = [row for row in rows if row.disagrees]
    assert differ, "the test needs a disagreement"
    with person(chromium, shop, color_scheme=theme) as eva:
        eva.go(f"/models/{tiny_bundle.hash}/shadow?recipe=bolt")
        page = eva.page
        low, high = wilson(len(rows) - len(differ), len(rows))
        figures = page.locator(".figures li").first
        expect(figures).to_contain_text(f"{100 * (1 - len(differ) / len(rows)):.1f} %")
        expect(figures).to_contain_text(f"{100 * low:.1f}\u2013{100 * high:.1f} %")
        chart = page.locator("figure.scatter > svg")
        # told apart by shape, too: circles, and triangles that point up or down
        assert chart.locator("circle.same").count() == by_strictness.count(0)
        assert chart.locator("path.stricter").count() == len([n for n in by_strictness if n > 0])
        assert chart.locator("path.milder").count() == len([n for n in by_strictness if n < 0])
        assert chart.locator("line.limit").count() == 4
        cells = page.locator("table.cells td.num").all_inner_texts()
        assert sum(map(int, cells)) == len(rows)
        expect(page.locator(".card")).to_have_count(len(differ))
        assert eva.barriers() == []
        assert fits_screens(page)
        newest = differ[-1].inspection_id
        page.locator(".card").first.click()
        page.wait_for_url(re.compile(f"/inspections/{newest}"))
        page.go_back()
        chart.locator(f'a[href="/inspections/{newest}"]').click()
        page.wait_for_url(re.compile(f"/inspections/{newest}"))
        assert eva.complaints == []


def test_nothing_to_compare_is_said(chromium: Browser, shop: Shop, tiny_bundle: Bundle) -> None:
    with person(chromium, shop) as eva:
        eva.go(f"/models/{'e' * 64}/shadow?recipe=bolt")
        expect(eva.page.locator(".empty h2")).to_have_text("It never shadowed bolt")
        shadowed(shop, tiny_bundle, ())
        eva.go(f"/models/{tiny_bundle.hash}/shadow?recipe=bolt")
        expect(eva.page.locator(".empty h2")).to_have_text("Nothing scored yet")
        assert eva.barriers() == []
        eva.go(f"/models/{tiny_bundle.hash}")  # its history leads here
        eva.page.locator("[aria-labelledby=history]").get_by_role("link", name="bolt").click()
        eva.page.wait_for_url("**/shadow?recipe=bolt")
        assert eva.page.request.get(f"{shop.url}/models/{tiny_bundle.hash}/shadow?recipe=none").status == 404
        assert eva.complaints == []
