"""The source, the marks and the page agree; what a run is said to have shown is what it showed."""

from collections import Counter
from pathlib import Path

import pytest

from tests.promises.plugin import Collector, Seen
from tests.promises.source import Mark, marks, promises
from tests.promises.table import PAGE, Result, between, read_results, render, result_of, state

PROMISES, MARKS = promises(), marks()


def test_all_are_there_in_order() -> None:
    assert [promise.number for promise in PROMISES] == list(range(1, 27))


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: str(promise.number))
def test_each_has_a_test_or_says_that_it_has_none(promise) -> None:
    mine = [mark for mark in MARKS if mark.number == promise.number]
    if state(promise, mine) == "none":
        assert promise.missing
        assert (promise.load, promise.faults, mine) == ("", "", [])
    else:
        assert promise.load
        assert promise.faults


def test_marks_are_of_promises_and_once() -> None:
    assert {mark.number for mark in MARKS} <= {promise.number for promise in PROMISES}
    assert [mark for mark, count in Counter(MARKS).items() if count > 1] == []


def test_the_page_is_as_the_source_and_the_marks_say() -> None:
    page = PAGE.read_text()
    assert between(page) == render(PROMISES, MARKS, read_results(page)), (
        "make promises ARGS='--tables --write'"
    )


def test_results_are_read_back_as_written() -> None:
    results = {1: Result("3 | 4 passed", "2026-01-02", "abc1234")}
    page = render(PROMISES, MARKS, results)
    read = read_results(f"<!-- promises: made by `make promises` -->\n{page}\n<!-- end of promises -->")
    assert read[1] == results[1]
    assert set(read.values()) == {results[1], Result()}


SAMPLE = """
import pytest

@pytest.mark.promise(3)
@pytest.mark.parametrize("value", [1, 2])
def test_holds(value, record_property):
    record_property("posts", 50)

@pytest.mark.promise(3, control=True)
def test_control():
    pass

@pytest.mark.promise(4)
def test_broken():
    assert False

@pytest.mark.promise(5)
def test_skipped():
    pytest.skip("no such program")

@pytest.mark.promise(6)
@pytest.fixture
def unused():
    pass

def test_other():
    pass
"""


def test_a_run_is_told_as_it_went(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    file = "tests/test_sample.py"
    collector = run(tmp_path, SAMPLE.replace("@pytest.mark.promise(6)\n", ""))
    found = marks(tmp_path)
    assert [(mark.number, mark.control) for mark in found] == [(3, False), (3, True), (4, False), (5, False)]

    def told(number: int) -> Result:
        return result_of(collector.seen[number], [m for m in found if m.number == number], "today", "abc")

    assert told(3) == Result("1 test, 1 control passed; 0 s; posts 50", "today", "abc")
    assert told(4).says == "FAILED: test_broken"
    assert told(5) == Result()
    assert set(collector.seen) == {3, 4, 5}
    half = Seen(passed={f"{file}::test_holds"})
    assert "1 not run" in result_of(half, found[:2], "", "").says
    assert result_of(half, [Mark(3, False, "tests/other.py", "test_holds")], "", "") == Result()


def run(folder: Path, text: str) -> Collector:
    """The collector after pytest ran this file as below a repository's tests/."""
    (folder / "tests").mkdir()
    (folder / "tests" / "test_sample.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = promise: of a promise\n")
    collector = Collector()
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(folder)]
    pytest.main([*arguments, "-c", str(folder / "pytest.ini"), str(folder / "tests")], plugins=[collector])
    return collector
