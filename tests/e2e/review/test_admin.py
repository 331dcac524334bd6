"""The administration in a browser: keys, people, webhooks, recipes, and the log that tells of all of it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.e2e.review.shop import PASSWORD, Person, Shop, open_shop, person
from tests.service.receiver import Receiver

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)
SECTIONS = ("recipes", "keys", "users", "webhooks", "audit")


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A service that may tell receivers on this machine, and gives up soon."""
    options = {"sink_allow": "127.0.0.0/8", "sink_attempts": 1}
    with open_shop(tmp_path_factory.mktemp("admin"), **options) as shop:
        yield shop


@pytest.fixture
def ada(chromium: Browser, works: Shop) -> Iterator[Person]:
    with person(chromium, works, "ada") as ada:
        yield ada


def create(who: Person, section: str, **fields: str) -> None:
    """Fill in the form that makes something, and send it."""
    who.go(f"/admin/{section}")
    panel = who.page.locator("details.create")
    if panel.get_attribute("open") is None:
        panel.locator("summary").click()
    for name, value in fields.items():
        field = panel.locator(f"[name={name}]")
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
    panel.locator("button.primary").click()


def row(who: Person, name: str) -> Locator:
    return who.page.locator("tr", has=who.page.locator(f"td b:text-is('{name}')"))


def confirm(place: Locator, title: str) -> None:
    """Open a confirmation and go through with it."""
    step = place.locator("details.confirm").filter(has_text=title)
    expect(step.locator("form button")).to_be_hidden()
    step.locator("summary").click()
    step.locator("form button").click()


def inspections(shop: Shop, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.get(f"{shop.url}/v1/inspections", headers=headers, timeout=60).status_code


def secret(who: Person) -> str:
    expect(who.page.locator("#secret")).to_be_visible()
    return who.page.locator("#secret").input_value()


def test_a_key_is_made_used_rotated_and_revoked(ada: Person, works: Shop) -> None:
    create(ada, "keys", name="cam7", scope="camera", days="30")
    first = secret(ada)
    assert inspections(works, first) == 200
    assert ada.barriers() == []
    ada.go("/admin/keys")
    expect(ada.page.locator("#secret")).to_have_count(0)  # never again
    assert first not in ada.page.content()
    create(ada, "keys", name="cam7", scope="operator")  # a name has one
    expect(ada.page.locator(".create .wrong")).to_contain_text("cam7 has a valid key")
    expect(ada.page.locator(".create [name=name]")).to_have_value("cam7")
    expect(ada.page.locator(".create [name=scope]")).to_have_value("operator")
    ada.complaints.clear()  # the browser notes that the answer was 409
    ada.go("/admin/keys")
    confirm(row(ada, "cam7"), "Rotate")
    second = secret(ada)
    assert second != first
    assert (inspections(works, first), inspections(works, second)) == (200, 200)
    expect(row(ada, "cam7")).to_have_count(2)
    confirm(row(ada, "cam7").first, "Revoke")
    expect(ada.page.locator(".note.good")).to_contain_text("Revoked")
    assert sorted([inspections(works, first), inspections(works, second)]) == [200, 401]
    assert ada.complaints == []


def test_somebody_who_was_added_signs_in_and_somebody_disabled_does_not(
    chromium: Browser, ada: Person, works: Shop
) -> None:
    create(ada, "users", name="Tom", role="operator", password="too short")
    # The browser itself says that it is too short; without it the service does.
    ada.page.locator(".create form").evaluate("form => { form.noValidate = true; form.requestSubmit(); }")
    expect(ada.page.locator(".create .wrong")).to_contain_text("at least 12 characters")
    expect(ada.page.locator(".create [name=name]")).to_have_value("Tom")
    ada.complaints.clear()
    create(ada, "users", name="Tom", role="operator", password=PASSWORD)
    expect(ada.page.locator(".note.good")).to_contain_text("can sign in now")
    with person(chromium, works, "tom") as tom:
        tom.go("/review")
        expect(tom.page.locator("h1")).to_contain_text("Review")
    confirm(row(ada, "tom"), "Role")  # the one it has already
    expect(ada.page.locator(".note.good")).to_contain_text("Saved")
    confirm(row(ada, "tom"), "Disable")
    expect(row(ada, "tom")).to_contain_text("disabled")
    said = {"name": "tom", "password": PASSWORD}
    assert httpx.post(f"{works.url}/v1/session", json=said, timeout=60).status_code == 401
    row(ada, "tom").get_by_text("Enable").click()
    expect(row(ada, "tom")).to_contain_text("active")
    assert httpx.post(f"{works.url}/v1/session", json=said, timeout=60).status_code == 201
    # Nobody can lock themselves out.
    expect(row(ada, "ada").locator("details.confirm")).to_have_count(1)
    assert ada.complaints == []


def test_a_webhook_is_made_tested_and_looked_after(ada: Person, works: Shop, receiver: Receiver) -> None:
    create(ada, "webhooks", name="erp", kind="webhook", url="http://10.1.2.3/no", recipe="bolt")
    expect(ada.page.locator(".create .wrong")).to_contain_text("not allowed")
    expect(ada.page.locator(".create [name=recipe]")).to_have_value("bolt")
    ada.complaints.clear()
    ada.page.locator(".create [name=url]").fill(receiver.url)
    ada.page.locator(".create button.primary").click()
    assert secret(ada).startswith("whsec_")
    address = ada.page.locator("#sink ~ div form").first.get_attribute("action")
    assert address is not None
    page, path = ada.page, address.removesuffix("/test")
    page.get_by_role("button", name="Send a test").click()
    expect(page.locator("#tested")).to_contain_text("arrived")
    assert len(receiver.received) == 1
    works.post(1, 0.0)
    delivered = page.locator("tr", has_text="Delivered")
    for _ in range(60):
        ada.go(path)
        if delivered.count():
            break
        page.wait_for_timeout(250)
    expect(delivered).to_have_count(1)
    receiver.status = 500  # the next one is given up at once
    works.post(2, 0.0)
    for _ in range(60):
        ada.go(f"{path}?status=dead")
        if page.locator("tbody tr").count():
            break
        page.wait_for_timeout(250)
    expect(page.locator("tbody tr")).to_contain_text("Given up")
    assert ada.barriers() == []
    receiver.status = 204
    page.locator("tbody").get_by_text("Send again").click()
    expect(page.locator(".note.good")).to_contain_text("Queued")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#sink")).to_contain_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#sink")).to_contain_text("active")
    confirm(page.locator("main"), "Delete")
    expect(page.locator(".empty")).to_contain_text("Nobody is told")
    assert ada.complaints == []


def test_a_recipe_is_made_changed_and_archived(ada: Person, works: Shop) -> None:
    create(ada, "recipes", name="nut", product="4711", audit_rate="2.5", reasons="crack\nburr")
    made = works.get("/v1/recipes/nut")
    assert (made["product"], made["audit_rate"], made["reasons"]) == ("4711", 0.025, ["crack", "burr"])
    page = ada.page
    form = page.locator('form:has([name="revision"])')
    form.locator("[name=retention_days]").fill("soon")
    form.locator("[name=attributes_schema]").fill("{")
    form.locator("button.primary").click()
    expect(form.locator(".wrong")).to_contain_text("no JSON")
    expect(form.locator("[name=retention_days]")).to_have_value("soon")
    form.locator("[name=attributes_schema]").fill("")
    form.locator("button.primary").click()
    expect(form.locator(".wrong")).to_contain_text("valid integer")
    # Somebody else changes it meanwhile: nothing typed is lost, and nothing of theirs is overwritten unseen.
    changed = {"revision": made["revision"], "product": "4712"}
    httpx.patch(f"{works.url}/v1/recipes/nut", json=changed, headers=works.key, timeout=60).raise_for_status()
    form.locator("[name=retention_days]").fill("90")
    form.locator("button.primary").click()
    expect(form.locator(".note.bad")).to_contain_text("somebody changed it")
    expect(form.locator("[name=retention_days]")).to_have_value("90")
    ada.complaints.clear()
    form.locator("button.primary").click()
    expect(page.locator(".note.good")).to_contain_text("Saved")
    assert works.get("/v1/recipes/nut")["retention_days"] == 90
    confirm(page.locator("main"), "Archive")
    expect(page.locator("#recipe")).to_contain_text("archived")
    page.get_by_role("button", name="Restore").click()
    expect(page.locator("#recipe")).not_to_contain_text("archived")
    assert ada.complaints == []


def test_the_log_tells_what_was_done_and_by_whom(ada: Person) -> None:
    create(ada, "keys", name="cam8", scope="camera")
    secret(ada)
    ada.go("/admin/audit?who=ada&action=keys.create&target=key/cam8")
    rows = ada.page.locator("tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("camera")
    ada.page.locator(".filters [name=action]").fill("keys.revoke")
    ada.page.locator(".filters button").click()
    expect(ada.page.locator(".empty")).to_contain_text("Nothing matches")
    assert ada.complaints == []


def test_pages_of_the_log_follow_each_other(ada: Person) -> None:
    ada.go("/admin/audit?limit=1")
    first = ada.page.locator("tbody tr").inner_text()
    ada.page.locator("[rel=next]").click()
    ada.page.wait_for_url("**cursor=**")
    expect(ada.page.locator("tbody tr")).to_have_count(1)
    assert ada.page.locator("tbody tr").inner_text() != first


def test_operators_have_no_administration(chromium: Browser, works: Shop) -> None:
    with person(chromium, works, "eva") as eva:
        eva.go("/")
        expect(eva.page.locator("nav a[href='/admin']")).to_have_count(0)
        for section in ("", *(f"/{name}" for name in SECTIONS)):
            answer = eva.page.request.get(f"{works.url}/admin{section}")
            assert answer.status == 403, section
        csrf = eva.page.locator('meta[name="csrf-token"]').get_attribute("content") or ""
        sent = {"csrf": csrf, "name": "mine", "scope": "admin"}
        assert eva.page.request.post(f"{works.url}/admin/keys", form=sent).status == 403
        assert "mine" not in str(httpx.get(f"{works.url}/v1/keys", headers=works.key, timeout=60).json())


@pytest.mark.parametrize(("theme", "size"), [("dark", (1280, 800)), ("light", (820, 1180))])
def test_no_page_has_barriers(
    chromium: Browser, works: Shop, theme: str, size: tuple[int, int], tmp_path: Path
) -> None:
    window = {"width": size[0], "height": size[1]}
    with person(chromium, works, "ada", color_scheme=theme, viewport=window, locale="de-DE") as ada:
        for name in (*SECTIONS, "recipes/bolt"):
            ada.go(f"/admin/{name}")
            for closed in ada.page.locator("details.create:not([open]) summary").all():
                closed.click()
            assert ada.barriers() == [], name
            assert ada.fits(), name
        assert ada.complaints == []


def test_without_scripts_the_forms_work(chromium: Browser, works: Shop) -> None:
    with person(chromium, works, "ada", java_script_enabled=False) as ada:
        ada.go("/admin/keys")
        ada.page.locator("details.create summary").click()
        ada.page.locator(".create [name=name]").fill("cam9")
        ada.page.locator(".create button.primary").click()
        key = ada.page.locator("#secret").input_value()
        assert inspections(works, key) == 200
        confirm(row(ada, "cam9"), "Revoke")
        expect(ada.page.locator(".note.good")).to_contain_text("Revoked")
        assert inspections(works, key) == 401
