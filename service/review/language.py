"""What the pages say, in each language: one file of strings per language, all with the same keys."""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import HTTPConnection

FOLDER = Path(__file__).parent / "strings"
COOKIE = "inlier-language"
DEFAULT = "en"
LANGUAGES = {"en": "English", "de": "Deutsch"}
_WEIGHTED = re.compile(r"([A-Za-z]{1,8})(?:-[A-Za-z0-9-]*)?\s*(?:;\s*q=([0-9.]+))?")


@cache
def strings(language: str) -> dict[str, str]:
    """`section.key` -> text, as strings/LANGUAGE.toml has it."""
    sections = tomllib.loads((FOLDER / f"{language}.toml").read_text(encoding="utf-8"))
    return {f"{name}.{key}": text for name, section in sections.items() for key, text in section.items()}


class Texts:
    """The strings of one language: `t("queue.open", count=3)`. KeyError for a key that nobody wrote."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._strings = strings(language)

    def __call__(self, key: str, **values: Any) -> str:
        text = self._strings[key]
        return text.format(**values) if values else text

    def maybe(self, key: str, otherwise: str) -> str:
        """The text, or what is shown where there is none: codes that a recipe or an error brought along."""
        return self._strings.get(key, otherwise)

    def section(self, *names: str) -> dict[str, str]:
        """Whole sections, for the scripts of a page."""
        return {key: text for key, text in self._strings.items() if key.partition(".")[0] in names}

    def number(self, value: float, digits: int = 2) -> str:
        """A number as the language writes it."""
        text = f"{value:,.{digits}f}"
        return text if self.language != "de" else text.translate(str.maketrans(",.", ".,"))


def texts(connection: HTTPConnection) -> Texts:
    """In the language the person chose, or the first of the browser's that there is."""
    chosen = connection.cookies.get(COOKIE, "")
    return Texts(chosen if chosen in LANGUAGES else _preferred(connection.headers.get("accept-language", "")))


def _preferred(header: str) -> str:
    best, weight = DEFAULT, 0.0
    for name, quality in _WEIGHTED.findall(header[:256]):
        try:
            given = float(quality or 1)
        except ValueError:
            continue
        if name.lower() in LANGUAGES and given > weight:
            best, weight = name.lower(), given
    return best
