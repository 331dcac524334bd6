"""The pages of models in a browser: activating, rolling back, what stands against it, who may not."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from models.bundle import Bundle
from tests.e2e.review.shop import Person, Shop, fits_screens, open_shop, person

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)


@pytest.fixture
def bundles(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A folder with two real bundles that differ in their version alone."""
    folder = tmp_path / "bundles"
    for version in ("6", "7"):
        target = folder / "bolt" / version
        shutil.copytree(tiny_bundle.path, target)
        manifest = json.loads((target / "manifest.json").read_text())
        (target / "manifest.json").write_text(json.dumps({**manifest, "name": "bolt", "version": version}))
    return folder


@pytest.fixture
def shop(bundles: Path, tmp_path: Path) -> Iterator[Shop]:
    """It was started with a model of its own, `tiny 1`."""
    with open_shop(tmp_path, bundles) as shop:
        yield shop


@pytest.fixture
def ada(chromium: Browser, shop: Shop) -> Iterator[Person]:
    with person(chromium, shop, "ada") as ada:
        yield ada


def register(who: Person, path: str) -> str:
    """Through the form -> the address of the model's page."""
    who.go("/models")
    who.page.locator("[name=path]").fill(path)
    who.page.get_by_role("button", name="Register").click()
    who.page.wait_for_url("**/models/*?done=register")
    return who.page.url.removeprefix(who.shop.url).partition("?")[0]


def row(who: Person, recipe: str):  # type: ignore[no-untyped-def]
    heading = who.page.get_by_role("rowheader", name=recipe, exact=True)
    return who.page.locator("form tr").filter(has=heading)


def act(who: Person, recipe: str, button: str, why: str = "because") -> None:
    who.page.locator(".why [name=why]").fill(why)
    row(who, recipe).get_by_role("button", name=button).click()


def test_a_bundle_is_registered_activated_and_rolled_back(ada: Person, shop: Shop) -> None:
    page = ada.page
    register(ada, "bolt/6")
    expect(page.locator(".note.good")).to_contain_text("inspects nothing until")
    expect(page.locator("h1")).to_contain_text("bolt 6")
    act(ada, "bolt", "Shadow", "compare for a day")
    expect(page.locator(".note.good")).to_have_text("bolt 6 now shadows bolt.")
    act(ada, "bolt", "Activate", "fewer false alarms")
    expect(page.locator(".note.good")).to_have_text("bolt is now inspected by bolt 6.")
    expect(row(ada, "bolt").locator("td").first).to_have_text("this model")
    expect(row(ada, "default").locator("td").first).to_have_text("tiny 1")
    assert shop.get("/v1/recipes/bolt")["model_hash"] is not None
    act(ada, "bolt", "Roll back to tiny 1", "more escapes")
    expect(page.locator(".note.good")).to_contain_text("bolt is now inspected by tiny 1.")
    history = page.locator("[aria-labelledby=history] tbody tr")
    expect(history).to_have_count(4)
    expect(history.nth(0)).to_contain_text("replaced by tiny 1")
    expect(history.nth(0)).to_contain_text("more escapes")
    expect(history.nth(1)).to_contain_text("activated in place of tiny 1")
    expect(history.nth(1)).to_contain_text("fewer false alarms")
    expect(page.locator("h1")).to_contain_text("retired")
    page.locator(".why [name=why]").fill("after all")
    page.get_by_role("button", name="Activate for all recipes").click()
    expect(page.locator(".note.good")).to_have_text("bolt 6 now inspects bolt, default.")
    ada.go("/models")
    expect(page.locator("tr", has_text="tiny 1")).to_contain_text("active")  # of recipes that name no other
    assert ada.complaints == []


def test_one_key_rolls_back_and_one_takes_it_back(ada: Person, shop: Shop) -> None:
    page = ada.page
    register(ada, "bolt/6")
    act(ada, "bolt", "Activate")
    expect(page.locator(".note.good")).to_have_text("bolt is now inspected by bolt 6.")
    active = shop.get("/v1/recipes/bolt")["model_hash"]
    page.locator(".why [name=why]").press("b")  # whoever writes a reason goes nowhere
    expect(page.locator(".why [name=why]")).to_have_value("b")
    page.locator(".why [name=why]").fill("")
    page.locator("h1").click()
    page.wait_for_load_state()
    page.keyboard.press("b")
    expect(page.locator(".note.good")).to_contain_text("bolt is now inspected by tiny 1.")
    assert shop.get("/v1/recipes/bolt")["model_hash"] != active
    newest = page.locator("[aria-labelledby=history] tbody tr").first
    expect(newest).to_contain_text("rolled back by key")
    page.wait_for_load_state()
    page.keyboard.press("b")  # nothing is left to go back from
    page.keyboard.press("u")
    expect(page.locator(".note.good")).to_have_text("bolt is now inspected by bolt 6.")
    expect(newest).to_contain_text("rollback taken back")
    assert shop.get("/v1/recipes/bolt")["model_hash"] == active
    assert ada.complaints == []


def test_of_several_recipes_the_key_asks_which(ada: Person) -> None:
    page = ada.page
    register(ada, "bolt/6")
    page.locator(".why [name=why]").fill("better")
    page.get_by_role("button", name="Activate for all recipes").click()
    back = {name: row(ada, name).get_by_role("button", name="Roll back") for name in ("bolt", "default")}
    expect(back["default"]).to_be_visible()
    page.wait_for_load_state()  # scripts, too
    page.keyboard.down("b")
    page.keyboard.down("b")  # held down
    page.keyboard.up("b")
    expect(back["bolt"]).to_be_focused()
    back["default"].focus()
    page.keyboard.press("b")
    expect(page.locator(".note.good")).to_contain_text("default is now inspected by tiny 1.")
    page.wait_for_load_state()
    page.keyboard.press("?")
    expect(page.locator("dialog")).to_contain_text("Roll back to the model before")
    assert ada.barriers() == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".note.good")).to_contain_text("default is now inspected by bolt 6.")
    assert ada.complaints == []


def test_a_candidate_shadows_stops_and_is_retired(ada: Person) -> None:
    page = ada.page
    register(ada, "bolt/6")
    act(ada, "bolt", "Shadow")
    assert page.get_by_role("button", name="Retire").count() == 0
    act(ada, "bolt", "End shadow")
    expect(page.locator(".note.good")).to_have_text("bolt 6 no longer shadows bolt.")
    page.locator(".why [name=why]").fill("done with it")
    page.get_by_role("button", name="Retire").click()
    expect(page.locator(".note.good")).to_contain_text("bolt 6 is retired")
    assert ada.complaints == []


def test_a_reason_is_needed_and_enter_decides_nothing(ada: Person) -> None:
    register(ada, "bolt/6")
    row(ada, "bolt").get_by_role("button", name="Activate").click()
    expect(ada.page.locator(".why [name=why]")).to_be_focused()  # the browser asks for it
    ada.page.locator(".why [name=why]").fill("why not")
    ada.page.keyboard.press("Enter")
    expect(row(ada, "bolt").get_by_role("button", name="Activate")).to_be_visible()
    assert ada.page.url.endswith("?done=register")


def test_what_stands_against_it_is_said_in_place(ada: Person, shop: Shop, bundles: Path) -> None:
    page = ada.page
    at = register(ada, "bolt/6")
    act(ada, "bolt", "Activate")
    expect(page.locator(".note.good")).to_be_visible()
    back = {"recipe": "bolt", "why": "somebody was faster"}
    httpx.post(f"{shop.url}/v1/models/rollback", json=back, headers=shop.key).raise_for_status()
    act(ada, "bolt", "Roll back", "too late")
    expect(page.locator(".note.bad")).to_contain_text("bolt is inspected by tiny 1 by now")
    expect(page.locator(".why [name=why]")).to_have_value("too late")  # nothing typed is lost
    other = register(ada, "bolt/7")
    (bundles / "bolt/7/model.onnx").write_bytes(b"damaged")
    act(ada, "bolt", "Activate")
    expect(page.locator(".note.bad")).to_contain_text("does not match its sha256")
    expect(row(ada, "bolt").locator("td").first).to_have_text("tiny 1")  # it goes on
    ada.go("/models")
    page.locator("[name=path]").fill("../elsewhere")
    page.get_by_role("button", name="Register").click()
    expect(page.locator(".note.bad")).to_contain_text("below the folder of bundles")
    expect(page.locator("[name=path]")).to_have_value("../elsewhere")
    answers = [each for each in ada.complaints if "status of 4" not in each]  # the browser notes 409 and 422
    assert (answers, other != at) == ([], True)


def test_an_operator_looks_and_changes_nothing(chromium: Browser, shop: Shop) -> None:
    with person(chromium, shop, "ada") as ada:
        at = register(ada, "bolt/6")
    with person(chromium, shop, "eva") as eva:
        eva.go("/models")
        expect(eva.page.locator("table.models tbody tr")).to_have_count(2)
        assert eva.page.locator("[name=path]").count() == 0
        eva.go(at)
        expect(eva.page.locator("h1")).to_contain_text("bolt 6")
        assert eva.page.locator("main button").count() == 0
        token = eva.page.locator("meta[name=csrf-token]").get_attribute("content")
        form = {"csrf": str(token), "recipe": "bolt", "why": "by hand"}
        answer = eva.page.request.post(f"{shop.url}{at}/activate", form=form)
        assert answer.status == 403
        assert shop.get("/v1/recipes/bolt")["model_hash"] is None


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_barriers_and_the_report_in_its_frame(chromium: Browser, shop: Shop, theme: str) -> None:
    with person(chromium, shop, "ada", color_scheme=theme) as ada:
        at = register(ada, "bolt/6")
        assert ada.barriers() == []
        ada.page.get_by_text("Training report").click()
        frame = ada.page.frame_locator("iframe.report")
        expect(frame.locator("h1")).to_have_text("Training report")
        ada.page.get_by_text("Resolved training recipe").click()
        assert ada.barriers() == []
        for path in ("/models", at):
            ada.go(path)
            assert ada.barriers() == []
            assert fits_screens(ada.page)
        assert ada.complaints == []


def test_the_list_filters_and_says_when_nothing_matches(chromium: Browser, shop: Shop) -> None:
    with person(chromium, shop, "ada", java_script_enabled=False) as ada:  # nothing here needs scripts
        register(ada, "bolt/6")
        act(ada, "bolt", "Activate")
        ada.go("/models?state=active")
        expect(ada.page.locator("table.models tbody tr")).to_have_count(2)
        ada.go("/models?name=nothing")
        expect(ada.page.locator(".empty h2")).to_be_visible()
        assert ada.page.request.get(f"{shop.url}/models?state=nonsense").status == 422
