"""The commands for keys and users, and that no secret is found where it should not be."""

import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from models.bundle import Bundle
from service.access.tokens import csrf_token
from service.cli import cli
from tests.service.conftest import png, texture
from tests.service.test_server import command, environment

RECEIVERS = ("--sink-allow", "127.0.0.1")
PASSWORD = "never to be seen anywhere"


def run(data: Path, *arguments: str, stdin: str = "", status: int = 0) -> list[str]:
    done: Result = CliRunner().invoke(cli, [*arguments, "--data", str(data)], input=stdin)
    assert done.exit_code == status, done.output
    return done.output.splitlines()


def test_keys_on_the_command_line(tmp_path: Path) -> None:
    made = run(tmp_path, "keys", "create", "cam1", "--scope", "camera", "--expires", "90d")
    assert re.fullmatch(r"inl_[\w-]{43}", made[-1])
    assert "has a valid key" in run(tmp_path, "keys", "create", "cam1", "--scope", "camera", status=2)[-1]
    second = run(tmp_path, "keys", "rotate", "cam1", "--overlap", "7d")
    assert second[-1] != made[-1]
    assert "two valid keys" in run(tmp_path, "keys", "rotate", "cam1", status=2)[-1]
    listed = run(tmp_path, "keys", "list")
    assert [line.split("\t")[:2] for line in listed] == [["cam1", "camera"]] * 2
    assert all("valid until" in line for line in listed[:1])
    assert not any(key in line for key in (made[-1], second[-1]) for line in listed)
    run(tmp_path, "keys", "revoke", "cam1", "--prefix", made[-1][:10])
    assert ["revoked" in line for line in run(tmp_path, "keys", "list")] == [True, False]
    run(tmp_path, "keys", "revoke", "cam1")
    assert "no valid key" in run(tmp_path, "keys", "rotate", "cam1", status=2)[-1]
    for bad in ("90", "1w", "2020-01-01", "0d"):
        run(tmp_path, "keys", "create", "x", "--scope", "camera", "--expires", bad, status=2)
    for name in ("first-start", "a b", ""):
        run(tmp_path, "keys", "create", name, "--scope", "camera", status=2)
    assert "no key named" in run(tmp_path, "keys", "revoke", "none", status=2)[-1]


def test_users_on_the_command_line(tmp_path: Path) -> None:
    run(tmp_path, "users", "add", "Eva", "--role", "operator", stdin=f"{PASSWORD}\n")
    assert "12" in run(tmp_path, "users", "add", "otto", "--role", "admin", stdin="short\n", status=2)[-1]
    assert "already" in run(tmp_path, "users", "add", "eva", "--role", "admin", stdin=PASSWORD, status=2)[-1]
    run(tmp_path, "users", "set-role", "eva", "--role", "admin")
    run(tmp_path, "users", "set-password", "eva", stdin=f"{PASSWORD} again\n")
    run(tmp_path, "users", "disable", "eva")
    assert run(tmp_path, "users", "list") == ["eva\tadmin\tdisabled\tnever signed in"]
    run(tmp_path, "users", "disable", "eva", "--undo")
    assert run(tmp_path, "users", "link", "eva")[-1].startswith("/signin?link=")
    assert "no user" in run(tmp_path, "users", "link", "otto", status=2)[-1]
    with sqlite3.connect(tmp_path / "inlier.sqlite3") as database:
        (stored,) = database.execute("SELECT password_hash FROM users").fetchone()
    database.close()
    assert stored.startswith("$argon2id$")


@pytest.mark.timeout(120)
def test_no_secret_is_in_the_log_the_arguments_or_the_database(bundle: Bundle, tmp_path: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    arguments = ["serve", "--bundle", str(bundle.path), "--data", str(data), "--port", "0", "--threads", "1"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(*arguments, "--log-level", "debug", "--log-format", "json", *RECEIVERS),
            stdout=output,
            stderr=output,
            env=environment(),
        )
    try:
        while (ready := re.search(r"ready at (http://\S+)", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
        token = log.read_text().split("24 hours:\n")[1].split()[0]
        secrets = use_all_of_them(ready[1], token)
        listed = Path(f"/proc/{process.pid}/cmdline").read_bytes() if sys.platform == "linux" else b""
    finally:
        process.terminate()
        process.wait(30)
    written = log.read_text().replace(token, "", 1)  # once, at the first start, and never again
    stored = b"".join(file.read_bytes() for file in data.glob("inlier.sqlite3*"))
    assert "POST" in written
    assert b"cam1" in stored
    for name, secret in {**secrets, "token": token}.items():
        assert secret not in written, name
        assert secret.encode() not in listed, name
        if name != "webhook":  # messages are signed with it
            assert secret.encode() not in stored, name


def a_webhook(url: str, token: str) -> str:
    """The secret of one whose receiver does not answer."""
    sent = {"name": "mes", "url": "http://127.0.0.1:9/hook"}
    headers = {"Authorization": f"Bearer {token}"}
    made = httpx.post(f"{url}/v1/webhooks", json=sent, headers=headers, timeout=30)
    assert made.status_code == 201, made.text
    return str(made.json()["secret"])


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "variables",
    [
        {"INLIER_DATABASE_URL": "postgresql://inlier:pa55-w0rd@127.0.0.1:9/inlier"},
        {"INLIER_REDIS_URL": "redis://inlier:pa55-w0rd@127.0.0.1:9/0", "INLIER_WORKERS_INSIDE": "0"},
    ],
    ids=["database", "redis"],
)
def test_passwords_of_servers_that_do_not_answer_are_not_told(
    bundle: Bundle, tmp_path: Path, variables: dict[str, str]
) -> None:
    arguments = ["serve", "--bundle", str(bundle.path), "--data", str(tmp_path / "data"), "--port", "0"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(*arguments, "--log-level", "debug"),
            stdout=output,
            stderr=output,
            env=environment(**variables),
        )
        try:
            until = time.monotonic() + 60
            while time.monotonic() < until and process.poll() is None and "ready" not in log.read_text():
                time.sleep(0.1)
            time.sleep(0.5)
        finally:
            process.kill()
            process.wait()
    written = log.read_text()
    assert re.search(r"database|redis|Redis", written), written  # it speaks of it,
    assert "pa55-w0rd" not in written  # but does not say that


def use_all_of_them(url: str, token: str) -> dict[str, str]:
    """A day with every kind of secret in it, also in wrong places."""
    first = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, timeout=30) as client:
        key = client.post("/v1/keys", json={"name": "cam1", "scope": "camera"}, headers=first).json()["key"]
        image = {"X-API-Key": key, "Content-Type": "image/png", "Prefer": "wait=20"}
        assert client.post("/v1/inspections", content=png(texture(1)), headers=image).status_code == 200
        webhook = a_webhook(url, token)
        sent = {"name": "eva", "role": "admin", "password": PASSWORD}
        assert client.post("/v1/users", json=sent, headers=first).status_code == 201
        for wrong in ({"name": PASSWORD, "password": "x"}, {"name": "eva", "password": f"{PASSWORD}!"}):
            assert client.post("/v1/session", json=wrong).status_code == 401
        assert client.post("/v1/session", json={"name": 1, "password": [PASSWORD]}).status_code == 422
        client.get("/v1/inspections", params={"cursor": key}, headers=image)
        client.get("/inspections", headers={"Authorization": f"Basic {key}"})
        assert client.post("/v1/session", json={"name": "eva", "password": PASSWORD}).status_code == 201
        session = client.cookies["inlier"]
        csrf = client.get("/v1/session").json()["csrf"]
        assert csrf == csrf_token(session)
        rotated = client.post("/v1/keys/cam1/rotate", json={}, headers={"X-CSRF-Token": csrf}).json()["key"]
    return {
        "key": key,
        "second key": rotated,
        "password": PASSWORD,
        "session": session,
        "csrf": csrf,
        "webhook": webhook,
    }
