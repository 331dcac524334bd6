"""Schedules: what is due follows from the runs; shadows are promoted by policy, and only some."""

import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import update

from service.cli import cli
from service.db.repository import runs, shadow_scores
from service.db.tables import ModelEventRow, ModelRow, ShadowScoreRow, TrainingRunRow
from service.errors import StartupError
from service.ids import first_id_at
from service.retraining.drifted import DriftCause, OnDrift
from service.retraining.job import Outcome
from service.retraining.lease import Held
from service.retraining.promote import Policy, Promotion
from service.retraining.schedule import Entry, Scheduler, due, read
from tests.service.db import rows as make
from tests.service.retraining.conftest import Plant
from tests.service.test_server import command, environment

SUNDAY = datetime(2026, 3, 1, tzinfo=UTC)
WEEKLY = Entry(recipe="bolt", cron="0 2 * * sun", zone="UTC")
GOOD = """
[[job]]
recipe = "bolt"
cron = "0 2 * * sun"
zone = "Europe/Berlin"
since = "14d"
options = ["--fresh"]
promote = { inspections = 200, agreement = 0.95 }
drift = { traits = ["score", "brightness"], rest = "3d" }
"""


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "schedule.toml").write_text(GOOD)
    (entry,) = read(tmp_path / "schedule.toml").job
    assert entry.drift == OnDrift(traits=("score", "brightness"), rest="3d")
    assert entry.span == timedelta(days=14)
    assert entry.promote == Policy(inspections=200, agreement=0.95)
    at = entry.trigger.get_next_fire_time(None, SUNDAY)
    assert at.astimezone(UTC) == datetime(2026, 3, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0 2 * * sun", "0 25 * * sun", "bolt"),
        ('recipe = "bolt"\n', "", "recipe: Field required"),
        ('since = "14d"', 'since = "a fortnight"', "no duration"),
        ('since = "14d"', 'sinze = "14d"', "sinze"),
        ("0.95", "1.5", "promote.agreement"),
        ('"brightness"', '"smell"', "drift.traits"),
        ('"3d"', '"soon"', "no duration"),
        ("Europe/Berlin", "Mars/Base", "bolt"),
        ("[[job]]", GOOD + "[[job]]", "more than one job"),
        ("[[job]]", "[[job", "cannot be read"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "schedule.toml").write_text(GOOD.replace(old, new))
    with pytest.raises(StartupError, match=said):
        read(tmp_path / "schedule.toml")


def began(plant: Plant, at: datetime, state: str) -> None:
    with plant.database.write() as session:
        row = runs.begin(session, "bolt", cause="test", who="test", folder="", base_hash=None)
        session.execute(
            update(TrainingRunRow).where(TrainingRunRow.id == row.id).values(started_at=at, state=state)
        )


def test_what_is_due_follows_from_the_runs(plant: Plant) -> None:
    def when(since: datetime, now: datetime) -> datetime | None:
        return due(plant.database, WEEKLY, since, now)

    two = SUNDAY.replace(hour=2)
    assert when(SUNDAY, SUNDAY.replace(hour=1)) is None
    assert when(SUNDAY, two) == two
    assert (
        when(two + timedelta(minutes=1), two + timedelta(days=1)) is None
    )  # begun after it: not made up for
    began(plant, two + timedelta(seconds=3), "passed")
    assert when(SUNDAY, two + timedelta(days=6)) is None
    # Nobody was there for two Sundays: made up for once.
    missed = two + timedelta(days=15)
    assert when(missed, missed) == two + timedelta(days=7)
    began(plant, missed, "failed")
    assert when(missed, missed + timedelta(hours=1)) is None  # a failure waits for the next time
    began(plant, missed + timedelta(hours=2), "interrupted")
    now = missed + timedelta(hours=3)
    assert when(missed, now) == now  # what never ended is taken up at once


@pytest.mark.promise(26)
def test_a_time_that_the_clock_shows_twice_or_leaves_out_counts_once(plant: Plant) -> None:
    two = SUNDAY.replace(hour=2)
    began(plant, two + timedelta(seconds=3), "passed")
    for later in (-60, -1, 0, 1, 60):  # put back by an hour, and two o'clock comes again
        assert due(plant.database, WEEKLY, SUNDAY, two + timedelta(minutes=later)) is None
    ahead = two + timedelta(days=7, minutes=59)  # put forwards over two o'clock
    assert due(plant.database, WEEKLY, SUNDAY, ahead) == two + timedelta(days=7)
    began(plant, ahead, "passed")
    for later in (0, 1, 60, 120):  # and back again
        assert due(plant.database, WEEKLY, SUNDAY, two + timedelta(days=7, minutes=later)) is None


@pytest.mark.promise(26)
def test_two_schedulers_retrain_once(plant: Plant) -> None:
    entry = Entry(recipe="bolt", cron="0 0 1 1 *")
    began(plant, datetime.now(UTC) - timedelta(days=400), "passed")
    outcomes: list[str] = []

    def once(entry: Entry, at: datetime, cause: str) -> Outcome:
        outcome = plant.job.run(replace(plant.plan, due=at))
        outcomes.append(outcome.state)
        return outcome

    stop = threading.Event()
    both = [Scheduler(plant.database, [entry], once, Promotion(plant.database)) for _ in range(2)]
    threads = [threading.Thread(target=each.run, args=(stop,)) for each in both]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 60
    while "passed" not in outcomes and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert outcomes.count("passed") == 1
    assert set(outcomes) <= {"passed", "elsewhere"}


def inspected(plant: Plant, count: int, shift: float) -> None:
    """So many images of now whose scores are those of the training images, moved."""
    calibration = plant.base.manifest.calibration["fast"].score
    usual = [calibration.calibrate(float(one)) for one in plant.base.training_scores("fast")]
    now = datetime.now(UTC)
    rows = [
        make.row(
            number,
            id=first_id_at(now)[:-4] + f"{number:04x}",
            created_at=now,
            recipe="bolt",
            model_hash=plant.base.hash,
            score=usual[number % len(usual)] + shift,
        )
        for number in range(count)
    ]
    with plant.database.write() as session:
        session.add_all(rows)


@pytest.mark.parametrize(("shift", "wanted"), [(0.0, False), (50.0, True)])
def test_drift_is_a_cause_to_retrain_where_the_schedule_says_so(
    plant: Plant, shift: float, wanted: bool
) -> None:
    weekly = Entry(recipe="bolt", cron="0 2 1 1 *", zone="UTC")
    entry = weekly.model_copy(update={"drift": OnDrift(rest="3d")})
    causes: list[str] = []

    def once(entry: Entry, at: datetime, cause: str) -> Outcome:
        causes.append(cause)
        return plant.job.run(replace(plant.plan, due=at, cause=cause))

    def look(entry: Entry) -> Outcome | None:
        return Scheduler(plant.database, [entry], once, Promotion(plant.database)).look(entry)

    began(plant, datetime.now(UTC) - timedelta(days=4), "passed")
    inspected(plant, 250, shift)
    assert look(weekly) is None  # nobody asked for it
    outcome = look(entry)
    if not wanted:
        assert outcome is None
        return
    assert outcome is not None
    assert outcome.state == "passed"
    assert causes[0].startswith("drift of score (PSI ")
    with plant.database.read() as session:
        row = runs.latest(session, "bolt")
    assert row is not None
    assert row.cause == causes[0]
    assert look(entry) is None  # it rests after a run, whatever that came to
    assert len(causes) == 1


def test_drift_of_a_recipe_that_nothing_inspects_is_no_error_of_the_scheduler(plant: Plant) -> None:
    entry = Entry(recipe="other", cron="0 2 1 1 *", zone="UTC", drift=OnDrift())
    with pytest.raises(StartupError, match="no model inspects"):
        DriftCause(plant.database).find("other", OnDrift(), datetime.now(UTC))
    scheduler = Scheduler(
        plant.database, [entry], lambda *_: pytest.fail("trained"), Promotion(plant.database)
    )
    assert scheduler.look(entry) is None


SCHEDULERS = 4


@pytest.mark.promise(26)
@pytest.mark.timeout(120)
def test_of_several_scheduler_processes_one_retrains(
    plant: Plant, record_property: Callable[[str, object], None]
) -> None:
    began(plant, datetime.now(UTC) - timedelta(days=400), "passed")
    plant.tell(steps=10, step_s=0.2)  # long enough for every one of them to look
    file = plant.folder / "schedule.toml"
    file.write_text('[[job]]\nrecipe = "bolt"\ncron = "0 0 1 1 *"\ngate_options = ["--least-golden", "0"]\n')
    url = plant.database.engine.url.render_as_string(hide_password=False)
    words = ["schedule", str(file), "--data", str(plant.folder), "--bundles", str(plant.folder / "bundles")]
    words += ["--trainer", shlex.join(plant.plan.trainer)]
    processes = [
        subprocess.Popen(command(*words), env=environment(INLIER_DATABASE_URL=url), stderr=subprocess.DEVNULL)
        for _ in range(SCHEDULERS)
    ]
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and states(plant).count("passed") < 2:
            time.sleep(0.2)
        time.sleep(3)  # for whoever would begin now
        assert [process.poll() for process in processes] == [None] * SCHEDULERS
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
    assert states(plant) == ["passed", "passed"]  # the one long ago, and one of theirs
    assert [call[0] for call in plant.calls] == ["retrain", "gate"]
    record_property("schedulers as processes", SCHEDULERS)


def states(plant: Plant) -> list[str]:
    with plant.database.read() as session:
        return [row.state for row in runs.listed(session, "bolt", limit=100)]


@pytest.mark.promise(26, control=True)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # both release one model
def test_schedulers_without_a_lease_would_be_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    together, found = threading.Barrier(2, timeout=20), plant.job._base

    def both_here(recipe: str) -> ModelRow:
        together.wait()
        return found(recipe)

    monkeypatch.setattr(Held, "_acquire", lambda self: True)
    monkeypatch.setattr(plant.job, "_base", both_here)
    now = datetime.now(UTC)
    threads = [threading.Thread(target=plant.run, kwargs={"due": now}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(states(plant)) == 2
    assert [call[0] for call in plant.calls].count("retrain") == 2


def shadowed(plant: Plant, agree: int, differ: int) -> str:
    """A candidate that passed the gate and has scored so many images; its hash."""
    candidate = str(plant.run().candidate)
    with plant.database.write() as session:
        # The inspections arrived an hour ago; so did the shadow, then.
        session.execute(update(ModelEventRow).values(created_at=datetime.now(UTC) - timedelta(hours=2)))
    for number in range(agree + differ):
        row = plant.inspect(100 + number)
        verdict = "PASS" if number < agree else "REVIEW"
        values = {"score_raw": 1.0, "score": 1.0, "review": 3.0, "reject": 5.0, "latency_ms": 1.0}
        theirs = {"active_hash": plant.base.hash, "active_score": 1.0, "active_verdict": "PASS"}
        shadow_scores.add(
            plant.database,
            ShadowScoreRow(
                inspection_id=row.id,
                model_hash=candidate,
                recipe="bolt",
                profile="fast",
                verdict=verdict,
                disagrees=verdict != "PASS",
                created_at=datetime.now(UTC),
                active_latency_ms=1.0,
                **values,
                **theirs,
            ),
        )
    return candidate


def test_a_shadow_that_agreed_long_enough_is_activated(plant: Plant) -> None:
    candidate = shadowed(plant, agree=60, differ=0)
    promotion = Promotion(plant.database)
    assert promotion.look("bolt", Policy(inspections=61, agreement=0.9)) is None  # too few
    assert promotion.look("bolt", Policy(inspections=60, agreement=0.99)) is None  # 60 of 60: at least 94 %
    assert promotion.look("bolt", Policy(inspections=60, agreement=0.9)) == candidate
    assert plant.recipe() == {"active": candidate, "shadow": None}
    with plant.database.read() as session:
        event = session.query(ModelEventRow).order_by(ModelEventRow.id.desc()).first()
        assert event is not None
        assert (event.action, event.previous_hash) == ("activated", plant.base.hash)
        assert event.why.startswith("by policy: passed the gate")
    assert promotion.look("bolt", Policy(inspections=60, agreement=0.9)) is None  # nothing shadows now


@pytest.mark.promise(26)
def test_a_shadow_that_disagrees_or_passed_no_gate_is_not(plant: Plant) -> None:
    shadowed(plant, agree=50, differ=10)
    promotion = Promotion(plant.database)
    assert promotion.look("bolt", Policy(inspections=50, agreement=0.9)) is None
    assert promotion.look("bolt", Policy(inspections=50, agreement=0.6)) is not None  # the control
    assert promotion.look("nut", Policy()) is None


def test_a_shadow_that_a_person_chose_is_left_to_persons(plant: Plant) -> None:
    shadowed(plant, agree=60, differ=0)
    with plant.database.write() as session:
        session.execute(update(TrainingRunRow).values(state="rejected"))
    assert Promotion(plant.database).look("bolt", Policy(inspections=10, agreement=0.5)) is None


def test_the_commands_say_what_is_missing(tmp_path: Path) -> None:
    def said(*words: object) -> str:
        result = CliRunner().invoke(cli, [str(word) for word in words])
        assert result.exit_code == 2, result.output
        return result.output

    (tmp_path / "data").mkdir()
    data = ("--data", tmp_path / "data")
    assert "no data folder" in said("retrain", "bolt", "--data", tmp_path / "none", "--bundles", tmp_path)
    assert "--bundles" in said("retrain", "bolt", *data)
    bundles = ("--bundles", tmp_path / "bundles")
    assert "no duration" in said("retrain", "bolt", *data, *bundles, "--since", "ever")
    assert "no model inspects recipe bolt" in said("retrain", "bolt", *data, *bundles)
    (tmp_path / "schedule.toml").write_text("")
    assert "job: Field required" in said("schedule", tmp_path / "schedule.toml", *data, *bundles)
    listed = CliRunner().invoke(cli, ["runs", *map(str, data)])
    assert listed.output == "nothing was retrained yet\n"
