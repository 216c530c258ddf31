"""The settings of a workspace as Markdown tables, made from the fields of `continual.config.Config`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from continual.config import Config

TYPES = {
    "array": "list",
    "boolean": "true or false",
    "integer": "integer",
    "number": "number",
    "object": "table",
    "string": "text",
}


def tables() -> str:
    """Return a heading, a sentence and a table for each section, those without one first."""
    schema = Config.model_json_schema()
    return "\n\n".join(_section("", schema, schema["$defs"]))


def _section(name: str, schema: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    rows, below = [], []
    for key, field in schema["properties"].items():
        if "$ref" in field:
            below += _section(f"{name}.{key}".strip("."), _named(field, known), known)
        else:
            rows.append((f"`{key}`", _value(field, known), _default(field), field.get("description", "")))
    parts = [f"## [{name}]", schema.get("description", "")] if name else []
    return parts + ([_table(rows)] if rows else []) + below


def _named(field: Mapping[str, Any], known: Mapping[str, Any]) -> Mapping[str, Any]:
    return known[field["$ref"].rpartition("/")[2]]


def _value(field: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Return which values a field takes, such as "number, 0 to 1"."""
    if "anyOf" in field:
        return " or ".join(_value(each, known) for each in field["anyOf"] if each.get("type") != "null")
    if "$ref" in field:
        fields = _named(field, known)["properties"].items()
        return "{" + ", ".join(f"{key} = {_value(each, known)}" for key, each in fields) + "}"
    if "enum" in field or "const" in field:
        return " or ".join(f'`"{each}"`' for each in field.get("enum", [field.get("const")]))
    name = TYPES[field["type"]]
    if "items" in field:
        name = f"list of {_value(field['items'], known)}"
    return name + _range(field)


def _range(field: Mapping[str, Any]) -> str:
    low, above = field.get("minimum"), field.get("exclusiveMinimum")
    high, below = field.get("maximum"), field.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f", {low:g} to {high:g}"
    words = [
        f"{low:g} or more" if low is not None else "",
        f"above {above:g}" if above is not None else "",
        f"up to {high:g}" if high is not None else "",
        f"below {below:g}" if below is not None else "",
    ]
    told = " and ".join(word for word in words if word)
    return f", {told}" if told else ""


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    return "" if default is None else f"`{json.dumps(default)}`"


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = [("Key", "Value", "Default", "Meaning"), ("---",) * 4, *rows]
    # A bar inside a cell would end the cell.
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
