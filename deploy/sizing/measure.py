"""How much an inspection takes on disk: rows of a filled database, and files of images posted to a service.

    python -m deploy.sizing.measure BUNDLE IMAGES

Prints bytes for each inspection. Files that are alike are stored once, so the images must differ.
"""

import argparse
import itertools
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from sqlalchemy import create_engine, text

from deploy.bench.db.plant import Plant
from deploy.bench.db.seed import fill
from deploy.ops_test.line import ONE_THREAD, command
from deploy.ops_test.postgres import private_postgres
from deploy.processes import new_key, started
from service.db.session import Database

KINDS = ("image", "heatmap", "reconstruction")


def post(url: str, headers: dict[str, str], images: list[Path], count: int) -> None:
    """As cameras do: with what a line says of a part."""

    def one(item: tuple[int, Path]) -> None:
        number, path = item
        said = {"line": "L1", "station": "cam2", "lot": f"lot-{number // 500}", "serial": f"SN{number:08}"}
        headers_ = {**headers, "Content-Type": "image/png", "Prefer": "wait=60"}
        data = path.read_bytes()
        answer = httpx.post(
            f"{url}/v1/inspections",
            content=data,
            params={**said, "attr.tool": "7"},
            headers=headers_,
            timeout=90,
        )
        answer.raise_for_status()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, zip(range(count), itertools.cycle(images), strict=False)))


def weigh(database_url: str, blobs: Path) -> dict[str, float]:
    """Bytes of each kind of file for an inspection."""
    engine = create_engine(database_url)
    with engine.connect() as connection:
        query = text(
            f"SELECT {', '.join(f'{kind}_sha256' for kind in KINDS)} FROM inspections WHERE status = 'done'"
        )
        rows = connection.execute(query).all()
    engine.dispose()
    sizes = {path.name.split(".")[0]: path.stat().st_size for path in blobs.rglob("*") if path.is_file()}
    columns = zip(KINDS, zip(*rows, strict=True), strict=True)
    return {kind: sum(sizes[digest] for digest in digests) / len(digests) for kind, digests in columns}


def files(bundle: Path, images: list[Path], count: int) -> dict[str, float]:
    """Of a service on SQLite."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = ("--data", folder)
        command("db", "upgrade", *store)
        key = new_key("camera", "camera", *store)
        words = ("serve", *store, "--bundle", bundle, "--port", 0, "--profile", "fast")
        with started(folder / "log", *words, **ONE_THREAD) as service:
            post(service.address, key, images, count)
        return weigh(f"sqlite:///{folder / 'inlier.sqlite3'}", folder / "blobs")


def rows(url: str, count: int) -> float:
    """Bytes of an inspection's rows with their indexes, in a database filled with those of a plant."""
    database = Database(url)
    try:
        database.migrate()
        empty = _size(database)
        fill(database, Plant(count))
        return (_size(database) - empty) / count
    finally:
        database.close()


def _size(database: Database) -> int:
    with database.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            bytes_ = connection.exec_driver_sql("PRAGMA page_size").scalar()
            return int(pages or 0) * int(bytes_ or 0)
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar() or 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--count", type=int, default=200, help="images to post")
    parser.add_argument("--rows", type=int, default=100_000, help="inspections to fill a database with")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print("rows on SQLite", rows(f"sqlite:///{name}/inlier.sqlite3", given.rows), flush=True)
    with private_postgres() as server, server.database() as url:
        print("rows on PostgreSQL", rows(url, given.rows), flush=True)
    print("files", files(given.bundle, sorted(given.images.rglob("*.png")), given.count), flush=True)


if __name__ == "__main__":
    main()
