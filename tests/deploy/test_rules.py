"""Prometheus' rules: valid, each alert tried and explained, and of metrics that exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.prometheus import FOLDER, copy, promtool
from tests.test_docs import anchors, section, table

DOCS = Path(__file__).parents[2] / "docs"
SCENARIOS = sorted((FOLDER / "tests").glob("*.yml"))


def rules(kind: str) -> list[dict[str, Any]]:
    """All rules that have a `kind`: alert or record."""
    files = [yaml.safe_load(path.read_text()) for path in sorted((FOLDER / "rules").glob("*.yml"))]
    found = [rule for file in files for group in file["groups"] for rule in group["rules"]]
    return [rule for rule in found if kind in rule]


ALERTS = {rule["alert"]: rule for rule in rules("alert")}


def used_metrics(expression: str) -> set[str]:
    """Metrics of ours in an expression, histograms by their own name."""
    names = set(re.findall(r"\binlier_\w+", expression))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    checked = promtool("check", "config", copy(tmp_path) / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.promise(25)
@pytest.mark.parametrize("scenarios", SCENARIOS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(scenarios: Path) -> None:
    tested = promtool("test", "rules", scenarios)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.promise(25, control=True)
def test_a_wrong_threshold_is_noticed(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    alerts = folder / "rules/alerts.yml"
    assert "> 600" in alerts.read_text()
    alerts.write_text(alerts.read_text().replace("> 600", "> 60000"))
    tested = promtool("test", "rules", folder / "tests/queue.yml")
    assert tested.returncode == 1
    assert "InlierMessagesWait" in tested.stdout + tested.stderr


@pytest.mark.promise(25)
def test_every_alert_is_seen_calm_and_firing() -> None:
    fired = set()
    for path in SCENARIOS:
        for scenario in yaml.safe_load(path.read_text())["tests"]:
            moments = scenario["promql_expr_test"]
            assert [] in [moment["exp_samples"] for moment in moments], scenario["name"]
            labels = [sample["labels"] for moment in moments for sample in moment["exp_samples"]]
            fired |= {name for label in labels for name in re.findall(r'alertname="(\w+)"', label)}
    assert fired == set(ALERTS)


def test_every_alert_leads_to_its_paragraph() -> None:
    runbook = (DOCS / "runbook.md").read_text()
    assert {name for name in re.findall(r"^### (\w+)", runbook, re.M)} == set(ALERTS)
    for name, alert in ALERTS.items():
        page, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert page == "docs/runbook.md"
        assert anchor in anchors(runbook)
        assert anchor == name.lower()
        assert len(section(runbook, name).split()) > 15, name
        assert alert["labels"]["severity"] in ("page", "warn")
        assert {"summary", "description"} < set(alert["annotations"])


@pytest.mark.promise(25)
def test_rules_use_metrics_that_exist() -> None:
    known = {row[0] for row in table((DOCS / "metrics.md").read_text())}
    recorded = {rule["record"] for rule in rules("record")}
    for rule in rules("expr"):
        assert used_metrics(rule["expr"]) <= known, rule["expr"]
        assert set(re.findall(r"\binlier:[\w:]+", rule["expr"])) <= recorded, rule["expr"]
    everything = " ".join(rule["expr"] for rule in rules("expr"))
    assert {name for name in recorded if name not in everything} == set()
