"""The reference of the HTTP API is what the service says of itself."""

import re

from deploy.reference.api import PAGE, page
from service.app import create_app
from service.settings import Settings


def test_the_page_is_as_the_service_says() -> None:
    assert PAGE.read_text() == page(), "run: make api"


def test_every_call_is_on_it_once() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    wanted = [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]
    found = re.findall(r"^### `(\w+ \S+)`$", PAGE.read_text(), re.M)
    assert sorted(found) == sorted(wanted)
    assert len(found) > 50
