"""The figures of a study, against other people's code and by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from service.msa.agreement import agreement
from service.msa.study import Result
from service.recipes.intervals import wilson

VERDICTS = ("PASS", "REVIEW", "REJECT")


def result(part: int, trial: int, reference: str, verdict: str, score: float | None = 1.0) -> Result:
    return Result(part * 10 + trial, f"P{part:02}", trial, reference, verdict, score, 3.0, 5.0, "", "m", "")


def study(verdicts: dict[str, list[str]]) -> list[Result]:
    """`good...`/`bad...` -> verdicts by trial."""
    return [
        result(part, trial, "good" if name.startswith("good") else "defective", verdict)
        for part, (name, said) in enumerate(verdicts.items())
        for trial, verdict in enumerate(said, 1)
    ]


def test_a_study_by_hand() -> None:
    found = agreement(
        study(
            {
                "good1": ["PASS", "PASS", "PASS"],
                "good2": ["PASS", "REVIEW", "PASS"],
                "bad1": ["REJECT", "REVIEW", "REJECT"],  # never accepted: consistent
                "bad2": ["PASS", "PASS", "PASS"],
            }
        )
    )
    assert found.effectiveness.share.value == 0.5
    assert (found.miss.share.value, found.miss.share.sample) == (0.5, 6)
    assert (found.miss.share.low, found.miss.share.high) == wilson(1, 2)  # two parts, not six trials
    assert found.false_alarm.share.value == pytest.approx(1 / 6)
    assert found.consistency.value == 0.75
    assert found.review.value == pytest.approx(2 / 12)
    assert [each.rating for each in (found.effectiveness, found.miss, found.false_alarm)] == [
        "unacceptable"
    ] * 3
    assert found.rating == "unacceptable"


def test_kappa_with_the_references_is_sklearns() -> None:
    rng = np.random.default_rng(4)
    results = [
        result(part, trial, "good" if part % 3 else "defective", str(rng.choice(VERDICTS, p=(0.6, 0.2, 0.2))))
        for part in range(40)
        for trial in (1, 2, 3)
    ]
    expected = cohen_kappa_score(
        [each.verdict == "PASS" for each in results], [each.reference == "good" for each in results]
    )
    assert agreement(results).kappa_reference == pytest.approx(expected)


def test_kappa_of_the_trials_is_fleiss() -> None:
    # Four subjects, three raters, two categories; P = (1 + 1 + 1/3 + 1/3)/4, Pe = (7/12)^2 + (5/12)^2.
    found = agreement(
        study(
            {
                "good1": ["PASS", "PASS", "PASS"],
                "bad1": ["REJECT", "REJECT", "REJECT"],
                "good2": ["PASS", "PASS", "REJECT"],
                "good3": ["PASS", "PASS", "REVIEW"],
            }
        )
    )
    agreed, chance = (2 + 2 / 3) / 4, (7**2 + 5**2) / 144
    assert found.kappa_trials == pytest.approx((agreed - chance) / (1 - chance))


def test_perfect_agreement_still_has_an_interval() -> None:
    found = agreement(
        study({f"good{n}": ["PASS"] * 2 for n in range(10)} | {f"bad{n}": ["REJECT"] * 2 for n in range(10)})
    )
    assert (found.kappa_reference, found.kappa_trials) == (1.0, 1.0)
    assert (found.rating, found.miss.share.value) == ("acceptable", 0.0)
    assert found.miss.share.high == pytest.approx(wilson(0, 10)[1])


def test_everything_alike_has_no_kappa() -> None:
    found = agreement(study({"good1": ["PASS", "PASS"], "bad1": ["PASS", "PASS"]}))
    assert found.kappa_trials is None


def test_errors_are_not_accepted_and_scores_are_pooled() -> None:
    results = [
        result(0, 1, "good", "PASS", 2.9),
        result(0, 2, "good", "ERROR", None),
        result(1, 1, "defective", "REJECT", 9.0),
        result(1, 2, "defective", "REJECT", 9.2),
        result(2, 1, "good", "PASS", 2.8),
        result(2, 2, "good", "PASS", 3.0),
    ]
    found = agreement(results)
    assert (found.failed, found.false_alarm.share.value) == (1, 0.25)
    assert found.score_sd == pytest.approx(math.sqrt((0.02 + 0.02) / 2))
    assert found.near == 2  # both good parts lie at the limit 3
