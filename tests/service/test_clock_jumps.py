"""What decides by the system's time, when that jumps; whole processes are in `faults/test_clock_jumps.py`."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service import ids
from service.access.principal import Principal
from service.db.repository import leases, outbox, users
from service.db.session import Database
from service.db.tables import UserRow
from service.errors import InspectionError
from service.review.decisions import Reviews
from tests.service.clock import WallClock
from tests.service.conftest import PixelEngine, flat
from tests.service.db import rows as make
from tests.service.outbox.conftest import add_sink, announce

HOUR_S, LEASE_S = 3600.0, 60.0
JUMPS = pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["forwards", "back"])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    monkeypatch.setattr(ids, "_last", (0, 0))
    return WallClock(monkeypatch)


class Processes:
    """Several on one database; each remembers what it has seen of leases, unless it is `forgetful`."""

    def __init__(self, url: str, clock: WallClock, *, forgetful: bool = False) -> None:
        self._url, self._clock, self._forgetful = url, clock, forgetful
        self._made: dict[str, Database] = {}

    def of(self, name: str) -> Database:
        new = name not in self._made
        found = self._made.setdefault(name, Database(self._url)) if new else self._made[name]
        if new or self._forgetful:
            found._info[leases.SIGHTS] = leases.Sights(self._clock.monotonic)
        return found

    def take(self, name: str) -> bool:
        """Whether the process gets the lease, or keeps it."""
        with self.of(name).write() as session:
            return leases.acquire(session, "work", name, LEASE_S)

    def close(self) -> None:
        for database in self._made.values():
            database.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path / 'x.sqlite3'}"
    database = Database(found)
    database.migrate()
    database.close()
    return found


@pytest.fixture
def processes(url: str, clock: WallClock) -> Iterator[Processes]:
    made = Processes(url, clock)
    yield made
    made.close()


def stays(processes: Processes, clock: WallClock, jump_s: float) -> None:
    """A holder that lives keeps its lease, whatever the clock does."""
    assert processes.take("a")
    assert not processes.take("b")
    clock.passes(LEASE_S / 3)
    assert processes.take("a")
    clock.jump(jump_s)
    for _ in range(6):
        assert not processes.take("b")
        clock.passes(LEASE_S / 3)
        assert processes.take("a")


def goes(processes: Processes, clock: WallClock, jump_s: float, *, seen: bool) -> None:
    """A dead holder's lease comes to another in time, also to one that has not seen it before the jump."""
    assert processes.take("a")
    assert not seen or not processes.take("b")
    clock.jump(jump_s)
    if seen:
        clock.passes(LEASE_S / 2)
        assert not processes.take("b")
    else:
        processes.take("b")
        clock.passes(LEASE_S * 1.5)
    clock.passes(LEASE_S / 2 + 1)
    assert processes.take("b")


@pytest.mark.promise(26)
@JUMPS
def test_a_lease_is_kept_by_who_renews_it(processes: Processes, clock: WallClock, jump_s: float) -> None:
    stays(processes, clock, jump_s)


@pytest.mark.promise(26)
@JUMPS
@pytest.mark.parametrize("seen", [True, False])
def test_a_dead_holders_lease_goes_on(
    processes: Processes, clock: WallClock, jump_s: float, seen: bool
) -> None:
    goes(processes, clock, jump_s, seen=seen)


@pytest.mark.promise(26, control=True)
def test_leases_by_the_wall_clock_would_be_noticed(url: str, clock: WallClock) -> None:
    forgetful = Processes(url, clock, forgetful=True)
    with pytest.raises(AssertionError):
        stays(forgetful, clock, HOUR_S)
    forgetful.take("a")
    with pytest.raises(AssertionError):
        goes(forgetful, clock, -HOUR_S, seen=True)
    forgetful.close()


def test_a_sinks_rest_is_no_longer_than_it_was_meant(processes: Processes, clock: WallClock) -> None:
    database = processes.of("a")
    sink = add_sink(database, "https://a.example/")
    announce(database)
    with database.write() as session:
        assert outbox.take(session, sink.id, "a", limit=1, lease_s=LEASE_S) is not None
        outbox.rest(session, sink.id, "a", clock.now() + timedelta(seconds=30))
    assert waiting(database) == []
    clock.jump(-HOUR_S)
    assert waiting(database) == []
    clock.passes(31)
    assert waiting(database) == [sink.id]


def waiting(database: Database) -> list[str]:
    with database.read() as session:
        return outbox.waiting(session, LEASE_S)


def test_messages_do_not_wait_until_the_clock_has_caught_up(processes: Processes, clock: WallClock) -> None:
    database = processes.of("a")
    sink = add_sink(database, "https://a.example/")
    announce(database)
    clock.jump(-HOUR_S)
    with database.write() as session:
        taken = outbox.take(session, sink.id, "a", limit=9, lease_s=LEASE_S)
        assert taken is not None
        (message,) = taken[1]
        again = outbox.Result(message.id, "refused", next_at=clock.now() + timedelta(seconds=10))
        outbox.settle(session, [again])
        outbox.release(session, sink.id, "a")
    assert waiting(database) == []  # a message that was refused rests
    clock.jump(-HOUR_S)
    assert waiting(database) == [sink.id]


def test_nobody_is_locked_out_for_longer_than_is_said(clock: WallClock) -> None:
    row = UserRow(failed_sign_ins=20)
    users.note_failure(row, clock.now())
    assert users.locked(row, clock.now())
    clock.jump(-HOUR_S)
    assert not users.locked(row, clock.now())
    clock.jump(2 * HOUR_S)
    assert not users.locked(row, clock.now())


def test_an_inspection_is_claimed_for_no_longer_than_is_said(processes: Processes, clock: WallClock) -> None:
    database = processes.of("a")
    with database.write() as session:
        make.add_model(session)
        make.store(session, [make.row(1, wanted=True, margin=0.1, audit=False)])
    reviews, (ann, bob) = Reviews(database), (Principal(name, "operator", "user") for name in ("ann", "bob"))
    reviews.claim(ann, make.identifier(1), force=False)
    with pytest.raises(InspectionError, match="ann"):
        reviews.claim(bob, make.identifier(1), force=False)
    clock.jump(-HOUR_S)
    assert reviews.claim(bob, make.identifier(1), force=False).claimed_by == "bob"


def test_ids_stay_in_order_in_this_process_and_the_next(
    url: str, clock: WallClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [ids.new_id()]
    for jump_s in (-HOUR_S, HOUR_S / 2, -HOUR_S):
        clock.jump(jump_s)
        made += [ids.new_id() for _ in range(3)]
    assert made == sorted(set(made))
    database = Database(url)
    with database.write() as session:
        make.add_model(session)
        make.store(session, [make.row(1, id=made[-1])])
    monkeypatch.setattr(ids, "_last", (0, 0))
    assert ids.new_id() < made[-1]  # what a process would do that knows nothing of the others
    database.migrate()  # as every process begins
    assert ids.new_id() > made[-1]
    clock.jump(-30 * HOUR_S)
    monkeypatch.setattr(ids, "_last", (0, 0))
    database.migrate()
    assert ids.new_id() < made[-1]  # that clock was wrong by more than is followed
    database.close()


@JUMPS
def test_a_deadline_counts_from_acceptance(
    client: TestClient, engine: PixelEngine, clock: WallClock, jump_s: float
) -> None:
    png = {"Content-Type": "image/png"}
    client.post("/v1/inspections", content=flat(1), headers={**png, "Prefer": "wait=30"})
    engine.go.clear()
    client.post("/v1/inspections", content=flat(8), headers=png)
    clock.jump(jump_s)
    headers = {**png, "Prefer": "wait=30"}
    body = client.post("/v1/inspections?deadline_ms=300", content=flat(2), headers=headers).json()
    assert body["verdict"] == "EXPIRED"
    patient = client.post("/v1/inspections?deadline_ms=60000", content=flat(3), headers=png).json()
    engine.go.set()
    address = f"{patient['links']['self']}"
    for _ in range(200):
        if client.get(address).json()["verdict"] is not None:
            break
    assert client.get(address).json()["verdict"] == "PASS"
