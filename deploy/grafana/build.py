"""The dashboards: `python3 deploy/grafana/build.py` writes NAME.toml as Grafana's JSON to dashboards/.

A panel is a title, its queries, and a unit; what else Grafana wants written is here.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).parent
Json = dict[str, Any]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLOURS = {  # of verdicts, as on the operator's page: told apart also by those who see no red and green
    "PASS": "#3a9d6e",
    "REVIEW": "#d9a521",
    "REJECT": "#c4314b",
    "ERROR": "#7d5ba6",
    "EXPIRED": "#8a8f98",
}
LIMITS = {"amber": "#d9a521", "red": "#c4314b"}
_WIDTH = 24  # columns of Grafana's grid


@dataclass(frozen=True)
class Panel:
    """One `[[panels]]`; `width` is in twenty-fourths of the page."""

    title: str
    query: str = ""
    legend: str = ""
    queries: Sequence[tuple[str, str]] = ()  # (PromQL, legend), where there are several
    unit: str = "short"
    says: str = ""
    kind: Literal["timeseries", "stat", "heatmap", "table"] = "timeseries"
    width: int = 8
    height: int = 7
    stacked: bool = False
    largest: float | None = None
    limits: Sequence[tuple[float, str]] = ()  # (from this value on, name of a colour)

    @property
    def asked(self) -> Sequence[tuple[str, str]]:
        return self.queries or [(self.query, self.legend)]


@dataclass(frozen=True)
class Dashboard:
    """One file; `variables` are labels to choose values of, with the metric that has them."""

    name: str
    title: str
    says: str
    panels: Sequence[Panel]
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Dashboard":
        found = tomllib.loads(path.read_text())
        panels = [Panel(**panel) for panel in found.pop("panels")]
        return cls(path.stem, panels=panels, **found)

    def json(self) -> Json:
        return {
            "uid": f"inlier-{self.name}",
            "title": self.title,
            "description": self.says,
            "tags": ["inlier"],
            "schemaVersion": 39,
            "editable": False,
            "graphTooltip": 1,  # one crosshair for all panels
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "templating": {"list": [_source(), *(_variable(*one) for one in self.variables.items())]},
            "annotations": {"list": [_model_changes()]},
            "links": [{"type": "dashboards", "title": "Inlier", "tags": ["inlier"], "keepTime": True}],
            "panels": _placed(self.panels),
        }


def _source() -> Json:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(label: str, metric: str) -> Json:
    query = f"label_values({metric}, {label})"
    return {
        "name": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": label},
        "definition": query,
        "refresh": 2,  # whenever the span of time changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _model_changes() -> Json:
    """A mark where a recipe is inspected by a model that did not inspect it two minutes before."""
    now = "max by (recipe, name, version) (inlier_recipe_model_info)"
    before = "max by ({}) (inlier_recipe_model_info offset 2m)"
    known = f"unless {before.format('recipe, name, version')}"
    return {
        "name": "Model changes",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "#5b7fbd",
        "expr": f"({now} {known}) and on (recipe) {before.format('recipe')}",
        "step": "60s",
        "titleFormat": "{{recipe}}: another model",
        "textFormat": "{{name}} {{version}}",
    }


def _placed(panels: Sequence[Panel]) -> list[Json]:
    """From left to right, and a new row where one does not fit any more."""
    found, x, y, tallest = [], 0, 0, 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > _WIDTH:
            x, y, tallest = 0, y + tallest, 0
        found.append(_panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": panel.height}))
        x, tallest = x + panel.width, max(tallest, panel.height)
    return found


def _panel(panel: Panel, number: int, place: Json) -> Json:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": [_target(panel, *query, number) for number, query in enumerate(panel.asked)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
        **({"transformations": _TABLE} if panel.kind == "table" else {}),
    }


def _target(panel: Panel, query: str, legend: str, number: int) -> Json:
    target: Json = {
        "refId": chr(ord("A") + number),
        "expr": query,
        "legendFormat": legend,
        "datasource": SOURCE,
    }
    if panel.kind in ("stat", "table"):
        target["instant"] = True
    if panel.kind in ("heatmap", "table"):
        target["format"] = panel.kind
    return target


def _defaults(panel: Panel) -> Json:
    steps = [{"value": None, "color": "text"}] + [
        {"value": value, "color": LIMITS[colour]} for value, colour in panel.limits
    ]
    found: Json = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.largest is not None:
        found |= {"min": 0, "max": panel.largest}
    if panel.kind == "stat":
        found["color"] = {"mode": "thresholds"}
    if panel.kind == "timeseries":
        found["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 60 if panel.stacked else 8,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "showPoints": "never",
            "spanNulls": False,  # a gap is a gap
            "thresholdsStyle": {"mode": "line" if panel.limits else "off"},
        }
    return found


def _overrides(panel: Panel) -> list[Json]:
    """Verdicts have their colours on every panel that shows them."""
    if not any("{{verdict}}" in legend for _, legend in panel.asked):
        return []
    return [
        {
            "matcher": {"id": "byName", "options": verdict},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for verdict, colour in COLOURS.items()
    ]


def _options(panel: Panel) -> Json:
    if panel.kind == "timeseries":
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": bool(panel.asked[0][1])}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    if panel.kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "none"}
    if panel.kind == "heatmap":
        return {"calculate": False, "color": {"mode": "scheme", "scheme": "Blues"}, "cellGap": 0}
    return {"showHeader": True}


_TABLE = [
    {
        "id": "organize",
        "options": {"excludeByName": {"Time": True, "Value": True, "__name__": True, "job": True}},
    }
]


def written() -> dict[str, str]:
    """The text of every file in dashboards/."""
    found = [Dashboard.read(path) for path in sorted(HERE.glob("*.toml"))]
    return {f"{one.name}.json": json.dumps(one.json(), indent=1) + "\n" for one in found}


if __name__ == "__main__":
    for name, text in written().items():
        (HERE / "dashboards" / name).write_text(text)
