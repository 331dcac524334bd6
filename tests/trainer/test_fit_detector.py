"""`fit` with a detector, from images to a measured bundle."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Bundle
from models.evidence import DETECTOR_EVIDENCE
from trainer.evaluate import evaluate
from trainer.fit import FitResult
from trainer.protocol import Settings
from trainer.testset import Sources


def test_the_bundle_says_how_its_evidence_is_trusted(tiny_detector_fit: FitResult) -> None:
    manifest = tiny_detector_fit.bundle.manifest
    trust = manifest.metrics["trust"]
    assert set(trust) == {"residual", *DETECTOR_EVIDENCE}
    assert sum(found["weight"] for found in trust.values()) == pytest.approx(1, abs=1e-3)
    weights = {
        name: {kind: e.weight for kind, e in calibration.evidence.items()}
        for name, calibration in manifest.calibration.items()
    }
    assert weights["paper"] == weights["fast"]  # measured once, by the cheaper profile
    assert 0 <= tiny_detector_fit.parity < 1e-3
    assert "trust in defect" in tiny_detector_fit.bundle.file("report.html").read_text()


def test_the_detector_is_kept_beside_the_run(tiny_detector_fit: FitResult) -> None:
    out = tiny_detector_fit.bundle.path.parent
    assert len((out / "detector" / "loss.csv").read_text().split()) == 1 + 4
    assert len(list((out / "detector").glob("*.safetensors"))) == 1
    assert json.loads((out / "recipe.json").read_text())["detector"]["steps"] == 4


def test_it_is_evaluated_like_any_bundle(
    tiny_detector_bundle: Bundle, labelled_folder: Callable[..., Path]
) -> None:
    result = evaluate(tiny_detector_bundle, Sources(labelled_folder()), ["fast"], Settings(batch_size=4))
    found = result.profiles["fast"]
    assert (found.overall.images, found.good.images) == (8, 6)
    for metric in (found.overall.image_auroc, found.overall.pixel_auroc, found.overall.pixel_aupro):
        assert metric is not None
        assert 0 <= metric <= 1
    assert all(np.isfinite(image.raw_score) for image in found.images)
