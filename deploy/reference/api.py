"""`make api`: docs/api.md, the reference of the HTTP API, from a service's OpenAPI document."""

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from service.app import create_app
from service.settings import Settings

PAGE = Path(__file__).parents[2] / "docs/api.md"
_HEAD = """# HTTP API

Written by `make api` from the OpenAPI document; a test compares them, and another sends thousands of
generated requests to see that the document is true. A running service has the same, with every field of
every answer, at `/openapi.json` (generators of clients take that); it needs a key as everything else does.

Errors of every call are `application/problem+json` (RFC 9457) with a `code`; [integrator.md](integrator.md)
explains posting, answers and errors by example. What begins with `/v1` only gains fields and calls.
"""
_METHODS = ("get", "post", "put", "patch", "delete")


def page() -> str:
    """The page, of the service as it is in this checkout."""
    document = create_app(Settings()).openapi()
    by_tag: dict[str, list[str]] = defaultdict(list)
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                operation = methods[method]
                by_tag[operation.get("tags", ["operations"])[0]].append(_operation(path, method, operation))
    parts = [_HEAD]
    for tag, operations in by_tag.items():
        parts += [f"## {tag.capitalize()}\n", *operations]
    return "\n".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    lines = [f"### `{method.upper()} {path}`", "", f"{operation['summary']}."]
    if said := operation.get("description", "").strip():
        lines += ["", said]
    if scope := _scope(operation):
        lines += ["", scope]
    if parameters := operation.get("parameters"):
        lines += ["", "| parameter | in | type | meaning |", "|---|---|---|---|"]
        lines += [_parameter(each) for each in parameters]
    if body := operation.get("requestBody"):
        lines += [
            "",
            f"Body: {', '.join(_body(kind, content) for kind, content in body['content'].items())}.",
        ]
    answers = (f"{code} {_kind(answer)}".strip() for code, answer in sorted(operation["responses"].items()))
    lines += ["", f"Answers: {', '.join(answers)}.", ""]
    return "\n".join(lines)


def _scope(operation: dict[str, Any]) -> str:
    needed = operation.get("security")
    if needed is None:
        return ""
    return "Needs: " + (" or ".join(sorted({name for each in needed for name in each})) or "nothing") + "."


def _parameter(parameter: dict[str, Any]) -> str:
    schema = parameter["schema"]
    kind = schema.get("type", _named(schema))
    if "enum" in schema:
        kind = ", ".join(f"`{value}`" for value in schema["enum"])
    meaning = (
        parameter.get("description", schema.get("description", "")).replace("|", "\\|").replace("\n", " ")
    )
    note = " (required)" if parameter.get("required") and parameter["in"] != "path" else ""
    return f"| `{parameter['name']}`{note} | {parameter['in']} | {kind} | {meaning} |"


def _body(kind: str, content: dict[str, Any]) -> str:
    name = _named(content.get("schema", {}))
    return f"{kind} ({name})" if name else kind


def _kind(answer: dict[str, Any]) -> str:
    for content in answer.get("content", {}).values():
        if (name := _named(content.get("schema", {}))) and name != "Problem":
            return name
    return ""


def _named(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if schema.get("type") == "array":
        return f"list of {_named(schema['items']) or schema['items'].get('type', 'values')}"
    return ""


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE.name}", file=sys.stderr)
