"""A private PostgreSQL: empty, on a free port, gone afterwards."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, create_engine, make_url, text

from deploy.processes import free_port

_OPTIONS = "-c fsync=off -c full_page_writes=off -c max_connections=60 -c shared_buffers=64MB"


class Missing(RuntimeError):
    """A program that is not installed here; the message says how to get it."""


class PrivatePostgres:
    """Databases on one server; `url` is of one that always exists."""

    def __init__(self, url: str, control: "_Control | None" = None) -> None:
        self.url = url
        self._control = control

    @property
    def controlled(self) -> bool:
        """Whether the server is ours to stop."""
        return self._control is not None

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database, dropped at the end."""
        name = f"inlier_{secrets.token_hex(6)}"
        admin = create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        try:
            with admin.connect() as connection:
                connection.execute(text(f"CREATE DATABASE {name}"))
            yield make_url(self.url).set(database=name).render_as_string(hide_password=False)
            with admin.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        finally:
            admin.dispose()

    def stop(self) -> None:
        """As a crash would: connections break."""
        assert self._control is not None, "this server is not ours to stop"
        self._control("stop", "-m", "immediate")

    def start(self) -> None:
        assert self._control is not None
        self._control.start()


class _Control:
    """pg_ctl on a data folder, as a user who is not root."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            known = {entry.pw_name for entry in pwd.getpwall()}
            user = "postgres" if "postgres" in known else "nobody"
            entry = pwd.getpwnam(user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        self.port = free_port()
        self._run("initdb", "-D", "data", "-U", "inlier", "-A", "trust", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 {_OPTIONS}"
        self("start", "-l", "log", "-o", options)

    def __call__(self, verb: str, *arguments: str) -> None:
        self._run("pg_ctl", verb, "-D", "data", "-w", "-t", "60", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        # Output to a file: the server inherits it, and a pipe would never end.
        with (self._folder / "output").open("ab") as output:
            done = subprocess.run(command, cwd=self._folder, stdout=output, stderr=output, **self._as)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {(self._folder / 'output').read_text()[-2000:]}")


def _programs() -> Path | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which("initdb")
    if not folders and found is not None:
        folders = [Path(found).resolve().parent]
    return folders[-1] if folders else None


@contextmanager
def private_postgres() -> Iterator[PrivatePostgres]:
    """A server of our own; Missing where PostgreSQL is not installed."""
    programs = _programs()
    if programs is None:
        raise Missing("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    # Not below a folder that only root may enter.
    folder = Path(tempfile.mkdtemp(prefix="inlier-postgres-"))
    try:
        control = _Control(programs, folder)
        control.start()
        try:
            url = f"postgresql+psycopg://inlier@127.0.0.1:{control.port}/postgres"
            yield PrivatePostgres(url, control)
        finally:
            control("stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
