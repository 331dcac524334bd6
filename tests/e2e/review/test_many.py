"""Ten thousand inspections wait: the queue and the way through it stay quick."""

import statistics

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import insert, select

from service.db.tables import InspectionRow
from service.ids import new_id
from tests.e2e.review.shop import Shop, person

pytestmark = pytest.mark.browser
MANY = 10_000
STEPS = 12
GENEROUS_MS = 5000  # the aim is 100 ms, see docs/benchmarks.md; this says that nothing grows with the queue
expect.set_options(timeout=60_000)

# From the key to the frame in which the next image is painted: two frames after the swap, it has been.
KEY_TO_PAINT = """
() => new Promise(done => {
  const began = performance.now();
  const seen = new PerformanceObserver(() => {
    seen.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - began), 0));
  });
  seen.observe({ type: "mark" });
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "g", bubbles: true, cancelable: true }));
})
"""


def multiply(shop: Shop, identifier: str) -> None:
    """Copies of an inspection, each a little farther from the limit."""
    with shop.database.write() as session:
        row = session.scalars(select(InspectionRow).where(InspectionRow.id == identifier)).one()
        columns = {column.key: getattr(row, column.key) for column in InspectionRow.__table__.columns}
        copies = [
            {**columns, "id": new_id(), "margin": 0.0001 * number, "serial": f"M{number}"}
            for number in range(MANY)
        ]
        session.execute(insert(InspectionRow), copies)


def measured_ms(chromium: Browser, shop: Shop) -> list[float]:
    """Key to next image painted, for some decisions in a row."""
    multiply(shop, str(shop.post(1, 0.6)["id"]))
    with person(chromium, shop) as eva:
        eva.go("/review")
        expect(eva.page.locator("h1")).to_contain_text("10001")
        eva.page.locator("#start").click()
        found = []
        for _ in range(STEPS):
            expect(eva.page.locator("#zoom")).to_contain_text("%")
            expect(eva.page.locator("#desk")).to_have_attribute("data-ready", "next")
            found.append(float(eva.page.evaluate(KEY_TO_PAINT)))
        expect(eva.page.locator("#unsent")).to_be_hidden()
        assert eva.complaints == []
    return found


def test_ten_thousand_wait(chromium: Browser, shop: Shop) -> None:
    spent = measured_ms(chromium, shop)
    print(f"key to next image painted, ms: median {statistics.median(spent):.1f}, max {max(spent):.1f}")
    assert statistics.median(spent) < GENEROUS_MS
