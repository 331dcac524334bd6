"""Languages say the same things, and people get theirs."""

import re
import string

import pytest
from starlette.requests import Request

from service.outbox.message import EVENTS
from service.review.language import LANGUAGES, Texts, strings, texts
from service.review.shell import FOLDER

_USED = re.compile(r"""\bt\("([a-z_]+\.[a-z0-9_]+)"[,)]""")


def names(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {"en"}))
def test_languages_have_the_same_keys_and_fill_in_the_same_names(language: str) -> None:
    ours, theirs = strings("en"), strings(language)
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if names(ours[key]) != names(theirs[key])] == []
    assert [key for key, text in theirs.items() if not text.strip()] == []


def test_every_string_that_is_asked_for_exists() -> None:
    sources = [*FOLDER.rglob("*.html"), *FOLDER.rglob("*.js")]
    asked = {key for source in sources for key in _USED.findall(source.read_text())}
    assert len(asked) > 30  # the pattern finds them
    assert asked - strings("en").keys() == set()


def test_every_event_of_webhooks_has_a_name() -> None:
    assert {f"admin.event_{event.replace('.', '_')}" for event in EVENTS} <= strings("en").keys()


def request(accept: str, cookie: str = "") -> Request:
    headers = [(b"accept-language", accept.encode()), (b"cookie", cookie.encode())]
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize(
    ("accept", "cookie", "language"),
    [
        ("", "", "en"),
        ("de-AT,de;q=0.9,en;q=0.8", "", "de"),
        ("fr, de;q=0.3, en;q=0.7", "", "en"),
        ("fr;q=x.., de;q=..", "", "en"),
        ("en", "inlier-language=de", "de"),
        ("de", "inlier-language=../../etc", "de"),
    ],
)
def test_the_language_is_the_chosen_one_or_the_browsers(accept: str, cookie: str, language: str) -> None:
    assert texts(request(accept, cookie)).language == language


def test_numbers_are_written_as_the_language_does() -> None:
    assert Texts("en").number(12345.678) == "12,345.68"
    assert Texts("de").number(12345.678) == "12.345,68"


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(KeyError):
        Texts("en")("nav.nowhere")
