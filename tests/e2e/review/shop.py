"""A service with parts to review, and people in browsers: what the tests of the pages stand on."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
from axe_playwright_python.sync_playwright import Axe
from numpy.typing import NDArray
from playwright.sync_api import Browser, BrowserContext, Page

from models.anomaly import image_score
from models.bundle import Manifest
from models.engine import RawMap
from models.masks import hide, inspected_share
from service.access import passwords
from service.access.principal import SYSTEM, Scope
from service.db.repository import keys, users
from service.db.session import Database
from service.settings import Settings
from tests.service.conftest import manifest_values
from tests.service.live import live

PASSWORD = "a password of several words"
SIDE = 96
TOP = 40 / SIDE**2
REASONS = ["scratch", "dent", "stain"]
SERIOUS = ("serious", "critical")
SCREENS = ((1280, 800), (820, 1180))


def fits(page: Page) -> bool:
    """Whether nothing of a page lies beside the screen."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def fits_screens(page: Page) -> bool:
    """Whether it fits a desk's screen and a tablet's."""
    for width, height in SCREENS:
        page.set_viewport_size({"width": width, "height": height})
        if not fits(page):
            return False
    return True


def good_part() -> NDArray[np.float64]:
    """The part without grain and flaw, gray values `[SIDE, SIDE]`."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    return np.asarray(70 + 55 * np.exp(-(((np.hypot(x, y) - 0.32) / 0.05) ** 2)))


class SpotEngine:
    """A stand-in for the model that knows the good part: what differs from it is the anomaly map."""

    device = "cpu"
    model_hash = "e" * 64

    def __init__(self) -> None:
        values = manifest_values()
        values["preprocess"] = {"height": SIDE, "width": SIDE, "channels": 3}
        values["calibration"] = {
            name: {**each, "map_max": 12.0}
            for name, each in values["calibration"].items()  # type: ignore[attr-defined]
        }
        self.manifest = Manifest.model_validate(values)
        self.good = (good_part() / 127.5 - 1).astype(np.float32)

    def run(
        self,
        images: NDArray[np.float32],
        seeds: Sequence[int],
        profile: str,
        should_stop: Callable[[], bool] | None = None,
        ignore: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> list[RawMap]:
        found = []
        for image, mask in zip(images, ignore or [None] * len(images), strict=True):
            residual = np.abs(image.mean(axis=0) - self.good) * 127.5
            amap = (1.2 + cv2.GaussianBlur(residual, (0, 0), 1.5) / 12).astype(np.float32)
            amap = hide(amap, mask)
            score = image_score(amap, TOP * inspected_share(mask, (SIDE, SIDE)))
            found.append(RawMap(amap, np.repeat(self.good[None], image.shape[0], 0), score))
        return found


def picture(number: int, spot: float) -> bytes:
    """A gray part with a ring; `spot` 0 to 1: how bright its flaw is."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    at_x, at_y = rng.uniform(-0.2, 0.2, 2)
    flaw = np.exp(-(((x - at_x) / 0.05) ** 2 + ((y - at_y) / 0.03) ** 2))
    values = good_part() + 150 * spot * flaw + rng.normal(0, 3, (SIDE, SIDE))
    return cv2.imencode(".png", np.clip(values, 0, 255).astype(np.uint8))[1].tobytes()


@dataclass(frozen=True)
class Shop:
    url: str
    key: dict[str, str]
    database: Database

    def post(self, number: int, spot: float, **query: str) -> dict[str, object]:
        return self.send(picture(number, spot), serial=f"S{number:04}", **query)

    def send(self, image: bytes, **query: str) -> dict[str, object]:
        answer = httpx.post(
            f"{self.url}/v1/inspections",
            content=image,
            params={"recipe": "bolt", "line": "A", "station": "cam1", **query},
            headers={**self.key, "Content-Type": "image/png", "Prefer": "wait=60"},
            timeout=90,
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def fill(self, spots: Sequence[float], first: int = 0) -> list[dict[str, object]]:
        return [self.post(first + number, spot) for number, spot in enumerate(spots)]

    def get(self, path: str) -> dict[str, object]:
        answer = httpx.get(f"{self.url}{path}", headers=self.key, timeout=60)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@cache
def hashed() -> str:
    """Of the password of all."""
    return passwords.hashed(PASSWORD)


@contextmanager
def open_shop(folder: Path, bundles: Path | None = None, **options: object) -> Iterator[Shop]:
    """The service on a private database, with people `eva`, `max` (operators) and `ada` (admin).

    More models are registered from the folder `bundles`; `options` are settings: with a `bundle` the
    model that serves is a real one.
    """
    given: dict[str, Any] = {"bundles": bundles, "threads": 1, **options}
    settings = Settings(
        data=folder / "data",
        log_level="warning",
        decode_processes=0,
        rate_limit_per_s=0,
        signins_per_minute=0,
        shutdown_grace_s=5,
        **given,
    )
    settings.data.mkdir(parents=True)
    database = Database(settings.url)
    database.migrate()
    roles: tuple[tuple[str, Scope], ...] = (("eva", "operator"), ("max", "operator"), ("ada", "admin"))
    with database.write() as session:
        _, key = keys.create(session, SYSTEM, "shop", "admin")
        for name, role in roles:
            users.add(session, SYSTEM, name, role, hashed())
    try:
        with live(settings, None if "bundle" in given else SpotEngine()) as url:  # type: ignore[arg-type]
            header = {"Authorization": f"Bearer {key}"}
            sent = {"name": "bolt", "reasons": REASONS, "audit_rate": 0.0}
            httpx.post(f"{url}/v1/recipes", json=sent, headers=header, timeout=60).raise_for_status()
            yield Shop(url, header, database)
    finally:
        database.close()


class Person:
    """Somebody signed in, with everything their pages complained about."""

    def __init__(self, context: BrowserContext, shop: Shop, name: str) -> None:
        self.shop, self.name = shop, name
        self.page: Page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.complaints: list[str] = []
        self.page.on(
            "console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._note)
        self.go("/signin")
        self.page.locator("[name=name]").fill(name)
        self.page.locator("[name=password]").fill(PASSWORD)
        self.page.locator("main button").click()
        self.page.locator("details.menu").wait_for()

    def _note(self, request: object) -> None:
        url: str = request.url  # type: ignore[attr-defined]
        if not url.startswith((self.shop.url, "data:", "blob:")):
            self.complaints.append(f"asked for {url}")

    def go(self, path: str) -> None:
        self.page.goto(self.shop.url + path)

    def watch_shifts(self) -> None:
        """Sum up the layout shifts of pages from now on."""
        self.page.add_init_script(
            "window.shifts = 0; new PerformanceObserver(list => { for (const e of list.getEntries())"
            " if (!e.hadRecentInput) window.shifts += e.value; })"
            ".observe({type: 'layout-shift', buffered: true});"
        )

    @property
    def shifts(self) -> float:
        """Cumulative layout shift of the page, since `watch_shifts`."""
        return float(self.page.evaluate("window.shifts"))

    def fits(self) -> bool:
        """Whether nothing of the page lies beside the screen."""
        return fits(self.page)

    def barriers(self) -> list[str]:
        """What axe finds serious on the page."""
        found = Axe().run(self.page).response["violations"]
        return [
            json.dumps({"rule": each["id"], "at": [node["html"][:200] for node in each["nodes"][:3]]})
            for each in found
            if each["impact"] in SERIOUS
        ]


@contextmanager
def person(browser: Browser, shop: Shop, name: str = "eva", **options: object) -> Iterator[Person]:
    given = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **options}
    context = browser.new_context(**given)  # type: ignore[arg-type]
    try:
        yield Person(context, shop, name)
    finally:
        context.close()
