"""Our commands as processes: what fails is told with what it said, and nothing is left running."""

from pathlib import Path

import pytest

from deploy.processes import Process, ProcessError, new_key, started, tool
from models.bundle import Bundle


def test_a_command_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"ended with status 2(.|\n)*no-such-scope"):
        tool("inlier-service", "keys", "create", "cam", "--scope", "no-such-scope", "--data", tmp_path)


def test_a_process_that_ends_before_it_is_ready_is_told_with_its_log(tmp_path: Path) -> None:
    words = ("serve", "--bundle", tmp_path / "nothing", "--data", tmp_path / "data", "--port", 0)
    with pytest.raises(ProcessError, match=r"serve does not start(.|\n)*nothing"):
        Process(tmp_path / "log", *words).start()


def test_it_answers_where_it_said_and_starts_again(tiny_bundle: Bundle, tmp_path: Path) -> None:
    words = ("serve", "--bundle", tiny_bundle.path, "--data", tmp_path / "data", "--port", 0)
    assert new_key("cam", "camera", "--data", tmp_path / "data")["Authorization"].startswith("Bearer inl_")
    with started(tmp_path / "log", *words) as process:
        first = process.address, process.pid
        assert process.stop() == 0
        assert not process.runs
        process.start()
        assert (process.address, process.pid) != first
    assert not process.runs
    assert process.log.count("ready at http") == 2
