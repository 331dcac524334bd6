"""The line of the test: PostgreSQL, Redis, an API, two workers and Prometheus, on loopback, no containers."""

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from deploy.bench.bundle import FOLDER, small_bundle
from deploy.ops_test.postgres import Missing, PrivatePostgres, private_postgres
from deploy.ops_test.prometheus import Prometheus, running
from deploy.ops_test.redis import PrivateRedis
from deploy.processes import ROOT, Process, free_port, new_key, tool

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
FASTER = 60
"""The rules' hours are minutes here, their minutes seconds: or no alert would come and go within the test."""
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def command(*words: object) -> str:
    """Run `inlier-service` to its end -> what it printed."""
    return tool("inlier-service", *words, timeout_s=240).stdout


def model_and_parts(bundle: Path | None, parts: Path | None) -> tuple[Path, Path]:
    """What was named, or else a model trained for such lines, kept in .bench, and the parts it saw."""
    recipe = Path(__file__).with_name("line.toml")
    return bundle or small_bundle(recipe, "ops-test", side_px=64), parts or FOLDER / "ops-test-parts"


@dataclass
class Line:
    folder: Path
    url: str
    database_url: str
    bundle: Path
    postgres: PrivatePostgres
    redis: PrivateRedis
    prometheus: Prometheus
    api: Process
    workers: list[Process]
    camera: dict[str, str]
    admin: dict[str, str]
    store: tuple[object, ...]  # where rows and images are, as options
    logs: list[Path] = field(default_factory=list)


@contextmanager
def line(folder: Path, bundle: Path, faster: bool = True) -> Iterator[Line]:
    """Everything started, and nothing runs afterwards; Missing if a server is not installed.

    With `faster` the time of Prometheus's rules runs FASTER times faster.
    """
    for program, package in (("redis-server", "redis-server"), ("prometheus", "prometheus")):
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed (Debian: apt-get install {package})")
    with ExitStack() as stack:
        postgres = stack.enter_context(private_postgres())
        database_url = stack.enter_context(postgres.database())
        redis = PrivateRedis(folder)
        redis.start()
        stack.callback(redis.stop)
        store = ("--data", folder / "data", "--database-url", database_url)
        command("db", "upgrade", *store)
        camera, admin = new_key("camera", "camera", *store), new_key("admin", "admin", *store)
        scraper = new_key("prometheus", "camera", *store)
        ports = [free_port() for _ in range(3)]
        common = (*store, "--bundle", bundle, "--redis-url", redis.url, "--threads", 1, "--lease-s", 5)
        common += ("--sweep-s", 1, "--log-format", "json")
        served = ("serve", "--port", ports[0], "--workers-inside", 0, "--sink-allow", "127.0.0.0/8", *common)
        api = Process(folder / "api.log", *served, **ONE_THREAD)
        workers = [
            Process(folder / f"worker-{number}.log", "worker", "--metrics-port", port, *common, **ONE_THREAD)
            for number, port in enumerate(ports[1:], 1)
        ]
        for process in (api, *workers):
            stack.callback(lambda process=process: process.kill() if process.runs else None)
            process.start()
        config = _configure(folder, ports, scraper["Authorization"].removeprefix("Bearer "), faster)
        prometheus = stack.enter_context(running(config, folder))
        yield Line(
            folder,
            api.address,
            database_url,
            bundle,
            postgres,
            redis,
            prometheus,
            api,
            workers,
            camera,
            admin,
            store,
        )


def _configure(folder: Path, ports: list[int], key: str, faster: bool) -> Path:
    """deploy/prometheus with our ports, a scrape every second, and, with `faster`, rules in a hurry."""
    made = folder / "prometheus"
    shutil.copytree(ROOT / "deploy/prometheus", made)
    (made / "inlier.key").write_text(key)
    (made / "targets/api.yml").write_text(yaml.safe_dump([{"targets": [f"127.0.0.1:{ports[0]}"]}]))
    targets = [{"targets": [f"127.0.0.1:{port}" for port in ports[1:]]}]
    (made / "targets/workers.yml").write_text(yaml.safe_dump(targets))
    config = yaml.safe_load((made / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (made / "prometheus.yml").write_text(yaml.safe_dump(config))
    for path in (made / "rules").glob("*.yml") if faster else ():
        rules = yaml.safe_load(path.read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            rule["expr"] = hurried(rule["expr"])
            if "for" in rule:
                rule["for"] = _shorter(rule["for"])
        path.write_text(yaml.safe_dump(rules))
    return made / "prometheus.yml"


def hurried(expression: str) -> str:
    """An expression whose ranges and offsets are shorter; names and numbers stay."""
    ranged = re.sub(
        r"\[([0-9dhms]+)(?::([0-9dhms]+))?\]",
        lambda found: f"[{_shorter(found[1])}{':' + _shorter(found[2]) if found[2] else ''}]",
        expression,
    )
    return re.sub(r"\boffset ([0-9dhms]+)", lambda found: f"offset {_shorter(found[1])}", ranged)


def _shorter(duration: str) -> str:
    total = sum(int(number) * _UNITS_MS[unit] for number, unit in re.findall(r"(\d+)(ms|[dhms])", duration))
    return f"{max(1, total // FASTER)}ms"
