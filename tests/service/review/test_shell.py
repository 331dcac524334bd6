"""What every page has: navigation by role, the chosen theme and language, errors as pages for people."""

from starlette.testclient import TestClient

HTML = {"Accept": "text/html"}


def test_theme_and_language_are_remembered_and_painted_by_the_server(client: TestClient) -> None:
    before = client.get("/inspections", headers=HTML).text
    assert '<html lang="en">' in before
    sent = {"theme": "dark", "language": "de", "next": "/inspections?lot=7"}
    answer = client.post("/preferences", data=sent, headers=HTML, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/inspections?lot=7")
    after = client.get("/inspections", headers=HTML).text
    assert '<html lang="de" data-theme="dark">' in after
    assert ">Inspektionen<" in after


def test_preferences_lead_nowhere_else_and_take_nothing_unknown(client: TestClient) -> None:
    away = client.post("/preferences", data={"theme": "dark", "next": "//evil"}, follow_redirects=False)
    assert away.headers["location"].startswith("/")
    assert not away.headers["location"].startswith("//")
    assert client.post("/preferences", data={"theme": "pink"}).status_code == 422


def test_errors_are_pages_for_people_and_problems_for_programs(client: TestClient) -> None:
    for path, status in (("/nowhere", 404), ("/inspections/none", 404), ("/inspections?order=x", 422)):
        shown = client.get(path, headers=HTML)
        assert shown.status_code == status
        assert shown.headers["content-type"].startswith("text/html")
        assert shown.headers["x-request-id"] in shown.text
        assert client.get(path).headers["content-type"] == "application/problem+json"
    api = client.get("/v1/inspections/none", headers=HTML)
    assert api.headers["content-type"] == "application/problem+json"


def test_an_errors_detail_is_escaped(client: TestClient) -> None:
    assert "<b>" not in client.get("/%3Cb%3E", headers=HTML).text


def test_styles_and_scripts_are_asked_for_anew(client: TestClient) -> None:
    answer = client.get("/static/js/shell.js")
    assert answer.headers["cache-control"] == "no-cache"
    assert (
        client.get("/static/js/shell.js", headers={"If-None-Match": answer.headers["etag"]}).status_code
        == 304
    )
