"""A tool's JSON Schema in canonical form, and what is wrong with it.

Canonical form is JSON Schema 2020-12. Keywords stand in a fixed order, parameters in the order in which they were
declared, and objects are closed unless the schema opens them or merges several schemas into one object (`allOf`, say),
so that no single one of them knows all its properties.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]

SUBSCHEMAS = ("items", "additionalProperties", "contains", "propertyNames", "not", "if", "then", "else")
SUBSCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SUBSCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
# Keywords whose schemas judge the same value as the schema that they stand in.
SAME_PLACE = ("anyOf", "oneOf", "allOf", "not", "if", "then", "else", "dependentSchemas")
# Annotations that neither restrict a value nor reach the model.
DROPPED = ("title", "$schema", "$comment", "discriminator")
KEYWORDS = (
    *("$ref", "type", "const", "enum", "format", "pattern", "minLength", "maxLength"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minItems", "maxItems", "uniqueItems", "items", "prefixItems", "contains", "minContains", "maxContains"),
    *("properties", "required", "additionalProperties", "patternProperties", "propertyNames"),
    *("minProperties", "maxProperties", "dependentRequired", "dependentSchemas"),
    *("anyOf", "oneOf", "allOf", "not", "if", "then", "else"),
    *("description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$defs", "definitions"),
)
FORMATS = (
    *("date", "time", "date-time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6"),
    *("uri", "uri-reference", "iri", "iri-reference", "uuid", "regex", "json-pointer", "relative-json-pointer"),
    "uri-template",
)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a catalogue. `level` is "error" (can't be used) or "warning" (routes worse)."""

    level: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def canonical_parameters(schema: Mapping[str, Any]) -> Schema:
    """The JSON Schema of a tool's arguments in canonical form: an object, closed unless it says otherwise."""
    parameters = _root(schema)
    parameters.setdefault("type", "object")
    if parameters["type"] == "object" and not _branches(parameters):
        parameters.setdefault("properties", {})
    canonical: Schema = canonical_schema(parameters, close=not _merges(parameters))
    return canonical


def _root(schema: Mapping[str, Any]) -> Schema:
    """The schema; where its root only refers to one of its definitions, that definition in its place."""
    parts = str(schema.get("$ref")).split("/")
    definitions = schema.get(parts[1]) if len(parts) == 3 and parts[0] == "#" else None
    target = definitions.get(parts[2]) if isinstance(definitions, Mapping) else None
    if not isinstance(target, Mapping):
        return dict(schema)
    return {**{key: value for key, value in schema.items() if key != "$ref"}, **target}


def _branches(schema: Mapping[str, Any]) -> list[Any]:
    """The schemas that judge the same value as this one."""
    children = [child for _, child in _subschemas({key: schema[key] for key in SAME_PLACE if key in schema})]
    return [*children, {"$ref": schema["$ref"]}] if "$ref" in schema else children


def _names_properties(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return False
    return "properties" in schema or "$ref" in schema or any(map(_names_properties, _branches(schema)))


def _merges(schema: Any) -> bool:
    """Whether somewhere in it several schemas name the properties of one object; plain alternatives do not."""
    if not isinstance(schema, Mapping):
        return False
    branches = _branches(schema)
    keys = [key for key in ("$ref", *SAME_PLACE) if key in schema]
    alternatives = "properties" not in schema and (
        keys in (["$ref"], ["anyOf"], ["oneOf"]) or (keys == ["allOf"] and len(branches) == 1)
    )
    if not alternatives and any(map(_names_properties, branches)):
        return True
    return any(_merges(child) for _, child in _subschemas(schema))


def canonical_schema(schema: Any, *, close: bool) -> Any:
    """One schema in canonical form, its objects closed or not.

    What is no schema is returned as it is, for `problems` to name.
    """
    if not isinstance(schema, Mapping):
        return schema
    canonical: Schema = {}
    for key in sorted((key for key in schema if key not in DROPPED), key=_keyword_order):
        canonical[key] = _canonical_value(key, schema[key], close)
    open_ended = {"additionalProperties", "patternProperties", "unevaluatedProperties"} & canonical.keys()
    if close and "properties" in canonical and not open_ended:
        canonical["additionalProperties"] = False
        canonical = {key: canonical[key] for key in sorted(canonical, key=_keyword_order)}
    return canonical


def _canonical_value(key: str, value: Any, close: bool) -> Any:
    if key in SUBSCHEMA_MAPS and isinstance(value, Mapping):
        return {name: canonical_schema(child, close=close) for name, child in value.items()}
    if key in SUBSCHEMA_LISTS and isinstance(value, list):
        return [canonical_schema(child, close=close) for child in value]
    if key in SUBSCHEMAS:
        return canonical_schema(value, close=close)
    return value


def _keyword_order(key: str) -> tuple[int, str]:
    return (KEYWORDS.index(key), "") if key in KEYWORDS else (len(KEYWORDS), key)


def schema_problems(schema: Any, where: str) -> list[Problem]:
    """What of a valid schema would not be checked, and what no value could fit."""
    if not isinstance(schema, Mapping):
        return []
    found = [
        Problem("warning", where, f"keyword {key!r} is not supported: it is not checked")
        for key in schema
        if key not in KEYWORDS
    ]
    if "format" in schema and schema["format"] not in FORMATS:
        found.append(Problem("warning", where, f"format {schema['format']!r} is not supported: it is not checked"))
    properties = schema.get("properties", {})
    if schema.get("additionalProperties") is False:
        found += [
            Problem("error", where, f"{name!r} is required, but it is no property: no call could ever fit")
            for name in schema.get("required", ())
            if name not in properties
        ]
    for key, child in _subschemas(schema):
        found += schema_problems(child, f"{where}.{key}")
    return found


def _subschemas(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in SUBSCHEMAS:
        if key in schema:
            yield key, schema[key]
    for key in SUBSCHEMA_LISTS:
        if isinstance(children := schema.get(key), list):
            yield from ((f"{key}[{number}]", child) for number, child in enumerate(children))
    for key in SUBSCHEMA_MAPS:
        if isinstance(children := schema.get(key), Mapping):
            prefix = "" if key == "properties" else f"{key}."
            yield from ((f"{prefix}{name}", child) for name, child in children.items())
