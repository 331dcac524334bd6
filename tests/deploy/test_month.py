"""The simulated month: who is inspected when, what is counted, and a short month on drawn parts."""

import csv
import shutil
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from deploy.month.__main__ import count, write
from deploy.month.count import Row, by_day, by_span, lost
from deploy.month.line import KEPT, LEARNING
from deploy.month.plan import FIRST, GOOD, Image, Month, Post, Terms, plan, read_images, same_tile
from deploy.month.play import play
from tests.e2e.line import tool

TERMS = Terms(
    training_good=20,
    training_defective=4,
    good_a_day=6,
    defective_a_day=3,
    new_type="chip",
    new_a_day=2,
)


def pool(tiles: int = 60, exposures: int = 3) -> list[Image]:
    """Good tiles, spotted ones and chipped ones, of several exposures each; a fourth is of the test split."""
    kinds = [GOOD] * tiles + ["spot"] * (tiles // 2) + ["chip"] * (tiles // 4)
    return [
        Image(Path(f"{tile}-{exposure}.png"), kind, tile, tile % 4 == 0)
        for tile, kind in enumerate(kinds)
        for exposure in range(exposures)
    ]


@pytest.fixture(scope="module")
def month() -> Month:
    return plan(pool(), TERMS)


def test_no_tile_is_in_two_places_and_no_test_tile_in_the_first_training(month: Month) -> None:
    places = [{image.tile for image in month.training}]
    for week in range(1, 5):
        days = range(week * 7 - 6, week * 7 + 1)
        places.append({post.image.tile for day in days for post in month.posts[day]})
    assert all(not (one & other) for one, other in combinations(places, 2))
    assert not any(image.unseen for image in month.training)
    assert Counter(image.kind for image in month.training) == {GOOD: 20, "spot": 4}
    assert month.places[FIRST] == {GOOD: 20, "spot": 4}


def test_every_day_has_its_parts_and_none_twice(month: Month) -> None:
    assert list(month.posts) == list(range(1, 29))
    for day, posts in month.posts.items():
        kinds = Counter(post.image.kind for post in posts)
        assert kinds[GOOD] == 6
        assert kinds["chip"] == (2 if day >= 18 else 0)
        assert kinds["spot"] == (1 if day >= 18 else 3)
        assert len({post.image.path for post in posts}) == len({post.serial for post in posts}) == 9


def test_the_same_seed_gives_the_same_month_and_another_one_another(month: Month) -> None:
    assert plan(pool(), TERMS) == month
    assert plan(pool(), replace(TERMS, seed=1)).posts != month.posts


def test_a_week_with_too_few_images_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 200 different images"):
        plan(pool(), replace(TERMS, good_a_day=200))


def test_the_light_fades_from_its_day_on(tmp_path: Path) -> None:
    assert [TERMS.gain(day) for day in (1, 11)] == [1, 1]
    assert TERMS.gain(12) == pytest.approx(0.975)
    assert TERMS.gain(28) == pytest.approx(0.575)
    path = tmp_path / "part.png"
    cv2.imwrite(str(path), np.full((4, 6), 200, np.uint8))
    image = Image(path, GOOD, 0, False)
    body, media_type = Post("d12-000", 12, image, 0.975).body()
    assert media_type == "image/png"
    assert (cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED) == 195).all()
    assert Post("d01-000", 1, image, 1).body()[0] == path.read_bytes()


def test_exposures_of_one_tile_are_found_by_their_detail() -> None:
    rng = np.random.default_rng(0)
    tiles = rng.standard_normal((3, 900))
    details = np.repeat(tiles, 2, axis=0) + 0.3 * rng.standard_normal((6, 900))
    details /= np.linalg.norm(details, axis=1, keepdims=True)
    found = same_tile(details.astype(np.float32), 0.5)
    assert found[0] == found[1] != found[2] == found[3] != found[4] == found[5] != found[0]


def row(serial: str, recipe: str, verdict: str, kind: str = GOOD, **other: object) -> Row:
    facts = {"status": "done", "model": "aa", "brightness": 0.5, "day": 1, "tile": 0} | other
    return Row(id=f"{recipe}-{serial}", recipe=recipe, serial=serial, verdict=verdict, kind=kind, **facts)  # type: ignore[arg-type]


def said(one: Row, **other: object) -> dict[str, object]:
    answer = {"status": 200, "inspection": one.id, "serial": one.serial, "recipe": one.recipe}
    return answer | {"verdict": one.verdict, "model": one.model} | other


def test_shares_of_a_day_count_what_they_say() -> None:
    verdicts = [("PASS", GOOD), ("REJECT", GOOD), ("REVIEW", GOOD), ("PASS", GOOD), ("PASS", "spot")]
    rows = [row(str(n), LEARNING, verdict, kind) for n, (verdict, kind) in enumerate(verdicts)]
    rows += [row(str(n), KEPT, "REJECT", kind) for n, (_, kind) in enumerate(verdicts)]
    with_it, without = by_day(rows)
    assert (with_it["overkill"], with_it["overkill_of"], with_it["review_good"]) == (1, 4, 1)
    assert (with_it["escape"], with_it["escape_of"]) == (1, 1)
    assert (without["overkill"], without["escape"]) == (4, 0)
    assert with_it["overkill_low"] < 0.25 < with_it["overkill_high"]


def test_the_difference_of_the_arms_rests_on_tiles() -> None:
    rows = [
        row(str(n), arm, "REJECT" if arm == KEPT and n % 2 else "PASS", tile=tile)
        for arm in (LEARNING, KEPT)
        for n, tile in enumerate(np.repeat(range(20), 5))
    ]
    overkill, _ = by_span(rows, {"all": (1, 1)}, 0)
    assert (overkill["tiles"], overkill["of"]) == (20, 100)
    assert overkill["difference"][0] == pytest.approx(-0.5)
    assert overkill["difference"][1] < -0.5 < overkill["difference"][2] < 0
    one_tile = [replace(each, tile=0) for each in rows]
    alone, _ = by_span(one_tile, {"all": (1, 1)}, 0)
    assert alone["difference"] == [pytest.approx(-0.5)] * 3  # one witness says nothing of a spread


def test_whatever_was_lost_or_failed_is_told() -> None:
    rows = [row("1", LEARNING, "PASS"), row("2", LEARNING, "PASS", model="bb"), row("1", KEPT, "PASS")]
    sent = [said(one) for one in rows]
    assert lost(rows, sent, {"aa", "bb"}, 1) == []
    assert "changed 1 times" in lost(rows, sent, {"aa", "bb"}, 0)[0]
    assert "no known model" in lost(rows, sent, {"aa"}, 1)[0]
    assert "answered 503" in lost(rows, [said(rows[0], status=503), *sent[1:]], {"aa", "bb"}, 1)[0]
    assert "otherwise" in lost(rows, [said(rows[0], verdict="REJECT"), *sent[1:]], {"aa", "bb"}, 1)[0]
    assert any("not in the database" in one for one in lost(rows[1:], sent, {"aa", "bb"}, 0))
    failed = [replace(rows[0], status="failed"), *rows[1:]]
    assert "is failed" in lost(failed, sent, {"aa", "bb"}, 1)[0]


SHORT = Terms(
    days=7,
    good_a_day=14,
    defective_a_day=5,
    training_good=40,
    training_defective=8,
    drift_from=4,
    new_type="chip",
    new_from=6,
    new_a_day=2,
    audit_rate=1,
    retrain_after=(3,),
    bad_candidate_after=2,
    rollback_on=6,
    activate_again_on=7,
    policy_inspections=10,
    policy_agreement=0.1,
    alike=None,  # drawn parts are all alike
    options="--device cpu --steps 30",
    gate_options="--latency-limit 50 --least-golden 5",
)
RECIPE = """
[data]
size = 64
[network]
widths = [16, 24]
[training]
batch_size = 4
steps = 40
precision = "fp32"
[calibration]
max_calls = 400
min_images = 8
[profiles.paper]
kind = "chain"
t_noise = 100
t_start = 100
n_steps = 4
[profiles.fast]
kind = "one_step"
timesteps = [50, 100]
"""


def drawn_parts(out: Path) -> Path:
    """Parts of `inlier-trainer demo-data` in the folders that the month reads."""
    tool("inlier-trainer", "demo-data", out / "drawn", "--images", 240, "--size", 64, "--contamination", 0.4)
    with (out / "drawn/train_truth.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            kind = line["truth"]
            place = out / "parts" / ("train/good" if kind == GOOD else f"contamination/{kind}")
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(out / "drawn" / line["image"], place)
    shutil.copytree(out / "drawn/test", out / "parts/test")
    return out / "parts"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_short_month_loses_nothing_and_stops_what_is_bad(tmp_path: Path) -> None:
    recipe = tmp_path / "short.toml"
    recipe.write_text(RECIPE)
    month = plan(read_images(drawn_parts(tmp_path), SHORT.alike), SHORT)
    told = play(month, SHORT, recipe, tmp_path / "month", print)
    figures = count(told, month, SHORT, tmp_path / "month")
    assert figures["lost"] == []
    assert figures["inspections"] == 2 * 7 * 19
    happened = [event["what"] for event in figures["events"]]
    assert happened[0] == "stopped by the gate (a trainer gone wrong)"
    assert happened[1] == "passed the gate (every week)"
    assert happened[2].startswith("activated by")
    assert happened[3:] == ["rolled back", "activated again"]
    assert figures["changes"] == 3
    used = {line["models"] for line in figures["days"] if line["retraining"] == "without"}
    assert len(used) == 1  # the kept recipe's model never changed
    assert figures["answers"]["audits"] > 0
    write(figures, tmp_path / "month", tmp_path / "chart.png")
    assert cv2.imread(str(tmp_path / "chart.png")).shape[1] > 800
    assert "stopped by the gate" in (tmp_path / "chart.svg").read_text()
