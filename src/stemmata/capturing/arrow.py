"""Arrow: the bytes of Arrow columns in one form, however they are cut in chunks, sliced or padded.

Source: the Arrow columnar format, https://arrow.apache.org/docs/format/Columnar.html.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Arrow:
    """Feeds columns to a hasher. Holds pyarrow, which whoever has such a column has loaded."""

    def __init__(self, pyarrow: Any) -> None:
        self._pa = pyarrow
        self._types = pyarrow.types

    def feed(self, hasher: Any, column: Any) -> None:
        """Hash a column: how many values, which are null, then the others by their type."""
        pa = self._pa
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)
        hasher.update(len(column).to_bytes(8, "little"))
        if self._types.is_null(column.type):
            return
        nulls = column.null_count
        hasher.update(b"\1" if nulls else b"\0")
        if nulls:
            hasher.update(_fixed(column.is_valid().cast(pa.uint8())))
            column = column.drop_null()
        self._values(hasher, column)

    def _values(self, hasher: Any, column: Any) -> None:
        pa, types, kind = self._pa, self._types, column.type
        if isinstance(column, pa.ExtensionArray):
            self.feed(hasher, column.storage)
        elif types.is_dictionary(kind):
            self.feed(hasher, column.dictionary_decode())
        elif types.is_boolean(kind):
            hasher.update(_fixed(column.cast(pa.uint8())))
        elif _is_text(types, kind):
            self._text(hasher, column)
        elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            hasher.update(_fixed(column.value_lengths().cast(pa.int64())))
            self.feed(hasher, column.flatten())
        elif types.is_struct(kind):
            for child in column.flatten():
                self.feed(hasher, child)
        elif types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind):
            hasher.update(_fixed(column))
        else:
            # Maps, unions and what is to come: by value.
            hasher.update(msgspec.msgpack.encode(column.to_pylist()))

    def _text(self, hasher: Any, column: Any) -> None:
        pa = self._pa
        column = column.cast(pa.large_binary())
        _, offsets, data = column.buffers()
        if not len(column) or offsets is None:
            return
        ends = memoryview(offsets).cast("q")[column.offset : column.offset + len(column) + 1]
        lengths = pa.compute.binary_length(column)
        hasher.update(_fixed(lengths.cast(pa.int64())))
        if data is not None:
            hasher.update(memoryview(data)[ends[0] : ends[-1]])


def _is_text(types: Any, kind: Any) -> bool:
    names = ("string", "large_string", "binary", "large_binary", "string_view", "binary_view")
    return any(getattr(types, f"is_{name}", lambda _: False)(kind) for name in names)


def _fixed(column: Any) -> memoryview:
    """The values of a column without nulls whose type has a fixed number of whole bytes."""
    width = column.type.bit_width // 8
    data = column.buffers()[1]
    if data is None:
        return memoryview(b"")
    return memoryview(data)[column.offset * width : (column.offset + len(column)) * width]
