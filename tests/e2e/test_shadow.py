"""A shadow in a cluster: an API without a model, two workers with it, one of which is killed."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from models.bundle import Bundle
from service.db.session import Database
from service.model_life import ModelBook
from tests.conftest import part
from tests.e2e.cluster import cluster
from tests.e2e.line import new_key
from tests.service.conftest import png, postgres
from tests.service.queue.conftest import PrivateRedis, redis_server
from tests.service.test_engines import WHO, variant

__all__ = ["postgres", "redis_server"]  # fixtures


@pytest.fixture
def database_url(postgres) -> Iterator[str]:
    with postgres.database() as url:
        yield url


def wait(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.mark.timeout(300)
def test_workers_score_with_it_and_a_killed_one_loses_nothing_but_scores(
    tiny_bundle: Bundle, tmp_path: Path, database_url: str, redis_server: PrivateRedis
) -> None:
    second = variant(tiny_bundle, tmp_path / "second", "2")
    with cluster(tmp_path, tiny_bundle.path, database_url, redis_server.url, "--lease-s", 3) as running:
        running.api()
        admin = new_key(tmp_path / "data", "vera", "admin", "--database-url", database_url)
        workers = [running.worker() for _ in range(2)]
        database = Database(database_url)
        ModelBook(database).register(WHO, second.path)
        shadow = f"{running.url}/v1/models/{second.hash}/shadow"
        assert httpx.post(shadow, json={"recipe": "default", "why": "x"}, headers=admin).status_code == 200

        def loaded(worker) -> bool:
            return 'inlier_shadow_loaded{recipe="default"} 1.0' in httpx.get(f"{worker.address}/metrics").text

        def compared() -> dict:
            return httpx.get(shadow, params={"recipe": "default", "limit": 500}, headers=admin).json()

        wait(lambda: all(map(loaded, workers)), "not all workers have loaded it")
        first = [running.post(png(part(index)), wait_s=60).json() for index in range(8)]
        wait(lambda: compared()["scored"] == 8, "not all are scored")
        scores = {pair["inspection"]: pair for pair in compared()["items"]}
        assert {one["id"] for one in first} == set(scores)
        for one in first:  # the same network
            assert scores[one["id"]]["shadow"]["score"] == pytest.approx(one["score"]["calibrated"], abs=1e-4)
        posted = [running.post(png(part(index))).json()["id"] for index in range(8, 28)]
        workers[0].kill()

        def ended() -> bool:
            states = [
                httpx.get(f"{running.url}/v1/inspections/{one}", headers=admin).json() for one in posted
            ]
            return all(state["status"] == "done" for state in states)

        wait(ended, "not all have ended")
        last = running.post(png(part(30)), wait_s=60).json()["id"]
        wait(
            lambda: last in {pair["inspection"] for pair in compared()["items"]},
            "the survivor does not score",
        )
        found = compared()
        assert found["eligible"] == 29
        assert 9 <= found["scored"] <= 29
        workers[1].end_well()
        database.close()
