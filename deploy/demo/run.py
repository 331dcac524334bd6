"""`make demo`: the whole line on made-up parts, through the same commands and calls that anyone has.
With `--bundle` and `--data` the same on a model and labelled images of your own.

Draw contaminated images, train on them, serve the model, post the test images over HTTP, and compare
the answers with the truth. Drawing and training are done once: their results are kept in `.demo/` under
a hash of the code and recipe that made them. Of Inlier it imports the
client, as a script of your own would.
"""

import argparse
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from types import FrameType

import cv2
import numpy as np
from kept import ROOT, code_files, digest, forget_others, only_one
from numpy.typing import NDArray
from served import service, tell, tool
from told import DemoError, Inspected, bar, console, print_summary, print_table, step

from service.client import Client, InlierError


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
        with Client(url, key) as client:
            results = [inspect(client, image) for image in bar(images, "inspecting")]
        print_table(results)
        print_summary(results)
        check_database(folder / "data" / "inlier.sqlite3", results)
        spent_s = time.monotonic() - started
        console.print(f"\nserved and inspected in {spent_s:.0f} s; the most suspicious part, to look at:")
        worst = max(results, key=lambda result: result.answer.score_raw or 0)
        link = tell("users", "link", "demo", "--data", folder / "data")
        console.print(f"[bold]{url}{link}&next={worst.answer.document['links']['page']}[/]")
        console.print(f"The link signs you in once; later sign in as demo with the password {password}")
        if not leave:
            wait_for_interrupt()
    if not leave:
        console.print("stopped")
    return 0


def test_images(data: Path) -> list[Path]:
    images = sorted(p for p in (data / "test").glob("*/*") if p.is_file() and p.name[0] != ".")
    if not images:
        raise DemoError(f"no images in {data}/test/good and {data}/test/<type of defect>")
    return images


def inspect(client: Client, image: Path) -> Inspected:
    """Post one image, wait for its verdict, fetch its map."""
    truth = image.parent.name
    try:
        sent = time.monotonic()
        answer = client.inspect(image, serial=f"{truth}-{image.stem}", station="demo", wait_s=30)
        round_trip_ms = 1000 * (time.monotonic() - sent)
        if answer.verdict not in ("PASS", "REVIEW", "REJECT"):
            raise DemoError(f"{image.name}: no verdict, but {answer.document}")
        heatmap = client.picture(answer, "heatmap", format="raw")
    except InlierError as error:
        raise DemoError(f"{image.name}: {error}") from None
    counts = cv2.imdecode(np.frombuffer(heatmap, np.uint8), cv2.IMREAD_UNCHANGED)
    mask = read_mask(image, truth)
    size = (mask.shape[1], mask.shape[0])
    amap = cv2.resize(counts.astype(np.float64) * answer.document["heatmap"]["scale"], size)
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
    answered = {result.answer.id: result.answer.verdict for result in results}
    if rows != answered:
        raise DemoError(
            f"the database holds {len(rows)} verdicts that differ from the {len(answered)} answers"
        )
    console.print(f"   all {len(rows)} verdicts read back from the database")


def wait_for_interrupt() -> None:
    try:
        console.print("The service stays up; Ctrl-C stops it.")
        signal.pause()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not cut the orderly stop short
        console.print("\nstopping")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
