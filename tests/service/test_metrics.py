"""docs/metrics.md and what processes expose are the same; what is counted is right."""

import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.app import create_app
from service.blobs.disk import DiskBlobs
from service.db.repository import reviews
from service.db.session import Database
from service.gauges import Gauges
from service.ids import first_id_at
from service.metrics import Metrics
from service.settings import Settings
from service.worker_main import Monitor
from tests.service.conftest import PixelEngine, flat
from tests.service.db.rows import add_model, identifier, row, store
from tests.test_docs import table

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
WAIT = {"Content-Type": "image/png", "Prefer": "wait=30"}
_OWN = {"le"}  # of histograms, not ours


def documented(of: str) -> dict[str, list[str]]:
    """Rows of the table that a process of a kind exposes, by name."""
    return {row[0]: row for row in table(PAGE.read_text()) if row[3] in (of, "both")}


def exposed(text: str) -> dict[str, Metric]:
    """Families of ours, by the name that queries use."""
    found = text_string_to_metric_families(text)
    ours = [family for family in found if family.name.startswith("inlier_")]
    return {f"{one.name}_total" if one.type == "counter" else one.name: one for one in ours}


def compare(text: str, *of: str) -> None:
    wanted = {name: cells for kind in of for name, cells in documented(kind).items()}
    found = exposed(text)
    assert set(found) == set(wanted)
    for name, family in found.items():
        _, kind, labels, _, meaning = wanted[name]
        assert (family.type, family.documentation) == (kind, meaning), name
        for sample in family.samples:
            assert set(sample.labels) - _OWN == set(filter(None, labels.split(", "))), name


def use(client: TestClient) -> None:
    """Images from two stations, one review, one problem."""
    for station, value in (("1", 1), ("2", 9)):
        query = {"line": "A", "station": station}
        body = client.post("/v1/inspections", params=query, content=flat(value), headers=WAIT).json()
    review = {"decision": "good", "expected_revision": 0}
    assert client.post(f"/v1/inspections/{body['id']}/reviews", json=review).status_code == 201
    client.get("/v1/inspections/nothing")


def test_the_table_is_what_an_api_with_its_worker_exposes(client: TestClient) -> None:
    use(client)
    compare(client.get("/metrics").text, "API", "worker")


def test_the_table_names_every_label_also_of_what_has_not_happened() -> None:
    metrics = [value for value in vars(Metrics()).values() if isinstance(value, MetricWrapperBase)]
    wanted = {row[0]: row[2] for row in table(PAGE.read_text())}
    assert len(metrics) == len(wanted)
    for metric in metrics:
        name = f"{metric._name}_total" if metric._type == "counter" else metric._name
        assert wanted[name] == ", ".join(metric._labelnames), name


def test_an_api_whose_workers_are_separate_and_a_worker_expose_their_own() -> None:
    for of, metrics in (("API", Metrics(runs=False)), ("worker", Metrics(api=False))):
        monitor = Monitor("127.0.0.1", 0, metrics)
        with urllib.request.urlopen(f"{monitor.address}/metrics") as answer:
            compare(answer.read().decode(), of)
        monitor.close()


def test_what_is_counted(client: TestClient) -> None:
    use(client)
    for _ in range(600):  # who waits hears of a result before everybody here has
        text = client.get("/metrics").text
        if 'inlier_queue_oldest_seconds{priority="camera"} 0.0' in text and "inlier_running 0.0" in text:
            break
        time.sleep(0.05)
    for line in (
        'inlier_accepted_total{line="A",station="1"} 1.0',
        'inlier_accepted_total{line="A",station="2"} 1.0',
        'inlier_reviews_total{decision="good",recipe="default",verdict="REJECT"} 1.0',
        'inlier_brightness_bucket{le="0.02",line="A",station="1"} 1.0',
        'inlier_brightness_bucket{le="0.02",line="A",station="2"} 0.0',
        'inlier_sharpness_count{line="A",station="2"} 1.0',
        'inlier_queue_oldest_seconds{priority="camera"} 0.0',
        "inlier_redeliveries_total 0.0",
        "inlier_running 0.0",
    ):
        assert line in text, line
    assert (
        f'inlier_recipe_model_info{{hash="{"f" * 64}",name="tiny",recipe="default",version="1"}} 1.0' in text
    )
    (created,) = exposed(text)["inlier_model_created_timestamp_seconds"].samples
    assert datetime.fromtimestamp(created.value, UTC).isoformat() == "2026-01-01T00:00:00+00:00"
    free, size = (exposed(text)[f"inlier_disk_{name}_bytes"].samples[0].value for name in ("free", "size"))
    assert 0 < free < size


def test_openmetrics_leads_from_a_slow_stage_to_its_inspection(client: TestClient) -> None:
    body = client.post("/v1/inspections", content=flat(9), headers=WAIT).json()
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    part = "# HELP inlier_stage_seconds" + answer.text.partition("# HELP inlier_stage_seconds")[2]
    (stages,) = open_metrics(part.partition("# HELP inlier_score")[0] + "# EOF")
    exemplars = [sample.exemplar for sample in stages.samples if sample.exemplar is not None]
    assert {exemplar.labels["inspection_id"] for exemplar in exemplars} == {body["id"]}
    assert body["id"] not in client.get("/metrics").text


def test_redeliveries_and_dead_letters(settings: Settings) -> None:
    with TestClient(create_app(settings, PixelEngine(poison=9))) as client:
        client.post("/v1/inspections", content=flat(9), headers=WAIT)
        text = client.get("/metrics").text
    assert "inlier_redeliveries_total 2.0" in text
    assert 'inlier_dead_letters_total{reason="engine-failed"} 1.0' in text


def test_the_age_of_the_oldest_counts_from_its_acceptance_also_after_a_restart(settings: Settings) -> None:
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    database, blob = Database(settings.url), DiskBlobs(settings.data / "blobs").put(flat(9))
    database.migrate()
    waits = {"id": first_id_at(an_hour_ago), "created_at": an_hour_ago, "image_sha256": blob}
    with database.write() as session:
        add_model(session)
        store(session, [row(0, status="queued", verdict=None, **waits)])
    database.close()
    engine = PixelEngine()
    engine.go.clear()
    with TestClient(create_app(settings, engine)) as client:
        registry = client.app.state.services.metrics.registry  # type: ignore[attr-defined]

        def oldest_s(priority: str) -> float:
            return registry.get_sample_value("inlier_queue_oldest_seconds", {"priority": priority})

        for _ in range(600):
            if oldest_s("camera"):
                break
            time.sleep(0.05)
        assert 3600 <= oldest_s("camera") < 3660
        assert oldest_s("backfill") == 0
        engine.go.set()
        for _ in range(600):
            if not oldest_s("camera"):
                break
            time.sleep(0.05)
        assert oldest_s("camera") == 0


def test_a_folder_that_is_gone_has_no_space_and_breaks_nothing(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.watch_disk("data", tmp_path / "gone")
    assert metrics.registry.get_sample_value("inlier_disk_free_bytes", {"folder": "data"}) == 0


# --- what the database is asked for ---


def test_the_backlog(database: Database) -> None:
    with database.write() as session:
        add_model(session)
        store(session, [row(number, wanted=number >= 3) for number in range(8)])
    with database.read() as session:
        assert reviews.backlog(session, 100) == (5, identifier(3))
        assert reviews.backlog(session, 3)[0] == 3


def test_the_backlog_is_read_from_an_index_alone(database: Database) -> None:
    with database.read() as session:
        if session.get_bind().dialect.name != "sqlite":
            pytest.skip("PostgreSQL plans by statistics, of which an empty table has none")
        plan = session.connection().exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT id FROM inspections "
            "WHERE review_state = 'none' AND wanted = 1 LIMIT 100000"
        )
        assert "USING COVERING INDEX ix_inspections_queue" in str(plan.all())


def test_estimates_appear_once_enough_is_reviewed(client: TestClient) -> None:
    serving = client.app.state.services  # type: ignore[attr-defined]
    metrics: Metrics = serving.metrics
    gauges = Gauges(serving.database, serving.engines, serving.drift, metrics)

    def estimate(name: str, bound: str) -> float | None:
        labels = {"recipe": "default", "bound": bound}
        return metrics.registry.get_sample_value(f"inlier_{name}_ratio", labels)

    for value in (9, 9, 9, 20):
        body = client.post("/v1/inspections", content=flat(value), headers=WAIT).json()
        decision = {"decision": "good" if value == 20 else "defective", "expected_revision": 0}
        client.post(f"/v1/inspections/{body['id']}/reviews", json=decision)
    gauges.backlog()
    gauges.estimates()
    assert metrics.registry.get_sample_value("inlier_review_backlog") == 0
    assert (estimate("escape", "estimate"), estimate("overkill", "estimate")) == (0, 1)
    low, high = estimate("escape", "low"), estimate("escape", "high")
    assert low is not None
    assert high is not None
    assert low <= 0 < high < 1
