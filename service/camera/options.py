"""Options of every command that posts: where the service is, who we are, what is said of every image."""

from pathlib import Path
from typing import Any

import click

from service.errors import StartupError
from service.settings import DEFAULT_URL


def common(command: Any) -> Any:
    """Where the service is, who we are, and what is said of every image."""
    for option in (
        click.option("--station", help="station or camera of every image"),
        click.option("--line", help="production line of every image"),
        click.option("--lot", help="lot of every image"),
        click.option("--profile", help="reconstruction profile [default: the service's]"),
        click.option("--recipe", default="default", show_default=True, help="recipe of every image"),
        click.option(
            "--key-file",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="file that holds it",
        ),
        click.option("--key", envvar="INLIER_KEY", help="API key; better in INLIER_KEY or --key-file"),
        click.option(
            "--url", envvar="INLIER_URL", default=DEFAULT_URL, show_default=True, help="the service"
        ),
    ):
        command = option(command)
    return command


def metadata(flags: dict[str, Any]) -> dict[str, Any]:
    names = ("recipe", "profile", "lot", "line", "station")
    return {name: flags[name] for name in names if flags[name] is not None}


def api_key(flags: dict[str, Any]) -> str | None:
    if flags["key_file"] is None:
        return flags["key"] or None
    text: str = flags["key_file"].read_text().strip()
    if not text:
        raise StartupError(f"--key-file {flags['key_file']} is empty")
    return text.split()[-1]
