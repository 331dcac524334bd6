"""`inlier-service watch` and `inlier-service simulate`."""

import asyncio
import ipaddress
import json
import re
import signal
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import click

from service import logs
from service.camera.options import api_key, common, metadata
from service.commands import guarded
from service.errors import StartupError

_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_RETRY_FOR_S = 30.0


@click.command()
@click.argument("folder", type=_FOLDER)
@common
@click.option("--pattern", multiple=True, help="names to post, in lower case; repeatable [default: images]")
@click.option("--recursive", is_flag=True, help="look into folders within, too")
@click.option("--fields", help="regular expression; its named groups in a file's name become metadata")
@click.option(
    "--existing",
    type=click.Choice(["post", "backfill", "skip"]),
    default="post",
    show_default=True,
    help="what of the files that are there when it starts for the first time",
)
@click.option("--done", type=click.Path(path_type=Path, file_okay=False), help="move posted files here")
@click.option("--failed", type=click.Path(path_type=Path, file_okay=False), help="move refused files here")
@click.option("--state", type=click.Path(path_type=Path), help="file that remembers [default: in FOLDER]")
@click.option(
    "--settle-s", type=click.FloatRange(min=0), default=1.0, show_default=True, help="unchanged for"
)
@click.option("--poll-s", type=click.FloatRange(min=0.01), default=0.5, show_default=True, help="look every")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def watch(folder: Path, **flags: Any) -> None:
    """Post the files that a camera drops into FOLDER, each once, until stopped."""
    guarded(lambda: _watch(folder, flags))


def _watch(folder: Path, flags: dict[str, Any]) -> None:
    from service.camera.memory import Memory
    from service.camera.watch import IMAGES, STATE, Options, Watcher
    from service.client import Client

    logs.configure("info", flags["log_format"])
    try:
        fields = re.compile(flags["fields"]) if flags["fields"] else None
    except re.error as error:
        raise StartupError(f"--fields is no regular expression: {error}") from None
    options = Options(
        folder=folder,
        patterns=tuple(one.lower() for one in flags["pattern"]) or IMAGES,
        recursive=flags["recursive"],
        done=flags["done"] and flags["done"].resolve(),
        failed=flags["failed"] and flags["failed"].resolve(),
        settle_s=flags["settle_s"],
        poll_s=flags["poll_s"],
        metadata=metadata(flags),
        fields=fields,
    )
    with (
        Client(flags["url"], api_key(flags), retry_for_s=_RETRY_FOR_S) as client,
        Memory(flags["state"] or folder / STATE) as memory,
    ):
        watcher = Watcher(client, options, memory, click.echo)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: watcher.stop.set())
        watcher.begin(flags["existing"])
        click.echo(f"watching {folder}")
        watcher.run()


@click.command()
@click.argument("folder", type=_FOLDER)
@common
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), required=True, help="images a second")
@click.option("--duration", type=click.FloatRange(min=0), default=10.0, show_default=True, help="seconds")
@click.option(
    "--arrivals",
    type=click.Choice(["poisson", "uniform"]),
    default="poisson",
    show_default=True,
    help="at random, or like clockwork",
)
@click.option(
    "--concurrency", type=click.IntRange(min=1), default=256, show_default=True, help="under way, at most"
)
@click.option("--wait", type=click.FloatRange(min=0), default=30.0, show_default=True, help="Prefer: wait")
@click.option("--seed", type=int, default=0, show_default=True, help="seed of order and arrivals")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="write the figures to this file")
@click.option("--allow-remote", is_flag=True, help="load a service that is not on this machine")
def simulate(
    folder: Path,
    rate: float,
    duration: float,
    arrivals: Literal["poisson", "uniform"],
    concurrency: int,
    wait: float,
    seed: int,
    json_file: Path | None,
    allow_remote: bool,
    **flags: Any,
) -> None:
    """Post the images below FOLDER at a rate, as a line would, and show what came back."""
    from service.camera.simulate import Load

    load = Load(rate, duration, arrivals, concurrency, wait, seed, metadata(flags))

    def run() -> None:
        if not allow_remote and not _loopback(flags["url"]):
            raise StartupError(f"{flags['url']} is not this machine; --allow-remote loads it all the same")
        _simulate(folder, flags["url"], api_key(flags), load, json_file)

    guarded(run)


def _simulate(folder: Path, url: str, key: str | None, load: Any, json_file: Path | None) -> None:
    from service.camera.simulate import find_images, simulate, table
    from service.client import AsyncClient

    images, labelled = find_images(folder)
    if not images:
        raise StartupError(f"there are no images below {folder}")

    async def run() -> Any:
        # Nothing is tried again: what the service refuses is part of the figures.
        async with AsyncClient(url, key, retry_for_s=0, connections=load.concurrency) as client:
            return await simulate(client, images, labelled, load)

    report = asyncio.run(run())
    click.echo(table(report, load))
    if json_file is not None:
        json_file.write_text(json.dumps(report.document(), indent=2) + "\n")
    if report.sent and not report.latencies_s:
        raise StartupError(f"nothing was answered by {url}")


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
