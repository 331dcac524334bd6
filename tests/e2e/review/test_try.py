"""Trying an image in a browser: dropped, judged, its film under the keys, and nothing left behind."""

import base64
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from playwright.sync_api import Browser, expect

from models.bundle import Bundle
from tests.conftest import part
from tests.e2e.review.shop import Person, Shop, open_shop, person

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)
FRAMES = {"paper": 8 + 6 + 1, "fast": 2 + 1}  # noising, denoising, the reconstruction
WIDTH_OF = """href => new Promise(done => {
  const picture = new Image();
  picture.onload = () => done(picture.naturalWidth);
  picture.src = href;
})"""


@pytest.fixture(scope="module")
def trial_shop(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Bundle) -> Iterator[Shop]:
    with open_shop(tmp_path_factory.mktemp("try"), bundle=tiny_bundle.path) as shop:
        yield shop


@pytest.fixture
def eva(chromium: Browser, trial_shop: Shop) -> Iterator[Person]:
    with person(chromium, trial_shop, reduced_motion="reduce") as eva:
        eva.go("/try")
        yield eva


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "part.png"
    path.write_bytes(cv2.imencode(".png", part(77, 60))[1].tobytes())
    return path


def choose(who: Person, photo: Path) -> None:
    who.page.locator("#file").set_input_files(photo)


def judged(who: Person, profile: str) -> None:
    expect(who.page.locator("#verdict")).to_be_visible()
    expect(who.page.locator("#scrub")).to_have_attribute("max", str(FRAMES[profile] - 1))
    expect(who.page.locator("#zoom")).to_contain_text("%")


def drop(who: Person, photo: Path) -> None:
    """What the browser does when a file falls on the page."""
    data = base64.b64encode(photo.read_bytes()).decode()
    who.page.evaluate(
        """([data, name]) => {
          const bytes = Uint8Array.from(atob(data), char => char.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], name, { type: "image/png" }));
          const target = document.getElementById("invite");
          const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
          for (const type of ["dragover", "drop"]) target.dispatchEvent(new DragEvent(type, options));
        }""",
        [data, photo.name],
    )


def test_a_dropped_image_is_judged_and_filmed_and_leaves_nothing(eva: Person, photo: Path) -> None:
    drop(eva, photo)
    judged(eva, "fast")
    assert eva.page.locator("#verdict").inner_text() in ("PASS", "REVIEW", "REJECT")
    assert float(eva.page.locator(".chart .score").inner_text()) < 1000
    for name in ("image", "overlay", "reconstruction", "difference"):
        href = eva.page.locator(f'[data-picture="{name}"]').get_attribute("href")
        assert href is not None
        assert href.startswith("blob:")
        assert int(eva.page.evaluate(WIDTH_OF, href)) > 1
    expect(eva.page.locator("#side dl")).to_contain_text("Inference")
    expect(eva.page.locator("#phase")).to_contain_text("reconstruction")
    assert eva.barriers() == []
    assert eva.fits()
    assert eva.shop.get("/v1/inspections")["items"] == []
    assert eva.complaints == []


def test_the_film_goes_by_keys_and_scrubber_from_the_image_to_the_reconstruction(
    eva: Person, photo: Path
) -> None:
    page = eva.page
    page.locator("#profile").select_option("paper")
    choose(eva, photo)
    judged(eva, "paper")
    scrub, phase, timestep = page.locator("#scrub"), page.locator("#phase"), page.locator("[data-t]")
    scrub.focus()
    page.keyboard.press("Home")
    expect(timestep).to_have_text("t = 0")
    expect(phase).to_contain_text("Noise is added")
    expect(page.locator(".idle")).to_be_visible()
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    expect(timestep).to_have_text("t = 100")
    page.keyboard.press("ArrowRight")
    expect(phase).to_contain_text("Step 1 of 6")
    expect(page.locator(".idle")).to_be_hidden()
    page.locator("h1").click()  # the keys work without the scrubber, too
    page.keyboard.press("ArrowLeft")
    expect(phase).to_contain_text("Noise is added")
    scrub.focus()
    page.keyboard.press("End")
    expect(phase).to_contain_text("reconstruction")
    # The left canvas of the last frame holds the pixels of the reconstruction itself.
    same = page.evaluate(
        """async () => {
          const pixels = (picture, width, height) => {
            const canvas = new OffscreenCanvas(width, height);
            canvas.getContext("2d").drawImage(picture, 0, 0);
            return canvas.getContext("2d").getImageData(0, 0, width, height).data;
          };
          const shown = document.querySelector('[data-screen="clean"]');
          const whole = new Image();
          whole.src = document.querySelector('[data-picture="reconstruction"]').getAttribute("href");
          await whole.decode();
          const [one, other] = [shown, whole].map(each => pixels(each, shown.width, shown.height));
          return shown.width === whole.naturalWidth && one.every((value, at) => value === other[at]);
        }"""
    )
    assert same
    page.keyboard.press(" ")  # plays from the beginning to the end
    expect(page.locator('[data-do="play"]')).to_have_attribute("aria-pressed", "true")
    page.keyboard.press(" ")
    expect(page.locator('[data-do="play"]')).to_have_attribute("aria-pressed", "false")
    assert eva.complaints == []


def test_another_profile_is_tried_at_once_and_the_heatmap_goes_away(eva: Person, photo: Path) -> None:
    page = eva.page
    choose(eva, photo)
    judged(eva, "fast")
    page.locator("#profile").select_option("paper")
    judged(eva, "paper")
    expect(page.locator("#side dl")).to_contain_text("paper")
    page.locator("h1").click()
    page.keyboard.press("h")
    expect(page.locator("image.heat")).to_have_attribute("opacity", "0")
    page.keyboard.press("h")
    page.locator("#opacity").focus()
    before = page.locator("#scrub").input_value()
    page.keyboard.press("ArrowRight")
    expect(page.locator("image.heat")).to_have_attribute("opacity", "0.65")
    assert page.locator("#scrub").input_value() == before


def test_what_is_no_image_is_said_in_place(eva: Person, tmp_path: Path, photo: Path) -> None:
    wrong = tmp_path / "holiday.jpg"
    wrong.write_text("certainly no picture")
    choose(eva, wrong)
    expect(eva.page.locator("#problem")).to_contain_text("send a PNG, JPEG, BMP, TIFF or WebP image")
    expect(eva.page.locator("#invite")).to_be_visible()
    assert eva.barriers() == []
    choose(eva, photo)
    judged(eva, "fast")
    expect(eva.page.locator("#problem")).to_be_hidden()


def test_it_can_be_posted_as_a_real_inspection(eva: Person, photo: Path) -> None:
    choose(eva, photo)
    judged(eva, "fast")
    verdict = eva.page.locator("#verdict").inner_text()
    eva.page.locator('[data-do="post"]').click()
    eva.page.wait_for_url("**/inspections/*")
    expect(eva.page.locator("h1 .badge")).to_have_text(verdict)


@pytest.mark.parametrize(("theme", "size"), [("dark", (1280, 800)), ("light", (820, 1180))])
def test_it_has_no_barriers_before_and_after(
    chromium: Browser, trial_shop: Shop, photo: Path, theme: str, size: tuple[int, int]
) -> None:
    window = {"width": size[0], "height": size[1]}
    with person(chromium, trial_shop, color_scheme=theme, viewport=window, locale="de-DE") as eva:
        eva.go("/try")
        assert eva.barriers() == []
        choose(eva, photo)
        judged(eva, "fast")
        assert eva.barriers() == []
        assert eva.fits()
        assert eva.complaints == []
