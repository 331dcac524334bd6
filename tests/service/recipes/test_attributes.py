"""Metadata schemas: checked when saved, applied when posted, never fetched."""

from typing import Any

import pytest

from service.errors import InspectionError
from service.recipes.attributes import check_attributes, check_schema

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["shift"],
    "properties": {"shift": {"enum": ["early", "late"]}, "torque_nm": {"$ref": "#/$defs/positive"}},
    "$defs": {"positive": {"type": "number", "exclusiveMinimum": 0}},
    "additionalProperties": False,
}


def test_what_matches_passes() -> None:
    check_schema(SCHEMA)
    check_attributes(SCHEMA, {"shift": "late", "torque_nm": 3.5}, "bolt")
    check_attributes(None, {"anything": 1}, "bolt")


@pytest.mark.parametrize(
    ("attributes", "location"),
    [
        ({}, "attributes"),
        ({"shift": "noon"}, "attributes.shift"),
        ({"shift": "late", "torque_nm": -1}, "attributes.torque_nm"),
        ({"shift": "late", "colour": "red"}, "attributes"),
    ],
)
def test_what_does_not_is_named(attributes: dict[str, Any], location: str) -> None:
    with pytest.raises(InspectionError) as caught:
        check_attributes(SCHEMA, attributes, "bolt")
    assert (caught.value.status, caught.value.code) == (422, "attributes-mismatch")
    assert caught.value.extra["errors"][0]["location"] == location


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "objekt"}, "objekt"),
        ({"$ref": "https://example.com/schema.json"}, "points elsewhere"),
        ({"properties": {"a": {"$dynamicRef": "other#x"}}}, "points elsewhere"),
        ({"$id": "https://example.com/", "$ref": "part.json"}, "points elsewhere"),
        ({"allOf": [{"$ref": "#/$defs/none"}]}, "points to nothing"),
        ({"$ref": "#"}, "without end"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "$schema must be"),
        ({"description": "x" * 70_000}, "larger than"),
        ({"properties": {"a": {"pattern": "("}}}, "is not a 'regex'"),
    ],
)
def test_schemas_that_cannot_be_followed_are_refused(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(InspectionError) as caught:
        check_schema(schema)
    assert (caught.value.status, caught.value.code) == (422, "invalid-schema")
    assert reason in caught.value.detail
