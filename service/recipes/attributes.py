"""Metadata schemas: what a recipe demands of its inspections' attributes (JSON Schema, draft 2020-12)."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import (  # type: ignore[import-untyped]
    Draft202012Validator,
    SchemaError,
    ValidationError,
)
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from service.errors import InspectionError

_MAX_BYTES = 64 * 1024
_MAX_ERRORS = 20
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCES = ("$ref", "$dynamicRef")
_UNUSABLE = (Unresolvable, RecursionError)


def check_schema(schema: Mapping[str, Any]) -> None:
    """422 with the reason unless every inspection can be checked against the schema, here and offline."""
    if len(json.dumps(schema).encode()) > _MAX_BYTES:
        raise _bad_schema(f"it is larger than {_MAX_BYTES} bytes")
    if schema.get("$schema", _DIALECT) != _DIALECT:
        raise _bad_schema(f"its $schema must be {_DIALECT}, or be left out")
    try:
        Draft202012Validator.check_schema(dict(schema))
    except SchemaError as error:
        raise _bad_schema(f"{_path(error, 'attributes_schema')}: {error.message[:300]}") from None
    except RecursionError:
        raise _bad_schema("it is nested too deeply") from None
    resolver = Registry().with_resource("", DRAFT202012.create_resource(dict(schema))).resolver()
    for keyword, target in _references(schema):
        if not target.startswith("#"):
            raise _bad_schema(f"{keyword} {target[:100]!r} points elsewhere; only #... within it is allowed")
        try:
            resolver.lookup(target)
        except Unresolvable:
            raise _bad_schema(f"{keyword} {target[:100]!r} points to nothing") from None
    try:  # a schema that only refers to itself has no bottom
        list(_validator(schema).iter_errors({}))
    except _UNUSABLE:
        raise _bad_schema("it refers to itself without end") from None


def check_attributes(schema: Mapping[str, Any] | None, attributes: Mapping[str, Any], recipe: str) -> None:
    """422 that names the path of everything that does not match."""
    if schema is None:
        return
    try:
        found = sorted(_validator(schema).iter_errors(dict(attributes)), key=lambda error: list(error.path))
    except _UNUSABLE:
        raise _bad_schema(f"the one of recipe {recipe} cannot be followed; correct it") from None
    if not found:
        return
    errors = [{"location": _path(e, "attributes"), "message": e.message[:300]} for e in found[:_MAX_ERRORS]]
    detail = "; ".join(f"{error['location']}: {error['message']}" for error in errors[:5])
    raise InspectionError(
        422,
        "attributes-mismatch",
        f"the attributes do not match the schema of recipe {recipe}: {detail}",
        extra={"errors": errors},
    )


def _validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    # An empty registry: nothing is ever fetched.
    return Draft202012Validator(dict(schema), registry=Registry())


def _references(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        for keyword in ("$id", *_REFERENCES):
            target = node.get(keyword)
            if isinstance(target, str):
                yield keyword, target
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _path(error: ValidationError | SchemaError, root: str) -> str:
    return ".".join([root, *(str(step) for step in error.absolute_path)])


def _bad_schema(reason: str) -> InspectionError:
    return InspectionError(422, "invalid-schema", f"attributes_schema cannot be used: {reason}")
