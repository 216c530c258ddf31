"""Which types of a column can hold what a role takes from it."""

from __future__ import annotations

from typing import Any

from pyarrow import types

from continual.errors import DataError
from continual.stream.schema import Mapping


def is_text(column_type: Any) -> bool:
    """Return whether an Arrow type holds text."""
    value = column_type.value_type if types.is_dictionary(column_type) else column_type
    return bool(types.is_string(value) or types.is_large_string(value) or types.is_string_view(value))


def check_types(schema: Any, mapping: Mapping, source: str) -> None:
    """Check that no column has a type that rules out all rows.

    Raises:
        DataError: A column has such a type.
    """
    for role, name, flag in (
        ("query", mapping.query, "query"),
        ("positive", mapping.positive, "positive"),
        *(("negative", name, "negatives") for name in mapping.negatives),
    ):
        column_type = schema.field(name).type
        inner = column_type.value_type if is_list(column_type) and role != "query" else column_type
        if not (is_text(inner) or (types.is_null(inner) and role == "negative")):
            wanted = "text" if role == "query" else "texts or lists of texts"
            raise DataError(
                f"Column {name!r} of {source} holds {column_type}, not {wanted}. "
                f"Name the column of the {role} texts with --{flag}-column C."
            )
    if mapping.score_name is not None:
        column_type = schema.field(mapping.score_name).type
        number = types.is_integer(column_type) or types.is_floating(column_type) or types.is_boolean(column_type)
        if not (number or is_text(column_type)):
            raise DataError(
                f"Column {mapping.score_name!r} of {source} holds {column_type}, which cannot be a score. Name the "
                "column of the scores with --score-column C, or use --score-column none."
            )
    if mapping.doc_id is not None and not is_id(schema.field(mapping.doc_id)):
        raise DataError(
            f"Column {mapping.doc_id!r} of {source} holds {schema.field(mapping.doc_id).type}, which cannot be a "
            "document id. Name the column of the ids with --doc-id-column C."
        )


def is_list(column_type: Any) -> bool:
    """Return whether an Arrow type holds lists."""
    return bool(types.is_list(column_type) or types.is_large_list(column_type) or types.is_fixed_size_list(column_type))


def is_id(field: Any) -> bool:
    """Return whether a column can hold ids: texts, numbers or nothing."""
    column_type = field.type
    is_number = types.is_integer(column_type) or types.is_floating(column_type)
    return is_text(column_type) or bool(is_number or types.is_null(column_type))
