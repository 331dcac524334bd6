"""`make demo`: the whole line on made-up parts, through the same commands and calls that anyone has.
With `--bundle` and `--data` the same on a model and labelled images of your own.

Draw contaminated images, train on them, serve the model, post the test images over HTTP, and compare
the answers with the truth. Drawing and training are done once: their results are kept in `.demo/` under
a hash of the code and recipe that made them. Imports nothing of the trainer or the service.
"""

import argparse
import fcntl
import hashlib
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import httpx
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from sklearn.metrics import roc_auc_score

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CODE = ("models/**/*.py", "trainer/**/*.py", "trainer/recipes/*.toml", "constraints.txt")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
console = Console(highlight=False, soft_wrap=True)


class DemoError(Exception):
    """Something the demo needs did not work; the message is for the person who ran it."""


@dataclass(frozen=True)
class Inspected:
    """One posted image, what the service said of it, and the truth."""

    image: Path
    truth: str  # good, or the type of the defect
    answer: dict[str, Any]
    round_trip_ms: float
    amap: NDArray[np.float64]  # the anomaly map at the size of `mask`
    mask: NDArray[np.bool_]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exit", action="store_true", help="end after the table instead of serving on")
    parser.add_argument("--work", type=Path, default=ROOT / ".demo", help="where everything is kept [.demo]")
    parser.add_argument("--images", type=int, default=240, help="training images to draw [240]")
    parser.add_argument("--steps", type=int, default=None, help="training steps [the recipe's]")
    parser.add_argument("--bundle", type=Path, help="serve this bundle instead; needs --data")
    parser.add_argument("--data", type=Path, help="post the images of DATA/test, masks in DATA/ground_truth")
    options = parser.parse_args()
    if (options.bundle is None) != (options.data is None):
        parser.error("--bundle and --data go together")
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job starts with Ctrl-C ignored
        signal.signal(number, _interrupt)
    try:
        with only_one(options.work):
            bundle, data = options.bundle, options.data
            if bundle is None:
                bundle, data = make_model(options.work, options.images, options.steps)
            return inspect_all(bundle, data, options.work / "service", options.exit)
    except DemoError as error:
        console.print(f"[bold red]demo failed:[/] {error}")
        return 1
    except KeyboardInterrupt:
        console.print("\nstopped; the next run keeps what is finished")
        return 130


def make_model(work: Path, images: int, steps: int | None) -> tuple[Path, Path]:
    """The demo's own bundle and data, made once."""
    data_key = digest([ROOT / "trainer/demo_data.py"], images)
    data = work / f"data-{data_key}"
    model = work / f"model-{digest(code_files(), data_key, steps)}"
    forget_others(work, {data.name, model.name})

    step(1, "made-up parts, 20 % of the training images defective and nobody told which", data)
    if not data.exists():
        tool("inlier-trainer", "demo-data", data, "--images", images, publish=data)
    step(2, "training on them, unlabeled", model / "bundle")
    if not (model / "bundle").exists():
        shutil.rmtree(model, ignore_errors=True)
        chosen = [] if steps is None else ["--steps", steps]
        tool("inlier-trainer", "fit", data / "train", "--recipe", "demo", "--out", model, *chosen)
    return model / "bundle", data


def inspect_all(bundle: Path, data: Path, folder: Path, leave: bool) -> int:
    """Serve the bundle, post every test image, and print what came of it."""
    started = time.monotonic()
    images = test_images(data)
    step(3, "the service, on SQLite and its in-process queue")
    with service(bundle, folder) as (url, key, password):
        console.print(f"   ready at {url}")
        step(4, "the test images, posted one by one")
        results = [inspect(url, key, image) for image in bar(images, "inspecting")]
        print_table(results)
        print_summary(results)
        check_database(folder / "data" / "inlier.sqlite3", results)
        spent_s = time.monotonic() - started
        console.print(f"\nserved and inspected in {spent_s:.0f} s; the most suspicious part, to look at:")
        worst = max(results, key=lambda result: result.answer["score"]["raw"])
        link = tell("users", "link", "demo", "--data", folder / "data")
        console.print(f"[bold]{url}{link}&next={worst.answer['links']['page']}[/]")
        console.print(f"The link signs you in once; later sign in as demo with the password {password}")
        if not leave:
            wait_for_interrupt()
    if not leave:
        console.print("stopped")
    return 0


# --- the stages -------------------------------------------------------------------------------------


def tool(name: str, *arguments: object, publish: Path | None = None) -> None:
    """Run one of our commands with its output on this terminal; with `publish`, that folder appears whole."""
    partial = publish.with_name(publish.name + ".partial") if publish else None
    if partial:
        shutil.rmtree(partial, ignore_errors=True)
    command = [str(BIN / name), *(str(partial if a == publish and partial else a) for a in arguments)]
    status = subprocess.run(command, cwd=ROOT).returncode
    if status:
        raise DemoError(f"`{' '.join(command)}` ended with status {status}")
    if partial and publish:
        partial.rename(publish)


def tell(*arguments: object, stdin: str = "") -> str:
    """The last line that a command of the service prints."""
    command = [str(BIN / "inlier-service"), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, text=True)
    if done.returncode:
        raise DemoError(f"`{' '.join(command)}` ended with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout.splitlines()[-1]


@contextmanager
def service(bundle: Path, folder: Path) -> Iterator[tuple[str, str, str]]:
    """A ready service on an empty database -> its address, a camera's key, and demo's password."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    key = tell("keys", "create", "demo-camera", "--scope", "camera", "--data", folder / "data")
    password = secrets.token_urlsafe(12)
    tell("users", "add", "demo", "--role", "admin", "--data", folder / "data", stdin=password)
    port, log = free_port(8000), folder / "service.log"
    command = [BIN / "inlier-service", "serve", "--bundle", bundle, "--data", folder / "data", "--port", port]
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches this script alone, which then stops the service in order.
        process = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(process, url, log)
            yield url, key, password
        finally:
            process.terminate()
            try:
                status = process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
    if status:
        raise DemoError(f"the service ended with status {status}{tail(log)}")


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoError(f"the service did not start (status {process.returncode}){tail(log)}")
        try:
            if httpx.get(f"{url}/healthz/ready", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise DemoError(f"the service was not ready after {START_TIMEOUT_S:.0f} s{tail(log)}")


def test_images(data: Path) -> list[Path]:
    images = sorted(p for p in (data / "test").glob("*/*") if p.is_file() and p.name[0] != ".")
    if not images:
        raise DemoError(f"no images in {data}/test/good and {data}/test/<type of defect>")
    return images


def inspect(url: str, key: str, image: Path) -> Inspected:
    """Post one image, wait for its verdict, fetch its map."""
    truth, body = image.parent.name, image.read_bytes()
    camera = {"Authorization": f"Bearer {key}"}
    headers = {**camera, "Content-Type": "application/octet-stream", "Prefer": "wait=30"}
    try:
        sent = time.monotonic()
        response = httpx.post(
            f"{url}/v1/inspections",
            content=body,
            params={"serial": f"{truth}-{image.stem}", "station": "demo"},
            headers=headers,
            timeout=60,
        )
        round_trip_ms = 1000 * (time.monotonic() - sent)
        answer = response.json()
        if response.status_code != 200 or answer.get("verdict") not in ("PASS", "REVIEW", "REJECT"):
            raise DemoError(f"{image.name}: no verdict, but {response.status_code} {response.text}")
        heatmap = httpx.get(
            f"{url}/v1/inspections/{answer['id']}/heatmap?format=raw", headers=camera, timeout=60
        )
        heatmap.raise_for_status()
    except httpx.HTTPError as error:
        raise DemoError(f"{image.name}: {error!r}") from None
    counts = cv2.imdecode(np.frombuffer(heatmap.content, np.uint8), cv2.IMREAD_UNCHANGED)
    mask = read_mask(image, truth)
    size = (mask.shape[1], mask.shape[0])
    amap = cv2.resize(counts.astype(np.float64) * answer["heatmap"]["scale"], size)
    return Inspected(image, truth, answer, round_trip_ms, amap, mask)


def read_mask(image: Path, truth: str) -> NDArray[np.bool_]:
    """The pixels of the defect; for a good part none, at the size of its image."""
    if truth == "good":
        return np.zeros(cv2.imread(str(image), cv2.IMREAD_GRAYSCALE).shape, dtype=np.bool_)
    path = image.parents[2] / "ground_truth" / truth / f"{image.stem}_mask.png"
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise DemoError(f"{truth}/{image.name} has no readable mask at {path}")
    return np.asarray(mask > 127)


def check_database(file: Path, results: list[Inspected]) -> None:
    """What the service answered is what it stored: read the rows themselves and compare."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        rows = dict(database.execute("SELECT id, verdict FROM inspections WHERE status = 'done'").fetchall())
    answered = {result.answer["id"]: result.answer["verdict"] for result in results}
    if rows != answered:
        raise DemoError(
            f"the database holds {len(rows)} verdicts that differ from the {len(answered)} answers"
        )
    console.print(f"   all {len(rows)} verdicts read back from the database")


# --- what is printed --------------------------------------------------------------------------------


def print_table(results: list[Inspected]) -> None:
    colour = {"PASS": "green", "REVIEW": "yellow", "REJECT": "red"}
    width = max(len(f"{result.truth}/{result.image.name}") for result in results) + 2
    console.print(f"\n   {'image':<{width}}{'verdict':<9}{'score':>8}{'ms':>8}   truth", style="bold")
    for result in sorted(results, key=lambda r: -r.answer["score"]["calibrated"]):
        verdict = result.answer["verdict"]
        name = f"{result.truth}/{result.image.name}"
        console.print(
            f"   {name:<{width}}[{colour[verdict]}]{verdict:<9}[/]"
            f"{result.answer['score']['calibrated']:>8.2f}{result.round_trip_ms:>8.0f}   {result.truth}"
        )


def print_summary(results: list[Inspected]) -> None:
    defective = np.array([result.truth != "good" for result in results])
    scores = np.array([result.answer["score"]["raw"] for result in results])
    pixels = np.concatenate([result.mask.ravel() for result in results])
    values = np.concatenate([result.amap.ravel() for result in results])
    console.print()
    for name, wanted in (("good", ~defective), ("defective", defective)):
        verdicts = Counter(r.answer["verdict"] for r, w in zip(results, wanted, strict=True) if w)
        told = ", ".join(f"{verdicts[v]} {v}" for v in ("PASS", "REVIEW", "REJECT"))
        console.print(f"   {int(wanted.sum())} {name} parts: {told}")
    median = float(np.median([result.round_trip_ms for result in results]))
    console.print(f"   median round trip {median:.0f} ms, over HTTP and with everything stored")
    console.print(f"   image AUROC {roc_auc_score(defective, scores):.3f}")
    console.print(f"   pixel AUROC {roc_auc_score(pixels, values):.3f}")


def step(number: int, what: str, result: Path | None = None) -> None:
    kept = " (kept from before)" if result is not None and result.exists() else ""
    console.print(f"[bold]{number}/4[/] {what}[dim]{kept}[/]")


def bar(images: list[Path], what: str) -> Iterable[Path]:
    return track(images, f"   {what}", console=console) if console.is_terminal else images


def tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-15:]
    return "; the end of its log:\n" + "\n".join(lines) if lines else "; its log is empty"


# --- the surroundings -------------------------------------------------------------------------------


def code_files() -> list[Path]:
    return sorted(path for pattern in CODE for path in ROOT.glob(pattern))


def digest(files: Iterable[Path], *extra: object) -> str:
    """A short hash over files and values: changes whenever a kept result would be stale."""
    total = hashlib.sha256(repr(extra).encode())
    for file in files:
        total.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return total.hexdigest()[:12]


def forget_others(work: Path, current: set[str]) -> None:
    """Remove data and models of earlier versions of the code."""
    for folder in [*work.glob("data-*"), *work.glob("model-*")]:
        if folder.name not in current:
            shutil.rmtree(folder)


@contextmanager
def only_one(work: Path) -> Iterator[None]:
    """Keep two demos from sharing one folder."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(f"another demo is running in {work}; stop it first") from None
        yield


def free_port(wanted: int) -> int:
    """`wanted` if nobody listens there, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError("no free TCP port")


def wait_for_interrupt() -> None:
    console.print("The service stays up; Ctrl-C stops it.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not cut the orderly stop short
        console.print("\nstopping")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
