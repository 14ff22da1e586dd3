"""Finds the text column of an Arrow schema, for Parquet and Arrow files; a column without text is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from colbuild.bounds import DOCUMENT_CHARACTERS
from colbuild.errors import SourceError
from colbuild.fetch.texts.reading import field_text, missing_field, no_text

if TYPE_CHECKING:
    import pyarrow as pa

_KINDS: Final = (
    ("is_struct", "a record"),
    ("is_list", "a list"),
    ("is_large_list", "a list"),
    ("is_fixed_size_list", "a list"),
    ("is_map", "a map"),
    ("is_boolean", "true or false"),
    ("is_integer", "a number"),
    ("is_floating", "a number"),
    ("is_decimal", "a number"),
    ("is_temporal", "a time"),
    ("is_binary", "bytes"),
    ("is_large_binary", "bytes"),
)


def text_column(schema: pa.Schema, field: str, place: str) -> str:
    """The top-level column that holds a field.

    Args:
        schema: Of the file.
        field: A column's name, or names joined by dots.
        place: Where the schema is from.

    Raises:
        SourceError: There is no such column, or it holds no text.
    """
    found: Any = None
    children: Any = schema
    for name in (field,) if field in schema.names else field.split("."):
        index = -1 if children is None else children.names.index(name) if name in children.names else -1
        if index < 0:
            raise missing_field(field, _leaves(schema), place, "column")
        found = children.field(index).type
        children = _Children(found) if _is(found, "is_struct") else None
    if not _is_text(found):
        kind = next((words for test, words in _KINDS if _is(found, test)), f"values of type {found}")
        raise no_text(field, kind, _leaves(schema), place, "column")
    return field if field in schema.names else field.split(".")[0]


def column_texts(batch: pa.RecordBatch, column: str, field: str, place: str, first: int) -> Iterator[str]:
    """The text of each row of a batch whose rows begin with number `first`; "" where it is null."""
    values = batch.column(column)
    for row in range(len(values)):
        # One value at a time, so that only one document exists as a Python text.
        value, at = values[row], f"{place}, row {first + row}"
        if hasattr(value, "as_buffer") and value.is_valid and value.as_buffer().size > DOCUMENT_CHARACTERS:
            raise SourceError(f"{at}: the text has more than {DOCUMENT_CHARACTERS:,} bytes, the limit")
        yield field_text({column: value.as_py()}, field, at)


class _Children:
    """The fields of a struct type, as a schema has them."""

    def __init__(self, struct: Any) -> None:
        self._struct = struct
        self.names = [struct.field(index).name for index in range(struct.num_fields)]

    def field(self, index: int) -> Any:
        return self._struct.field(index)


def _leaves(schema: Any, outer: str = "") -> Iterator[tuple[str, bool]]:
    for index, name in enumerate(schema.names):
        found = schema.field(index).type
        if _is(found, "is_struct"):
            yield from _leaves(_Children(found), f"{outer}{name}.")
        else:
            yield f"{outer}{name}", _is_text(found)


def _is_text(found: Any) -> bool:
    if _is(found, "is_dictionary"):
        return _is_text(found.value_type)
    return any(_is(found, test) for test in ("is_string", "is_large_string", "is_string_view", "is_null"))


def _is(found: Any, test: str) -> bool:
    import pyarrow as pa

    # Older versions do not know the newest types.
    check = getattr(pa.types, test, None)
    return check is not None and bool(check(found))
