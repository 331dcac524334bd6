"""The month itself: a first training, then day after day of traffic, answers and retraining."""

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any

import httpx

from deploy.month.line import KEPT, LEARNING, Line, MonthError, scheduling, serving
from deploy.month.people import Operators
from deploy.month.plan import Month, Post, Terms
from deploy.processes import tool

Say = Callable[[str], None]
ARMS = (LEARNING, KEPT)
PACE_S = 0.8
"""Between two parts while a shadow is there: it scores in pauses only, and the scheduler looks every 30 s."""
REJECTED = 1
MOST_LOOKED_AT = 100


@dataclass(frozen=True)
class Sent:
    """One POST and what was answered."""

    serial: str
    recipe: str
    status: int  # of HTTP; 0: no answer
    inspection: str | None
    verdict: str | None
    model: str | None


@dataclass(frozen=True)
class Event:
    """Something that was done, or happened, on a day."""

    day: float  # with the share of the day's parts that had passed
    what: str
    detail: str = ""
    model: str | None = None


class Playing:
    """A month on a line that is running."""

    def __init__(self, line: Line, month: Month, terms: Terms, folder: Path, recipe: Path, say: Say) -> None:
        self.line, self.month, self.terms, self.folder, self.recipe = line, month, terms, folder, recipe
        self.sent: list[Sent] = []
        self.events: list[Event] = []
        self.truth = {post.serial: post.image.kind for posts in month.posts.values() for post in posts}
        self.operators = Operators(line, self.truth, terms.wrong_answers, terms.seed)
        self._say = say
        self._http = httpx.Client(base_url=line.url, headers=line.camera, timeout=120)
        self._senders, self._hands = ThreadPoolExecutor(len(ARMS)), ThreadPoolExecutor(1)
        self._began = datetime.now(UTC).replace(hour=6, minute=0, second=0, microsecond=0)
        self._began -= timedelta(days=terms.days)
        self._deciding = Lock()  # a person's decision is not noted a second time as the policy's
        self._shadow: str | None = None
        self._shadow_since = 0
        self._newest: str | None = None  # what the last activation brought

    def play(self) -> None:
        with self._http, self._senders, self._hands:
            self._play()

    def _play(self) -> None:
        for day, posts in self.month.posts.items():
            began = time.monotonic()
            self._day(day, posts, self._changes(day, len(posts)))
            self.operators.answer_all()
            self._say(
                f"day {day}: {len(posts)} parts, {self.operators.answers} answers so far, "
                f"{time.monotonic() - began:.0f} s"
            )
            if day == self.terms.bad_candidate_after:
                self._bad_candidate(day)
            if day in self.terms.retrain_after:
                self._retrain(day)

    # --- traffic ---

    def _day(self, day: int, posts: list[Post], changes: Mapping[int, Callable[[float], None]]) -> None:
        """Both arms see every part; what is changed meanwhile is changed while parts pass."""
        changing: list[Future[None]] = []
        for number, post in enumerate(posts):
            at = day + number / len(posts)
            if number in changes:
                changing.append(self._hands.submit(changes[number], at))
            body, media_type = post.body()
            sending = [self._senders.submit(self._send, post, body, media_type, arm) for arm in ARMS]
            self.sent += [one.result() for one in sending]
            if self._shadow is not None:
                time.sleep(PACE_S)
                self._look(at)
        for change in changing:
            change.result()

    def _send(self, post: Post, body: bytes, media_type: str, recipe: str) -> Sent:
        """Once, without a second attempt: what fails is counted."""
        said = {
            "recipe": recipe,
            "serial": post.serial,
            "lot": f"day-{post.day:02d}",
            "station": "cam1",
            "captured_at": (self._began + timedelta(days=post.day - 1)).isoformat(),
        }
        headers = {"Content-Type": media_type, "Prefer": "wait=60"}
        try:
            answer = self._http.post("/v1/inspections", content=body, params=said, headers=headers)
        except httpx.TransportError:
            return Sent(post.serial, recipe, 0, None, None, None)
        found = answer.json() if answer.is_success else {}
        model = (found.get("model") or {}).get("hash")
        return Sent(post.serial, recipe, answer.status_code, found.get("id"), found.get("verdict"), model)

    # --- what is done on the line ---

    def _changes(self, day: int, parts: int) -> dict[int, Callable[[float], None]]:
        """What people do during a day, by the number of parts that have passed."""
        middle = parts // 2
        if self._shadow is not None and self._shadow_since < day - 1:
            return {middle: self._decide_by_person}
        if day == self.terms.rollback_on and self._newest is not None:
            return {middle: self._roll_back}
        if day == self.terms.activate_again_on and self._newest is not None:
            return {middle: self._activate_again}
        return {}

    def _look(self, at: float) -> None:
        """Whether the policy has promoted the shadow."""
        with self._deciding:
            if self._shadow is not None and self.line.active(LEARNING) == self._shadow:
                self._activated(at, "activated by policy")

    def _activated(self, at: float, what: str) -> None:
        why = str(self.line.get("/v1/models/events", recipe=LEARNING, limit=1)["items"][0]["why"])
        self._note(Event(at, what, why, self._shadow))
        self._newest, self._shadow = self._shadow, None

    def _decide_by_person(self, at: float) -> None:
        """The policy did not, for a day: a person looks at the parts on which the two differ, and decides."""
        with self._deciding:
            if (shadow := self._shadow) is None or self.line.shadow() != shadow:
                return
            found = self.line.get(f"/v1/models/{shadow}/shadow", recipe=LEARNING, limit=MOST_LOOKED_AT)
            better, worse = self.operators.compare(found["items"])
            why = f"of {len(found['items'])} parts on which they differ it is nearer to what was seen on "
            why += f"{better}, farther on {worse}; "
            why += f"they agree on {found['agreement']['value'] or 0:.1%} of {found['scored']}"
            if better > worse:
                self.line.change(f"/v1/models/{shadow}/activate", {"recipe": LEARNING, "why": why})
                self._activated(at, "activated by a person")
            else:
                self.line.end_shadow(shadow, why)
                self._shadow = None
                self._note(Event(at, "refused by a person", why, shadow))

    def _roll_back(self, at: float) -> None:
        self.line.change("/v1/models/rollback", {"recipe": LEARNING, "why": "a doubt about the new model"})
        self._note(Event(at, "rolled back", model=self.line.active(LEARNING)))

    def _activate_again(self, at: float) -> None:
        body = {"recipe": LEARNING, "why": "the doubt was none"}
        self.line.change(f"/v1/models/{self._newest}/activate", body)
        self._note(Event(at, "activated again", model=self._newest))

    def _retrain(self, day: int) -> None:
        trainer = str(Path(sys.executable).parent / "inlier-trainer")
        if (shadow := self._run(day, trainer, "every week", self.terms.options)) is not None:
            self._shadow, self._shadow_since = shadow, day

    def _bad_candidate(self, day: int) -> None:
        """The same job with a trainer that has gone wrong; the gate has to stop what comes of it."""
        before = self.line.shadow(), self.line.active(LEARNING)
        trainer = shlex.join([sys.executable, "-m", "deploy.month.wrong", str(self.recipe.absolute())])
        if (shadow := self._run(day, trainer, "a trainer gone wrong", "")) is not None:
            self.line.end_shadow(shadow, "it was trained on dark pictures out of focus")
            self._note(Event(day + 0.99, "the gate let it pass; ended by a person", model=shadow))
        if (self.line.shadow(), self.line.active(LEARNING)) != before:
            raise MonthError("a bad candidate changed what inspects or shadows")

    def _run(self, day: int, trainer: str, cause: str, options: str) -> str | None:
        """`inlier-service retrain` -> the hash of the new shadow, or None when the gate refused it."""
        began = time.monotonic()
        words = ("--since", "30d", "--data", self.line.data, "--bundles", self.line.bundles)
        words += ("--limit", self.terms.retrain_images)
        extra = ("--option", options, "--gate-option", self.terms.gate_options)
        ran = tool(
            *("inlier-service", "retrain", LEARNING, *words, "--trainer", trainer, "--cause", cause, *extra),
            may_end=(0, REJECTED),
        )
        spent_s = time.monotonic() - began
        folder = max((self.line.data / "retraining").iterdir(), key=lambda path: path.stat().st_mtime)
        for name in ("gate.json", "gate.html", "gate.log", "train.log"):
            if (folder / name).exists():
                shutil.copy(folder / name, self.folder / f"day-{day:02d}-{name}")
        gate = json.loads((folder / "gate.json").read_text())
        failed = [f"{one['title']}: {one['why']}" for one in gate["criteria"] if one["passed"] is False]
        stopped = ran.returncode == REJECTED
        what = ("stopped by the gate" if stopped else "passed the gate") + f" ({cause})"
        detail = "; ".join([*failed, f"{gate['images']}, {spent_s:.0f} s"])
        model = None if stopped else self.line.shadow()
        self._note(Event(day + 0.99, what, detail, model))
        return model

    def _note(self, event: Event) -> None:
        self.events.append(event)
        self._say(f"  {event.day:.2f} {event.what}: {event.detail}")


def first_bundle(month: Month, recipe: Path, folder: Path) -> Path:
    """`inlier-trainer fit` on images as a line would have collected them: unlabelled, some defective."""
    images = folder / "first-images"
    images.mkdir(parents=True)
    for number, image in enumerate(month.training):
        shutil.copy(image.path, images / f"{number:04d}{image.path.suffix}")
    words = ("--recipe", recipe, "--out", folder / "first", "--device", "cpu", "--name", "month")
    tool("inlier-trainer", "fit", images, *words)
    return folder / "first" / "bundle"


def play(month: Month, terms: Terms, recipe: Path, folder: Path, say: Say) -> dict[str, Any]:
    """Play the month in `folder`, which is emptied before -> what was sent and what happened."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    bundle = first_bundle(month, recipe, folder)
    say(f"first training: {time.monotonic() - began:.0f} s on {len(month.training)} images")
    with (
        serving(bundle, folder, terms.audit_rate) as line,
        scheduling(line, folder, terms.policy_inspections, terms.policy_agreement),
    ):
        playing = Playing(line, month, terms, folder, recipe, say)
        playing.play()
        life = line.get("/v1/models/events", recipe=LEARNING, limit=500)["items"]
    operators = playing.operators
    answers = {"all": operators.answers, "wrong": operators.wrong, "audits": operators.audits}
    return {
        "terms": asdict(terms),
        "places": {str(place): dict(counts) for place, counts in month.places.items()},
        "parts": {
            post.serial: {
                "day": day,
                "kind": post.image.kind,
                "tile": post.image.tile,
                "unseen": post.image.unseen,
            }
            for day, posts in month.posts.items()
            for post in posts
        },
        "sent": [asdict(one) for one in playing.sent],
        "events": [asdict(event) for event in playing.events],
        "model_events": life,
        "answers": answers,
        "seconds": time.monotonic() - began,
    }
