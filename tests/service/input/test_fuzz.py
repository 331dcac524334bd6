"""Whatever arrives, the answer is a result or a 4xx, soon, and the process lives. `make fuzz` for longer."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote_from_bytes

import numpy as np
import pytest
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.app import create_app
from service.decode import Decoder
from service.errors import InspectionError
from service.settings import Settings
from tests.service.conftest import PixelEngine, flat
from tests.service.input.files import WHOLE
from tests.service.input.mutations import SECONDS, fuzz, mutated

PATH = "/v1/inspections"
LONGEST_S = 8.0
MAX_PIXELS = 200_000
IMAGES = list(WHOLE.values())
Note = Callable[[str, object], None]

pytestmark = pytest.mark.timeout(SECONDS + 240)


def checked(decoder: Decoder, data: bytes) -> str:
    """Decode within the time; sane pixels or a 4xx that says why -> which."""
    started = time.monotonic()
    try:
        image = asyncio.run(decoder.decode(data))
        height, width = image.size
        assert 64 <= height * width <= MAX_PIXELS
        assert image.pixels.shape[2] in (1, 3)
        assert image.pixels.dtype in (np.uint8, np.uint16)
        said = "decoded"
    except InspectionError as error:
        assert 400 <= error.status < 500, error.detail  # noqa: PT017
        assert len(error.detail) > 30  # noqa: PT017
        said = "ended its process" if "its decoder ended" in error.detail else "refused"
    assert time.monotonic() - started < LONGEST_S
    return said


@pytest.mark.promise(18)
def test_the_decoder_bears_any_bytes(record_property: Note) -> None:
    decoder = Decoder(MAX_PIXELS, processes=1, timeout_s=5.0)
    ends = dict.fromkeys(("decoded", "refused", "ended its process"), 0)

    def check(data: bytes) -> None:
        ends[checked(decoder, data)] += 1

    try:
        for data in IMAGES:
            check(data)
        assert ends["decoded"] == len(IMAGES)
        tried = fuzz(check, 300, data=mutated(IMAGES))
        assert asyncio.run(decoder.decode(flat(7))).pixels.mean() == 7
    finally:
        decoder.close()
    assert ends["refused"] > tried // 10  # they are damaged indeed,
    assert ends["decoded"] > tried // 100  # and not all at their first byte
    record_property("mutated images", tried)
    record_property("of these ended a decoding process", ends["ended its process"])


@pytest.mark.promise(18, control=True)
def test_a_decoder_that_lets_errors_through_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV as one finds it: an exception, or None that somebody takes for an image."""
    import cv2

    def careless(data: bytes, **_: object) -> Any:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED).shape

    monkeypatch.setattr("service.decode.decoding.decode", careless)
    decoder = Decoder(MAX_PIXELS, processes=0)

    def check(data: bytes) -> None:
        checked(decoder, data)

    with pytest.raises((AttributeError, cv2.error)):
        fuzz(check, 60, shrink=False, data=mutated(IMAGES))


@pytest.fixture
def calls(settings: Settings) -> Iterator[Callable[..., int]]:
    """Post something to the service as it is -> the status, which is no 5xx and comes in time."""
    plenty = {"queue_size": 100_000, "max_queue_s": 1e9, "rate_limit_per_s": 0, "max_wait_s": 0.0}
    plenty |= {"max_pixels": MAX_PIXELS, "max_body_bytes": 1 << 20, "decode_processes": 1}
    with TestClient(create_app(settings.model_copy(update=plenty), PixelEngine())) as client:

        def call(body: bytes, content_type: str, query: str = "") -> int:
            started = time.monotonic()
            headers = {"Content-Type": content_type}
            answer = client.post(f"{PATH}{query}", content=body, headers=headers)
            assert time.monotonic() - started < LONGEST_S
            assert answer.status_code < 500, (answer.text, body[:2000], content_type, query)
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["detail"]
            return answer.status_code

        yield call
        assert client.get("/healthz/live").status_code == 200
        assert call(flat(9), "image/png") in (200, 202)


IMAGE = flat(40)
BOUNDARIES = ["b", "b", "b", "b", "x" * 70, '"b"', "", "b\\", "--", "b b", '"', "b; charset=utf-8"]
CHARSETS = ["", "", "", "; charset=utf-8", "; charset=utf-7", "; charset=undefined", "; charset=idna"]
CHARSETS += [
    "; charset=punycode",
    "; charset=unicode_escape",
    "; charset=hex",
    "; charset=utf-16",
    "; charset=",
]


def form(metadata: bytes, image: bytes = IMAGE, named: bytes = b"metadata") -> bytes:
    return b"".join(
        (
            b'--b\r\nContent-Disposition: form-data; name="' + named + b'"\r\n\r\n',
            metadata,
            b'\r\n--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n',
            b"Content-Type: image/png\r\n\r\n",
            image,
            b"\r\n--b--\r\n",
        )
    )


FORMS = [
    form(b'{"lot": "7", "attributes": {"a": 1.5}}'),
    form(b"+2AA-"),
    form(b"{}", named=b"+2AA-"),
    form(b"{}").replace(b'"image"', b"image").replace(b"\r\n", b"\n"),
    form(b"{}").replace(b'name="image";', b"name*=utf-8''image;"),
    form(b"{}").replace(b"Content-Type: image/png", b"Content-Transfer-Encoding: base64"),
    form(b"{}").partition(IMAGE)[0] + IMAGE,  # it never ends
    b"--b--\r\n",
]


@pytest.mark.promise(18)
def test_any_form_has_an_answer(calls: Callable[..., int], record_property: Note) -> None:
    statuses: set[int] = set()

    def check(body: bytes, boundary: str, charset: str) -> None:
        statuses.add(calls(body, f"multipart/form-data; boundary={boundary}{charset}"))

    for body in FORMS:
        for charset in CHARSETS:
            check(body, "b", charset)
    tried = fuzz(
        check,
        150,
        body=mutated(FORMS),
        boundary=st.sampled_from(BOUNDARIES),
        charset=st.sampled_from(CHARSETS),
    )
    assert 202 in statuses
    assert {400, 415, 422} <= statuses
    record_property("mutated forms", tried)


# As json.dumps writes it, with what JSON has not, too: NaN, lone surrogates, numbers without end.
TEXTS = st.text(st.characters(), max_size=20)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**80), 2**80), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)
NAMES = st.sampled_from(
    ["recipe", "part_id", "serial", "lot", "line", "captured_at", "profile", "priority", "deadline_ms"]
)
OBJECTS = st.dictionaries(st.one_of(NAMES, st.just("attributes"), TEXTS), VALUES, max_size=5)
SEEDS = [
    '{"recipe": "default", "lot": "ä", "captured_at": "2026-01-31T12:00:00Z", "attributes": {"a": 1}}',
    '{"attributes": ' + '{"a":' * 400 + "1" + "}" * 401,
    "[" * 5000,
    '{"attributes": {"a": ' + "9" * 6000 + "}}",
    '{"captured_at": "9999-12-31T23:59:59-23:59"}',
    '{"lot": "\\ud800", "attributes": {"a": 1e999}}',
    '{"deadline_ms": 1e308}',
]
DOCUMENTS = st.one_of(
    OBJECTS.map(lambda value: json.dumps(value).encode()),
    mutated([text.encode() for text in SEEDS]),
)
PAIRS = st.tuples(
    st.one_of(NAMES, st.just("attr.a"), TEXTS), st.one_of(TEXTS, st.integers(-(2**80), 2**80).map(str))
)
QUERIES = st.lists(PAIRS, max_size=4).map(
    lambda pairs: "?" + "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in pairs)
)


def _quoted(text: str) -> str:
    return quote_from_bytes(text.encode("utf-8", "surrogatepass"))


@pytest.mark.promise(18)
def test_any_metadata_has_an_answer(calls: Callable[..., int], record_property: Note) -> None:
    statuses: set[int] = set()

    def check(document: bytes, query: str) -> None:
        statuses.add(calls(form(document), "multipart/form-data; boundary=b", query))

    for text in SEEDS:
        check(text.encode(), "")
    tried = fuzz(check, 150, document=DOCUMENTS, query=st.one_of(st.just(""), QUERIES))
    assert {202, 422} <= statuses
    record_property("mutated metadata", tried)


@pytest.mark.promise(18, control=True)
@pytest.mark.parametrize(
    ("guard", "found_by"),
    [("service.api.upload.utf8_only", "forms"), ("service.api.upload._validated_json", "metadata")],
)
def test_a_parser_without_its_guard_would_be_found(
    calls: Callable[..., int], monkeypatch: pytest.MonkeyPatch, guard: str, found_by: str
) -> None:
    def unguarded(given: Any) -> Any:
        from service.metadata import Metadata

        return Metadata.model_validate(json.loads(given)) if isinstance(given, bytes) else None

    monkeypatch.setattr(guard, unguarded)
    ignore: Note = lambda name, value: None  # noqa: E731
    test = test_any_form_has_an_answer if found_by == "forms" else test_any_metadata_has_an_answer
    with pytest.raises(AssertionError, match="internal-error"):
        test(calls, ignore)
