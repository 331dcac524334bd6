"""Previews: flips, loads, escape and overkill against parts whose truth is known."""

import numpy as np
import pytest

from models.anomaly import verdict
from models.bundle import Thresholds
from service.ids import new_id
from service.recipes.sampling import drawn_for_audit
from service.recipes.suggest import from_bundle, from_reviewed, from_stored, weighted_upper
from service.recipes.whatif import VERDICTS, Stored, decide, histogram, what_if

OLD, NEW = Thresholds(review=2.0, reject=4.0), Thresholds(review=1.0, reject=3.0)


def stored(scores: list[float], states: list[str] | None = None, audit: list[bool] | None = None) -> Stored:
    values = np.array(scores)
    return Stored(
        [f"id{row}" for row in range(len(scores))],
        values,
        decide(values, OLD),
        np.array(audit or [False] * len(scores), dtype=bool),
        np.array(states or ["none"] * len(scores), dtype=str),
    )


def line(seed: int, count: int = 20_000, rate: float = 0.05, everything: bool = False) -> tuple[Stored, dict]:
    """A line with 2 % defects; REVIEW and REJECT all reviewed, PASSes where drawn; and the truth."""
    rng = np.random.default_rng(seed)
    bad = rng.random(count) < 0.02
    scores = np.where(bad, rng.normal(3.5, 1.5, count), rng.normal(0, 1, count))
    decided = decide(scores, OLD)
    audit = (decided == 0) & (rng.random(count) < rate)
    seen = (decided > 0) | audit | everything
    state = np.where(seen, np.where(bad, "defective", "good"), "none")
    after = decide(scores, NEW)
    truth = {"escape": (after[bad] == 0).mean(), "overkill": (after[~bad] == 2).mean()}
    return Stored([str(row) for row in range(count)], scores, decided, audit, state), truth


@pytest.mark.parametrize("score", [1.9999, 2.0, 3.9999, 4.0, -9.0, float("nan")])
def test_it_decides_as_the_service_does(score: float) -> None:
    assert VERDICTS[decide(np.array([score]), OLD)[0]] == verdict(score, OLD.review, OLD.reject).value


def test_flips_are_counted_by_kind_and_listed() -> None:
    found = what_if(stored([0.0, 1.5, 2.5, 3.5, 5.0, 1.2]), OLD, NEW)
    assert found.flips == {"PASS->REVIEW": 2, "REVIEW->REJECT": 1}
    assert found.flipping.tolist() == [1, 3, 5]
    assert found.passes is not None
    assert found.rejects is not None
    assert found.review_load is not None
    assert (found.passes.value, found.review_load.value, found.rejects.value) == (1 / 6, 3 / 6, 2 / 6)


def test_the_same_limits_change_nothing() -> None:
    found = what_if(stored([0.0, 1.5, 2.5]), OLD, OLD)
    assert (found.flips, found.flipping.size) == ({}, 0)


def test_escape_and_overkill_come_near_the_truth_of_a_line() -> None:
    covered = {"escape": 0, "overkill": 0}
    for seed in range(20):
        rows, truth = line(seed)
        found = what_if(rows, OLD, NEW)
        for name, expected in truth.items():
            share = getattr(found, name).share
            assert share is not None
            covered[name] += share.low <= expected <= share.high
    assert min(covered.values()) >= 17


def test_passes_that_somebody_opened_for_a_reason_do_not_count() -> None:
    rows, _ = line(1)
    # Somebody opens 100 missed defects, told by the customer: no more escapes than before.
    state = rows.state.copy()
    missed = np.flatnonzero((rows.decided == 0) & ~rows.audit)[:100]
    state[missed] = "defective"
    rigged = Stored(rows.ids, rows.scores, rows.decided, rows.audit, state)
    assert what_if(rigged, OLD, NEW).escape == what_if(rows, OLD, NEW).escape
    # The guard: had they counted, the estimate would have moved.
    audit = rows.audit.copy()
    audit[missed] = True
    counted = what_if(Stored(rows.ids, rows.scores, rows.decided, audit, state), OLD, NEW)
    assert counted.escape != what_if(rows, OLD, NEW).escape


def test_no_audits_no_escape_rate() -> None:
    rows = stored([0.0, 0.5, 2.5, 5.0], ["none", "good", "good", "defective"])
    found = what_if(rows, OLD, NEW)
    assert found.escape.share is None
    assert "random PASS audit" in (found.escape.reason or "")
    assert found.overkill.share is None


def test_nothing_defective_says_so() -> None:
    rows = stored([0.0, 0.5, 2.5, 5.0], ["good"] * 4, [True, False, False, False])
    found = what_if(rows, OLD, NEW)
    assert found.escape.share is None
    assert found.escape.reason == "no reviewed inspection of this span is defective"
    assert found.overkill.share is not None
    assert found.overkill.share.value == pytest.approx(1 / 4)


def test_strata_and_warnings() -> None:
    rows = stored(
        [0.0] * 10 + [2.5] * 4, ["good"] * 2 + ["none"] * 8 + ["unsure", "good", "none", "none"], [True] * 14
    )
    found = what_if(rows, OLD, NEW)
    assert [(n.verdict, n.inspections, n.reviewed, n.weight) for n in found.strata] == [
        ("PASS", 10, 2, 5.0),
        ("REVIEW", 4, 1, 4.0),
        ("REJECT", 0, 0, None),
    ]
    assert found.warnings == ["1 of 4 REVIEW are reviewed; the rest may differ"]


def test_an_empty_span() -> None:
    found = what_if(stored([]), OLD, NEW)
    assert (found.inspections, found.passes, found.escape.share) == (0, None, None)
    assert histogram(stored([]), 10).edges == []


def test_the_histogram_keeps_the_groups_apart() -> None:
    found = histogram(stored([0.0, 1.0, 2.0, 3.0], ["good", "defective", "unsure", "none"]), 3)
    assert found.edges == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert (found.good, found.defective, found.unreviewed) == ([1, 0, 0], [0, 1, 0], [0, 0, 2])


# --- suggestions ---


def test_the_bundles_limits_are_normal_quantiles() -> None:
    found = from_bundle(0.001, 0.01, 50)
    assert (found.review, found.reject) == pytest.approx((2.3263, 3.0902), abs=1e-3)


def test_stored_scores_give_the_quantiles_of_good_parts_in_spite_of_defects() -> None:
    """Another day: good parts have drifted to N(0.8, 1.3); a tenth is defective."""
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0.8, 1.3, 4500), rng.normal(9, 2, 500)])
    found = from_stored(stored(scores.tolist()), 0.001, 0.01)
    assert found is not None
    assert found.review == pytest.approx(0.8 + 1.3 * 2.3263, abs=0.4)
    assert found.reject == pytest.approx(0.8 + 1.3 * 3.0902, abs=0.5)
    assert found.reject_interval is not None
    assert found.reject_interval[0] < found.reject < found.reject_interval[1]
    assert found.contamination == pytest.approx(0.1, abs=0.05)
    assert from_stored(stored([0.0] * 199), 0.001, 0.01) is None


def test_reviewed_parts_give_their_own_quantiles() -> None:
    rows, _ = line(3, everything=True)
    audited = Stored(rows.ids, rows.scores, rows.decided, np.ones(len(rows), dtype=bool), rows.state)
    found = from_reviewed(audited, 0.01, 0.05)
    good = rows.scores[rows.state == "good"]
    assert found is not None
    assert (good >= found.reject).mean() == pytest.approx(0.01, abs=0.002)
    assert (good >= found.review).mean() == pytest.approx(0.05, abs=0.002)


def test_a_quantile_beyond_the_sample_is_not_offered() -> None:
    rows, _ = line(3)
    assert from_reviewed(rows, 0.0001, 0.001) is None
    assert from_reviewed(stored([0.0]), 0.1, 0.2) is None


def test_weighted_upper_keeps_the_share() -> None:
    scores, weights = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 1.0, 1.0])
    (limit,) = weighted_upper(scores, weights, np.array([0.25]))
    assert (scores >= limit).mean() == 0.25
    (limit,) = weighted_upper(scores, np.array([7.0, 1.0, 1.0, 1.0]), np.array([0.3]))
    assert 1.0 < limit <= 2.0


# --- the draw of audits ---


def test_the_draw_has_its_rate_and_is_the_same_every_time() -> None:
    ids = [new_id() for _ in range(20_000)]
    drawn = {identifier for identifier in ids if drawn_for_audit(identifier, 0.05)}
    assert len(drawn) == pytest.approx(1000, abs=130)  # four standard deviations
    assert drawn == {identifier for identifier in ids if drawn_for_audit(identifier, 0.05)}
    assert drawn <= {identifier for identifier in ids if drawn_for_audit(identifier, 0.1)}
    assert not any(drawn_for_audit(identifier, 0.0) for identifier in ids)
    assert all(drawn_for_audit(identifier, 1.0) for identifier in ids)


def test_the_smallest_rate_there_is_has_a_limit() -> None:
    found = from_bundle(5e-324, 0.01, 50)
    assert 30 < found.reject < 50
