"""The pictures of docs/images: `python -m tests.e2e.review.pictures [NAME ...]`."""

import argparse
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from playwright.sync_api import Page, sync_playwright
from sqlalchemy import insert, select

from service.db.tables import InspectionRow
from service.ids import first_id_at
from tests.e2e.review.conftest import ARGUMENTS, CHROMIUM
from tests.e2e.review.shop import Shop, open_shop, person

FOLDER = Path(__file__).parents[3] / "docs/images"
PARTS = 240


def a_day(shop: Shop) -> None:
    """A day of the line: one part in eight is flawed, most of what was stopped is reviewed, so are audits."""
    recipe = shop.get("/v1/recipes/bolt")
    sent = {"audit_rate": 0.25, "revision": recipe["revision"]}
    httpx.patch(f"{shop.url}/v1/recipes/bolt", json=sent, headers=shop.key).raise_for_status()
    rng = np.random.default_rng(3)
    for number in range(PARTS):
        bad = rng.random() < 1 / 8
        spot = rng.uniform(0.3, 1.0) if bad else np.clip(rng.gamma(2.0, 0.07), 0, 0.62)
        item = shop.post(number, float(spot))
        if item["review"]["audit"] or (item["verdict"] != "PASS" and rng.random() < 0.8):  # type: ignore[index]
            said = {"decision": "defective" if bad else "good", "expected_revision": 0}
            address = f"{shop.url}/v1/inspections/{item['id']}/reviews"
            httpx.post(address, json=said, headers=shop.key).raise_for_status()
    for version, review, reject, why in (
        (1, 2.8, 5.2, "fewer parts to people since the new lighting"),
        (2, 3.1, 5.0, "lot 17: scratches passed"),
    ):
        wanted = {"review": review, "reject": reject, "why": why, "based_on": version}
        address = f"{shop.url}/v1/recipes/bolt/thresholds"
        httpx.post(address, json=wanted, headers=shop.key).raise_for_status()


def an_hour(shop: Shop) -> None:
    """What was inspected, once more and spread over the last hour, on lines A and B; B has a bad moment."""
    now = datetime.now(UTC)
    with shop.database.write() as session:
        rows = session.scalars(select(InspectionRow).where(InspectionRow.line == "A")).all()
        columns = [column.key for column in InspectionRow.__table__.columns]
        stopped = [row for row in rows if row.verdict == "REJECT"]
        copies = []
        for line, count in (("A", 3 * PARTS), ("B", 2 * PARTS)):
            for number in range(count):
                row = rows[(7 * number) % len(rows)]
                if line == "B" and 0.55 < number / count < 0.62 and number % 4 == 0:
                    row = stopped[number % len(stopped)]
                at = now - timedelta(seconds=3590 * (1 - number / count))
                own = {"id": first_id_at(at)[:-4] + f"{ord(line):02x}{number % 256:02x}", "created_at": at}
                own |= {"line": line, "station": f"cam{number % (2 if line == 'A' else 1) + 1}"}
                copies.append({**{name: getattr(row, name) for name in columns}, **own})
        session.execute(insert(InspectionRow), copies)


def overview(page: Page, shop: Shop) -> None:
    page.goto(f"{shop.url}/")
    page.get_by_text("live", exact=True).wait_for()


def thresholds(page: Page, shop: Shop) -> None:
    page.goto(f"{shop.url}/thresholds?review=2.3&reject=4.6")
    page.locator("#strip .card").first.wait_for()


def masks(page: Page, shop: Shop) -> None:
    page.goto(f"{shop.url}/masks")
    page.locator('[data-do="brush"]:enabled').wait_for()
    box = page.locator("#stage").bounding_box()
    assert box is not None

    def at(x: float, y: float) -> tuple[float, float]:
        side = min(box["width"], box["height"])  # type: ignore[index]
        return box["x"] + box["width"] / 2 + x * side, box["y"] + box["height"] / 2 + y * side  # type: ignore[index]

    page.keyboard.press("p")
    for corner in ((-0.48, -0.48), (-0.2, -0.48), (-0.3, -0.3), (-0.48, -0.2)):
        page.mouse.click(*at(*corner))
    page.keyboard.press("Enter")
    page.keyboard.press("b")
    for _ in range(4):
        page.keyboard.press(".")
    page.mouse.move(*at(-0.12, -0.05))
    page.mouse.down()
    page.mouse.move(*at(0.05, -0.1), steps=5)
    page.mouse.move(*at(0.12, 0.06), steps=5)
    page.mouse.up()
    page.locator("#effect-text", has_text="of the newest").wait_for()


def admin(page: Page, shop: Shop) -> None:
    """Keys of a small plant, most of them in use; made once for both themes."""
    known = {str(each["name"]) for each in httpx.get(f"{shop.url}/v1/keys", headers=shop.key).json()}
    plant = {
        "cam1": "camera",
        "cam2": "camera",
        "plc-gateway": "camera",
        "prometheus": "camera",
        "mes": "operator",
    }
    for name, scope in plant.items():
        if name not in known:
            made = httpx.post(f"{shop.url}/v1/keys", json={"name": name, "scope": scope}, headers=shop.key)
            if name != "mes":
                httpx.get(f"{shop.url}/v1/session", headers={"X-API-Key": made.json()["key"]})
    page.goto(f"{shop.url}/admin/keys")
    page.locator("tr", has_text="cam2").locator("details.confirm summary", has_text="Rotate").click()


def trial(page: Page, shop: Shop, image: Path) -> None:
    """A chain on its way back, nine frames before the end."""
    page.emulate_media(reduced_motion="reduce")
    page.goto(f"{shop.url}/try")
    page.locator("#profile").select_option("paper")
    page.locator("#file").set_input_files(image)
    page.locator("#verdict").wait_for()
    for _ in range(9):
        page.keyboard.press("ArrowLeft")


def a_shift(shop: Shop, parts: Path) -> None:
    """Test images in the MVTec-AD layout through the line, in an order of chance; every third is reviewed."""
    recipe = shop.get("/v1/recipes/bolt")
    sent = {"audit_rate": 0.2, "revision": recipe["revision"]}
    httpx.patch(f"{shop.url}/v1/recipes/bolt", json=sent, headers=shop.key).raise_for_status()
    wanted = {"review": 1.0, "reject": 3.5, "why": "few parts to people", "based_on": 0}
    address = f"{shop.url}/v1/recipes/bolt/thresholds"
    httpx.post(address, json=wanted, headers=shop.key).raise_for_status()
    images = sorted([*parts.glob("test/*/*.png"), *parts.glob("train/**/*.png")])
    images = [images[at] for at in np.random.default_rng(1).permutation(len(images))]
    for number, image in enumerate(images):
        item = shop.send(image.read_bytes(), serial=f"A-{4100 + number}", lot="L17")
        if number % 3 == 0 and image.parent.parent.name == "test":
            said = {
                "decision": "good" if image.parent.name == "good" else "defective",
                "expected_revision": 0,
            }
            address = f"{shop.url}/v1/inspections/{item['id']}/reviews"
            httpx.post(address, json=said, headers=shop.key).raise_for_status()


def review(page: Page, shop: Shop) -> None:
    page.goto(f"{shop.url}/review")


def inspection(page: Page, shop: Shop) -> None:
    """What is surest to be flawed and nobody has looked at."""
    items: list[Any] = shop.get("/v1/inspections?review_state=none&limit=500")["items"]  # type: ignore[assignment]
    worst = max(items, key=lambda item: item["score"]["calibrated"])
    page.goto(f"{shop.url}/inspections/{worst['id']}")
    page.locator("#zoom", has_text="%").wait_for()


def signin(page: Page, shop: Shop) -> None:
    page.context.clear_cookies()
    page.goto(f"{shop.url}/signin")


REAL: dict[str, Callable[[Page, Shop], None]] = {"review": review, "inspection": inspection, "signin": signin}
"""Those with a real model and parts."""
SCENES: dict[str, Callable[[Page, Shop], None]] = {
    "thresholds": thresholds,
    "masks": masks,
    "overview": overview,
    "admin": admin,
}


def take(shop: Shop, name: str, scene: Callable[[Page, Shop], None]) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for theme in ("light", "dark"):
            with person(browser, shop, "ada", color_scheme=theme) as ada:
                scene(ada.page, shop)
                ada.page.wait_for_load_state("networkidle")
                ada.page.screenshot(path=FOLDER / f"page-{name}-{theme}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", help=f"{', '.join(SCENES)} [all]; try, {', '.join(REAL)} need options"
    )
    parser.add_argument("--bundle", type=Path, help="real model of those that need one")
    parser.add_argument("--image", type=Path, help="image of `try`")
    parser.add_argument("--parts", type=Path, help="folder with test/good and test/TYPE of the others")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if "try" in options.names:
            with open_shop(Path(folder) / "try", bundle=options.bundle) as shop:
                take(shop, "try", partial(trial, image=options.image))
        if real := [name for name in options.names if name in REAL]:
            with open_shop(Path(folder) / "real", bundle=options.bundle) as shop:
                a_shift(shop, options.parts)
                for name in real:
                    take(shop, name, REAL[name])
        if names := [name for name in options.names or SCENES if name in SCENES]:
            with open_shop(Path(folder)) as shop:
                if names != ["admin"]:
                    a_day(shop)
                for name in names:
                    if name == "overview":
                        an_hour(shop)
                    take(shop, name, SCENES[name])


if __name__ == "__main__":
    main()
