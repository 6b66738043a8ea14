"""JSON Schema of a record, from its types; ``python -m envcheck.schema`` prints the shipped facts.schema.json."""

from __future__ import annotations

import json
import sys
import types
import typing
from typing import Any

from envcheck.codec import Unknown, fields_of
from envcheck.record import names_of

SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean"}
UNKNOWN = {
    "type": "object",
    "properties": {"unknown": {"type": "string", "description": "why it could not be read"}},
    "required": ["unknown"],
    "additionalProperties": False,
}


def document(cls: type, *, title: str) -> dict[str, Any]:
    """Give the schema of a whole document."""
    definitions: dict[str, Any] = {}
    body = of(cls, definitions)
    own = definitions.pop(body["$ref"].rpartition("/")[2])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **own,
        "$defs": dict(sorted(definitions.items())),
    }


def of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401  # any annotation
    """Give the schema of a type; records are put into ``definitions`` and referred to."""
    origin = typing.get_origin(kind)
    if origin in {types.UnionType, typing.Union}:
        parts = [of(part, definitions) for part in typing.get_args(kind) if part is not type(None)]
        return parts[0] if len(parts) == 1 else {"anyOf": parts}
    if origin is tuple:
        return {"type": "array", "items": of(typing.get_args(kind)[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": of(typing.get_args(kind)[1], definitions)}
    if origin is typing.Literal:
        return {"enum": list(typing.get_args(kind))}
    if kind is Unknown or names_of(kind):
        return _record(typing.cast("type", kind), definitions)
    return {"type": SCALARS[kind]} if kind in SCALARS else {}


def _record(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    name = cls.__name__
    if cls is Unknown:
        definitions[name] = UNKNOWN
    if name not in definitions:
        definitions[name] = {}  # a record that holds itself ends here
        fields = fields_of(cls)
        definitions[name] = {
            "type": "object",
            "description": " ".join((cls.__doc__ or "").split()),
            "properties": {key: of(kind, definitions) for key, (kind, _) in fields.items()},
            "required": [key for key, (_, required) in fields.items() if required],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{name}"}


def facts_schema() -> str:
    """Text of facts.schema.json."""
    from envcheck.facts import Facts

    schema = document(Facts, title="Facts of one host, as envcheck reads them")
    schema["properties"]["version"] = {"const": 1}
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(facts_schema())
