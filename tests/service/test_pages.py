"""The pages: right content, escaped, offline, without scripts."""

import re

import pytest

from service.review.shell import code
from service.settings import Settings
from tests.service.conftest import PixelEngine, connected, flat

WAIT = {"Prefer": "wait=30", "Content-Type": "image/png"}
EVIL = "%3Cscript%3Ealert(1)%3C/script%3E"


@pytest.fixture
def pages(settings: Settings) -> dict[str, str]:
    with connected(settings, PixelEngine(poison=3)) as client:
        query = f"serial={EVIL}&line={EVIL}&attr.note={EVIL}"
        reject = client.post(f"/v1/inspections?{query}", content=flat(40), headers=WAIT).json()
        failed = client.post("/v1/inspections", content=flat(3), headers=WAIT).json()
        found = {
            name: client.get(path, headers={"Accept": "text/html"})
            for name, path in {
                "overview": "/",
                "list": "/inspections",
                "review": "/review",
                "filtered": "/inspections?verdict=REJECT&line=&recipe=",
                "nothing": "/inspections?lot=none",
                "reject": reject["links"]["page"],
                "failed": failed["links"]["page"],
                "docs": "/docs",
                "missing": "/inspections/none",
            }.items()
        }
        assert {name: page.status_code for name, page in found.items() if page.status_code != 200} == {
            "missing": 404
        }
        for page in found.values():
            assert page.headers["content-security-policy"].startswith("default-src 'self';")
            assert page.headers["content-type"].startswith("text/html")
        links = set(re.findall(r'(?:href|src)="(/[^"]*)"', "".join(page.text for page in found.values())))
        dead = {
            link for link in links if client.get(link.replace("&amp;", "&").split("#")[0]).status_code != 200
        }
        assert dead == set()
    return {name: page.text for name, page in found.items()}


def test_pages(pages: dict[str, str]) -> None:
    everything = "".join(pages.values())
    scripts = re.findall(r"<script[^>]*>", everything)
    # The policy lets no script in a page run; data may stand there.
    assert all(" src=" in tag or 'type="application/json"' in tag for tag in scripts)
    assert "<script>alert" not in everything
    assert " style=" not in everything  # the policy forbids it, so it would not show
    assert re.findall(r'(?:href|src)="(?!/|#)[^"]*"', everything) == []  # nothing from elsewhere
    assert "&lt;script&gt;" in pages["reject"]
    for wanted in ("REJECT", "40", "3.00 / 5.00 · version 1", 'class="region"', "tiny", "Inference", "fast"):
        assert wanted in pages["reject"]
    assert "engine-failed" in pages["failed"]
    assert "ERROR" in pages["failed"]
    assert pages["filtered"].count('class="card') == 1
    assert pages["list"].count('class="card') == 2
    assert "Nothing matches" in pages["nothing"]
    for html in pages.values():
        assert '<html lang="en">' in html
        assert re.findall(r"<img(?![^>]*\balt=)[^>]*>", html) == []
        assert html.count("<h1") == 1
    for path in ("/v1/inspections", "/v1/inspections/{identifier}/heatmap", "/healthz/ready"):
        assert path in pages["docs"]


def test_code_in_descriptions_is_shown_as_code(pages: dict[str, str]) -> None:
    assert "<code>attr.NAME=VALUE</code>" in pages["docs"]
    assert "&lt;/code&gt;" not in pages["docs"]


def test_code_escapes_everything_else() -> None:
    assert code("<b> `a<c` & more") == "&lt;b&gt; <code>a&lt;c</code> &amp; more"
