"""Nothing is lost, nothing is sent twice at once, and order is kept, whatever the receiver does."""

import asyncio
import threading
from contextlib import AsyncExitStack

import pytest

from service.db.repository import outbox
from service.db.session import Database
from service.metrics import Metrics
from service.outbox.dispatcher import Dispatcher
from service.outbox.senders import Senders
from service.settings import Settings
from tests.service.outbox.conftest import add_sink, announce, run, statuses, until
from tests.service.receiver import Receiver


def dispatcher(
    database: Database, settings: Settings, stack: AsyncExitStack, metrics: Metrics | None = None
) -> Dispatcher:
    """A running one, closed with the stack."""
    made = Dispatcher(database, settings, metrics or Metrics(), Senders(settings))
    stack.push_async_callback(made.close)
    made.start()
    return made


def test_messages_are_written_for_matching_sinks_only(database: Database) -> None:
    every = add_sink(database, "https://a.example/")
    other_recipe = add_sink(database, "https://b.example/", recipe="nut")
    reviews = add_sink(database, "https://c.example/", recipe="bolt", events=["review.created"])
    off = add_sink(database, "https://d.example/", enabled=False)
    announce(database)
    announce(database, event="review.created")
    counts = [len(statuses(database, sink)) for sink in (every, other_recipe, reviews, off)]
    assert counts == [2, 0, 1, 0]


def test_a_rolled_back_change_tells_nobody(database: Database) -> None:
    sink = add_sink(database, "https://a.example/")
    try:
        with database.write() as session:
            assert outbox.announce(session, "review.created", "bolt", {}) == 1
            raise RuntimeError
    except RuntimeError:
        assert statuses(database, sink) == []


def test_delivered_in_order_signed_and_at_once(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    sink = add_sink(database, receiver.url)
    metrics = Metrics()

    async def work() -> None:
        async with AsyncExitStack() as stack:
            dispatcher(database, settings, stack, metrics)
            await asyncio.to_thread(announce, database, 40)
            await until(lambda: statuses(database, sink) == ["delivered"] * 40)

    run(work)
    assert receiver.ids == sorted(receiver.ids)
    assert receiver.most_at_once == 1
    assert (
        metrics.registry.get_sample_value(
            "inlier_deliveries_total", {"kind": "webhook", "outcome": "delivered"}
        )
        == 40
    )


def test_nothing_is_lost_or_given_up_while_a_sink_is_down(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    sink = add_sink(database, receiver.url)
    receiver.stop()
    metrics = Metrics()

    def unreachable() -> float:
        labels = {"kind": "webhook", "outcome": "unreachable"}
        return metrics.registry.get_sample_value("inlier_deliveries_total", labels) or 0

    async def work() -> None:
        async with AsyncExitStack() as stack:
            dispatcher(database, settings, stack, metrics)
            await asyncio.to_thread(announce, database, 20)
            # More often than the attempts that would give a refused message up.
            await until(lambda: unreachable() > settings.sink_attempts)
            assert statuses(database, sink) == ["pending"] * 20
            receiver.start()
            await until(lambda: statuses(database, sink) == ["delivered"] * 20)

    run(work)
    assert receiver.ids == sorted(receiver.ids)
    assert len(set(receiver.ids)) == 20


def test_a_refused_message_is_set_aside_given_up_and_can_be_sent_again(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    sink = add_sink(database, receiver.url)
    announce(database)
    poison = statuses_and_ids(database, sink.id)[0][1]
    receiver.status = 422

    async def work() -> None:
        async with AsyncExitStack() as stack:
            dispatcher(database, settings, stack)
            await until(lambda: statuses(database, sink) == ["dead"])
            receiver.status = 204
            await asyncio.to_thread(announce, database, 3)
            await until(lambda: statuses(database, sink) == ["dead", *["delivered"] * 3])

            def again() -> None:
                with database.write() as session:
                    assert outbox.requeue(session, sink.id) == 1

            await asyncio.to_thread(again)
            await until(lambda: statuses(database, sink) == ["delivered"] * 4)

    run(work)
    assert receiver.ids.count(poison) == settings.sink_attempts + 1


def statuses_and_ids(database: Database, sink_id: str) -> list[tuple[str, str]]:
    with database.read() as session:
        rows = outbox.deliveries(session, sink_id, status=None, limit=1000, before=None)
    return [(row.status, row.id) for row in reversed(rows)]


def test_one_bad_message_does_not_hold_up_the_others(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    sink = add_sink(database, receiver.url)
    announce(database, 5)
    receiver.answers = [500]

    async def work() -> None:
        async with AsyncExitStack() as stack:
            dispatcher(database, settings, stack)
            await until(lambda: statuses(database, sink) == ["delivered"] * 5)

    run(work)
    first = statuses_and_ids(database, sink.id)[0][1]
    assert receiver.ids[0] == first
    assert receiver.ids.count(first) == 2
    assert len(receiver.ids) == 6


@pytest.mark.promise(3)
def test_two_processes_never_send_at_once_and_never_twice(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    sinks = [add_sink(database, receiver.url) for _ in range(2)]
    receiver.delay_s = 0.005
    writers = [threading.Thread(target=announce, args=(database, 30)) for _ in range(2)]

    async def work() -> None:
        async with AsyncExitStack() as stack:
            for _ in range(3):
                dispatcher(database, settings, stack)
            for writer in writers:
                writer.start()
            for sink in sinks:
                await until(lambda sink=sink: statuses(database, sink) == ["delivered"] * 60)

    run(work)
    assert len(receiver.ids) == len(set(receiver.ids)) == 120
    assert receiver.most_at_once <= 2  # one per sink


def test_what_a_killed_process_left_is_sent_by_the_next(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    """The lease of a process that died runs out; until then nobody else sends."""
    sink = add_sink(database, receiver.url)
    announce(database, 3)
    with database.write() as session:
        taken = outbox.take(session, sink.id, "dead process", limit=16, lease_s=2.0)
    assert taken is not None

    async def work() -> None:
        async with AsyncExitStack() as stack:
            dispatcher(database, settings, stack)
            await asyncio.sleep(0.3)
            assert receiver.received == []
            await until(lambda: statuses(database, sink) == ["delivered"] * 3)

    run(work)


def test_stopping_finishes_the_message_on_its_way_and_keeps_the_rest(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    sink = add_sink(database, receiver.url)
    announce(database, 10)
    receiver.delay_s = 0.2

    async def work() -> None:
        async with AsyncExitStack() as stack:
            dispatcher(database, settings, stack)
            await until(lambda: len(receiver.received) >= 2)

    run(work)
    said = statuses(database, sink)
    assert said.count("delivered") == len(receiver.received) < 10
    assert said.count("pending") == 10 - len(receiver.received)


def test_old_deliveries_are_forgotten_and_dead_ones_are_not(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    sink = add_sink(database, receiver.url)
    announce(database, 3)
    ids = [identifier for _, identifier in statuses_and_ids(database, sink.id)]
    with database.write() as session:
        outbox.settle(session, [outbox.Result(ids[0]), outbox.Result(ids[1], "no")])
    gone = settings.model_copy(update={"sink_keep_days": 0.0})
    receiver.status = 503

    async def work() -> None:
        async with AsyncExitStack() as stack:
            dispatcher(database, gone, stack)
            await until(lambda: statuses(database, sink) == ["dead", "pending"])

    run(work)


def test_depth_and_age_are_measured(database: Database, settings: Settings, receiver: Receiver) -> None:
    add_sink(database, receiver.url)
    announce(database, 4)
    receiver.status = 503
    metrics = Metrics()

    async def work() -> None:
        async with AsyncExitStack() as stack:
            dispatcher(database, settings, stack, metrics)
            await until(lambda: metrics.registry.get_sample_value("inlier_outbox_depth") == 4)

    run(work)
    age_s = metrics.registry.get_sample_value("inlier_outbox_oldest_seconds")
    assert age_s is not None
    assert 0 < age_s < 60
