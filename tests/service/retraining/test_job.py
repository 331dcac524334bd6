"""Runs of the job that retrains, on both databases: every end, what is left behind, and who may run."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select, update

from models.bundle import load_bundle
from service.db.repository import marks, runs
from service.db.tables import (
    AuditRow,
    InspectionRow,
    ModelEventRow,
    ModelRow,
    OutboxRow,
    SinkRow,
    TrainingMarkRow,
)
from service.errors import StartupError
from service.ids import new_id
from service.retraining import child
from service.retraining.confirmed import lacking
from service.retraining.job import Outcome
from service.retraining.lease import Held
from tests.service.retraining.conftest import Plant
from trainer.marks import read_marks


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def listen(plant: Plant) -> None:
    """Somebody wants to know how trainings end."""
    with plant.database.write() as session:
        events = [f"training.{name}" for name in ("passed", "rejected", "failed")]
        made = {"created_by": "test", "created_at": datetime.now(UTC), "secret": "", "events": events}
        session.add(SinkRow(id=new_id(), kind="webhook", name="plant", address="https://a.example", **made))


def told(plant: Plant) -> list[str]:
    with plant.database.read() as session:
        return list(session.scalars(select(OutboxRow.event).order_by(OutboxRow.id)))


def test_a_candidate_that_passes_shadows_its_recipe_and_nothing_else_changes(plant: Plant) -> None:
    listen(plant)
    outcome = plant.run()
    assert outcome.state == "passed"
    train, gate = plant.calls
    assert train[:1] + train[2:4] == ["retrain", "--base", str(plant.base.path)]
    assert gate[0] == "gate"
    assert gate[2:4] == ["--against", str(plant.base.path)]
    assert plant.recipe() == {"active": plant.base.hash, "shadow": outcome.candidate}
    (published,) = plant.plan.bundles.iterdir()
    assert load_bundle(published).hash == outcome.candidate
    assert told(plant) == ["training.passed"]
    with plant.database.read() as session:
        row = runs.latest(session, "bolt")
        assert row is not None
        assert (row.state, row.step, row.base_hash) == ("passed", "done", plant.base.hash)
        assert row.finished_at is not None
        noted = list(session.scalars(select(AuditRow.action).order_by(AuditRow.id)))
        assert noted[0] == "training.start"
        assert noted[-1] == "training.passed"
        event = session.scalars(select(ModelEventRow).where(ModelEventRow.action == "shadowed")).one()
        assert row.id in event.why


@pytest.mark.promise(26)
def test_the_gate_refuses_and_its_reason_is_kept(plant: Plant) -> None:
    listen(plant)
    plant.tell(gate="misses 2 escapes, the active model 1")
    outcome = plant.run()
    assert (outcome.state, outcome.detail) == ("rejected", "misses 2 escapes, the active model 1")
    assert plant.recipe() == {"active": plant.base.hash, "shadow": None}
    assert not plant.plan.bundles.exists()
    assert told(plant) == ["training.rejected"]


def test_a_failed_training_says_so_and_leaves_everything(plant: Plant) -> None:
    listen(plant)
    plant.tell(fail="no space left on device")
    outcome = plant.run()
    assert outcome.state == "failed"
    assert "no space left on device" in outcome.detail
    assert "train.log" in outcome.detail
    assert plant.recipe() == {"active": plant.base.hash, "shadow": None}
    assert told(plant) == ["training.failed"]
    again = plant.run()  # a failed run is not taken up: it would fail again
    assert "--resume" not in plant.calls[-1]
    assert again.run != outcome.run


def test_nothing_is_trained_for_a_gate_that_nothing_can_pass(plant: Plant) -> None:
    listen(plant)
    outcome = plant.run(gate_options=())
    assert outcome.state == "rejected"
    assert "asks for 20 confirmed parts, good and defective, and has 0 good and 0" in outcome.detail
    assert "--gate-option '--least-golden 0'" in outcome.detail
    assert plant.calls == []
    assert told(plant) == ["training.rejected"]


@pytest.mark.parametrize(
    ("images", "options", "enough"),
    [
        ({"golden/good": 15, "golden/defective": 5}, (), True),
        ({"golden/good": 15, "golden/defective": 4}, (), False),
        ({"golden/good": 20, "golden/defective": 0}, (), False),
        ({"golden/good": 20, "golden/defective": 0, "escapes": 1}, (), True),
        ({"golden/good": 0, "golden/defective": 20}, (), False),
        ({"golden/good": 3, "golden/defective": 2}, ("--least-golden", "5"), True),
        ({"golden/good": 3, "golden/defective": 1}, ("--recent", "9", "--least-golden=5"), False),
        ({}, ("--least-golden", "0"), True),
        ({}, ("--golden", "parts"), True),
        ({}, ("--golden=parts",), True),
        ({}, ("--least-golden",), True),  # the gate says what is wrong with that
    ],
)
def test_which_confirmed_parts_are_enough(
    images: dict[str, int], options: tuple[str, ...], enough: bool
) -> None:
    assert (lacking(images, options) is None) == enough


def mark(plant: Plant, model: str, rank: int, digest: str | None, said: str) -> None:
    row = TrainingMarkRow(model_hash=model, rank=rank, image=f"train/{rank}.png", sha256=digest, score=1.0)
    with plant.database.write() as session:
        marks.put(session, row, said, "ann")


def test_marks_of_the_audits_go_with_the_training(plant: Plant) -> None:
    """Of every model; the last one of an image stands; those of other images, or without a hash, are left."""
    with plant.database.read() as session:
        digests = sorted(filter(None, session.scalars(select(InspectionRow.image_sha256))))
    first, second, _ = digests
    earlier, active = "e" * 64, plant.base.hash
    at = datetime.now(UTC)
    with plant.database.write() as session:
        known = {"name": "tiny", "version": "0", "path": "", "state": "retired", "registered_at": at}
        session.add(ModelRow(hash=earlier, **known))
    mark(plant, earlier, 1, first, "defective")
    mark(plant, earlier, 2, second, "fine")
    mark(plant, earlier, 3, "0" * 64, "defective")
    mark(plant, earlier, 4, None, "defective")
    mark(plant, active, 1, second, "defective")
    mark(plant, active, 2, first, "fine")
    assert plant.run().state == "passed"
    train = plant.calls[0]
    file = Path(train[train.index("--marks") + 1])
    with file.open(newline="") as lines:
        found = {row["sha256"]: row["mark"] for row in csv.DictReader(lines)}
    assert found == {first: "fine", second: "defective"}
    assert read_marks(file).by_hash == found


def test_without_marks_no_word_of_them(plant: Plant) -> None:
    mark(plant, plant.base.hash, 1, "0" * 64, "defective")
    assert plant.run().state == "passed"
    assert "--marks" not in plant.calls[0]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"trainer": ("/no/such/trainer",)}, "cannot be run"),
        ({"since": timedelta(seconds=1)}, "no inspection to train on"),
    ],
)
def test_what_cannot_be_done(plant: Plant, changed: dict[str, object], said: str) -> None:
    outcome = plant.run(**changed)
    assert outcome.state == "failed"
    assert said in outcome.detail


def test_a_recipe_without_a_model_has_nothing_to_improve(plant: Plant) -> None:
    with pytest.raises(StartupError, match="no model inspects recipe nut"):
        plant.run(recipe="nut")


@pytest.mark.promise(26)
def test_one_process_at_a_time_and_nothing_twice_of_what_was_due(plant: Plant) -> None:
    due = datetime.now(UTC)
    with Held(plant.database, "bolt") as other:
        assert other.taken
        assert plant.run().state == "elsewhere"
        assert plant.calls == []
    assert plant.run(due=due).state == "passed"
    count = len(plant.calls)
    assert plant.run(due=due).state == "elsewhere"
    assert len(plant.calls) == count
    later = datetime.now(UTC) + timedelta(seconds=1)
    plant.tell(version="third")
    assert plant.run(due=later).state == "passed"


def test_a_lease_runs_out_with_its_process_and_a_lost_one_is_noticed(plant: Plant) -> None:
    first = Held(plant.database, "bolt", seconds=0.4)
    assert first._acquire()  # and is never renewed: its process was killed
    wait_for(lambda: Held(plant.database, "bolt")._acquire(), 10)
    with Held(plant.database, "nut", seconds=1.5) as held:
        assert not held.lost.wait(2.0)  # it is kept alive
        with plant.database.write() as session:
            from service.db.repository import leases

            leases.release(session, held._name, held._holder)
            assert leases.acquire(session, held._name, "another", 60)
        assert held.lost.wait(5)


def test_a_stopped_run_is_taken_up_in_its_folder(plant: Plant) -> None:
    plant.tell(steps=600, step_s=0.1)
    found: list[Outcome] = []
    thread = threading.Thread(target=lambda: found.append(plant.run()))
    thread.start()
    wait_for(lambda: bool(list(plant.plan.work.glob("*/fit/progress"))))
    plant.job.stop.set()
    thread.join(60)
    assert found[0].state == "interrupted"
    plant.job.stop.clear()
    plant.tell()
    taken_up = plant.run()
    assert taken_up.state == "passed"
    assert plant.calls[1][-1] == "--resume"
    assert plant.calls[1][1:6] == plant.calls[0][1:6]  # the same export, base and folder
    assert len(list(plant.plan.work.iterdir())) == 1
    with plant.database.read() as session:
        assert [row.state for row in runs.listed(session)] == ["passed", "interrupted"]


def test_a_killed_run_is_noted_and_taken_up(plant: Plant, tmp_path: Path) -> None:
    plant.tell(steps=600, step_s=0.1)
    script = (
        "import sys; from datetime import timedelta; from pathlib import Path\n"
        "from service.blobs import DiskBlobs; from service.db.session import Database\n"
        "from service.retraining.job import Job, Plan\n"
        "url, folder, *trainer = sys.argv[1:]\n"
        "f = Path(folder)\n"
        "Job(Database(url), DiskBlobs(f / 'blobs')).run(Plan('bolt', timedelta(days=30), f / 'work',"
        " f / 'bundles', tuple(trainer), gate_options=('--least-golden', '0')))\n"
    )
    url = plant.database.engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen([sys.executable, "-c", script, url, str(tmp_path), *plant.plan.trainer])
    wait_for(lambda: bool(list(plant.plan.work.glob("*/fit/progress"))))
    process.send_signal(signal.SIGKILL)
    process.wait()
    with plant.database.write() as session:  # as if its lease had run out
        from service.db.tables import LeaseRow

        for row in session.scalars(select(LeaseRow)):
            session.delete(row)
    plant.tell()
    assert plant.run().state == "passed"
    assert "--resume" in [word for call in plant.calls for word in call]
    with plant.database.read() as session:
        assert [row.state for row in runs.listed(session)] == ["passed", "interrupted"]
    subprocess.run(["pkill", "-f", str(plant.control)], check=False)  # what the killed process left


def progress(plant: Plant) -> str:
    """How far the training has come; nothing where it has not begun."""
    return "".join(path.read_text() for path in plant.plan.work.glob("*/fit/progress"))


def stands_still(plant: Plant) -> bool:
    """Whether a process of the training is stopped."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(plant.control).encode() in (process / "cmdline").read_bytes():
                found.append((process / "status").read_text())
    return any("State:\tT" in status for status in found)


def test_the_training_stands_still_while_images_wait(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "Quiet", partial(child.Quiet, calm_s=0.5, look_s=0.1))
    plant.tell(steps=20, step_s=0.1)
    waiting = [plant.inspect(10 + number, status="queued", verdict=None, score=None) for number in range(2)]
    backfill = {"priority": "backfill", "status": "queued", "verdict": None, "score": None}
    plant.inspect(20, **backfill)  # has time, as the training has
    found: list[Outcome] = []
    thread = threading.Thread(target=lambda: found.append(plant.run(most_waiting=1)))
    thread.start()
    wait_for(lambda: stands_still(plant))
    before = progress(plant)
    time.sleep(1)
    assert progress(plant) == before != "20"
    with plant.database.write() as session:
        ended = update(InspectionRow).where(InspectionRow.id.in_([row.id for row in waiting]))
        session.execute(ended.values(status="done", verdict="PASS"))
    thread.join(60)
    assert found[0].state == "passed"


def test_old_folders_are_removed_and_rows_stay(plant: Plant) -> None:
    for number in range(4):
        plant.tell(version=f"v{number}")
        assert plant.run(keep=2).state == "passed"
    assert len(list(plant.plan.work.iterdir())) == 2
    with plant.database.read() as session:
        assert len(runs.listed(session)) == 4


def test_the_computation_has_the_lowest_priority_and_few_threads(plant: Plant, tmp_path: Path) -> None:
    code = "import os; print(os.nice(0), os.environ['OMP_NUM_THREADS'])"
    quiet = child.Quiet(lambda: False, look_s=0.05)
    log = tmp_path / "log"
    ended = child.run([sys.executable, "-c", code], log, threads=1, quiet=quiet, stop=threading.Event())
    assert (ended.status, ended.said, ended.paused_s) == (0, "19 1", 0.0)
    assert os.nice(0) < 19


def test_nothing_of_a_stopped_computation_is_left(tmp_path: Path) -> None:
    stop, log = threading.Event(), tmp_path / "log"
    code = (
        "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code]

    def busy() -> bool:  # asked again and again
        if log.read_text().endswith("\n"):
            stop.set()
        return False

    with pytest.raises(child.Interrupted):
        child.run(command, log, threads=1, quiet=child.Quiet(busy, look_s=0.05), stop=stop)
    grandchild = int(json.loads(child.last_line(log)))
    wait_for(lambda: _is_gone(grandchild), 10)


def _is_gone(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True
