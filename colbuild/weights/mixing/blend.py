"""Mixes one tensor of a DesNet from its neighbours' tensors, a few rows at a time or all at once.

Every tensor is seen as a matrix here, [rows, columns]; a bias or a norm has one column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from math import prod

import numpy as np

from colbuild.weights.files.arrays import Array, mix_in, multiply, multiply_each, rescale

Index = slice | Array
"""Entries along one dimension: a slice where they lie together."""


@dataclass(frozen=True, eq=False)
class Copied:
    """The used entries of a partner, some of them more than once.

    Attributes:
        rows: The partner's row for each row that is mixed.
        columns: The partner's column for each column that is mixed.
        row_shares: What each of these rows is multiplied by, if by anything.
        column_shares: The same for columns.
    """

    rows: Array
    columns: Array
    row_shares: Array | None = None
    column_shares: Array | None = None

    def of(self, read: Array, meet: range, first: int) -> Array:
        """The partner's entries for some of the rows that are mixed, of what was read from its row `first` on."""
        chosen = slice(meet.start, meet.stop)
        found: Array = read[self.rows[chosen] - first][:, self.columns]
        if self.row_shares is not None:
            multiply_each(found, self.row_shares[chosen, None])
        if self.column_shares is not None:
            multiply_each(found, self.column_shares)
        return found


@dataclass(frozen=True, eq=False)
class Blend:
    """The mixing of a tensor of the larger anchor's subset with its partner in the smaller anchor.

    Attributes:
        rows: Which rows are mixed with the partner's, rising.
        columns: Which columns are.
        alpha: The partner's share there.
        beyond_rows: Which rows are multiplied by `keep`: those of what only the larger anchor has.
        beyond_columns: The same for columns.
        keep: By what.
        scale: What all of it is multiplied by, once `offset` is added; that is taken off again after.
        offset: See `scale`, `partner_scale`.
        rest: What the entries that are not mixed are multiplied by.
        copied: Where entries of the partner are used more than once, which ones; else its first ones, once each.
        partner_scale: What the partner's entries are multiplied by first, as `scale` says.
    """

    rows: Array
    columns: Index
    alpha: float = 0.0
    beyond_rows: Array | None = None
    beyond_columns: Index | None = None
    keep: float = 1.0
    scale: float = 1.0
    offset: float = 0.0
    rest: float = 1.0
    copied: Copied | None = None
    partner_scale: float = 1.0

    @property
    def needs_partner(self) -> bool:
        """Whether the partner's entries make a difference."""
        return self.alpha != 0.0

    @property
    def changes(self) -> bool:
        """Whether the result is not just the larger anchor's subset."""
        return self.needs_partner or self.keep != 1.0 or self.scale != 1.0 or self.rest != 1.0

    def partner_rows(self, start: int, stop: int) -> range:
        """Returns the partner's rows for the rows from `start` to `stop`: they are contiguous."""
        meet = self._mixed_rows(start, stop)
        if self.copied is None or not meet:
            return meet
        read = self.copied.rows[meet.start : meet.stop]
        return range(int(read.min()), int(read.max()) + 1)

    def apply(self, mine: Array, partner: Array | None, start: int = 0) -> None:
        """Mixes some rows in place.

        Args:
            mine: The larger anchor's, from row `start` on [n, columns].
            partner: The partner's rows `partner_rows(start, start + n)`, with all of its columns; None where not needed.
            start: The first row.
        """
        stop = start + mine.shape[0]
        if self.scale != 1.0:
            rescale(mine, self.scale, self.offset)
        meet = self._mixed_rows(start, stop)
        rows = self._rows_at(meet, start)
        if self.rest != 1.0:
            whole = mine.copy()
            multiply(mine, self.rest)
            mine[_at(rows, self.columns)] = whole[_at(rows, self.columns)]
        if partner is not None and meet:
            if self.copied is not None:
                partner = self.copied.of(partner, meet, self.partner_rows(start, stop).start)
            if self.partner_scale != 1.0:
                partner = partner.copy()
                rescale(partner, self.partner_scale, self.offset)
            _change(mine, _at(rows, self.columns), partial(mix_in, other=partner, share=self.alpha))
        if self.keep != 1.0 and self.beyond_columns is not None:
            _change(mine, (slice(None), self.beyond_columns), partial(multiply, factor=self.keep))
        if self.keep != 1.0 and self.beyond_rows is not None:
            first, last = np.searchsorted(self.beyond_rows, (start, stop))
            rows = as_index(self.beyond_rows[first:last] - start)
            _change(mine, (rows, slice(None)), partial(multiply, factor=self.keep))

    def _rows_at(self, meet: range, start: int) -> Index:
        """Where rows that are mixed lie among those from `start` on."""
        if self._together is not None:
            begun = self._together.start - start
            return slice(begun + meet.start, begun + meet.stop) if meet else slice(0, 0)
        return as_index(self.rows[meet.start : meet.stop] - start)

    @cached_property
    def _together(self) -> slice | None:
        """`rows`, where they lie together: then no tensor is asked for every few rows."""
        found = as_index(self.rows)
        return found if isinstance(found, slice) else None

    def _mixed_rows(self, start: int, stop: int) -> range:
        """Which of `rows`, by their places in it, are rows from `start` to `stop`."""
        if self._together is not None:
            first, last = self._together.start, self._together.stop
            begun = min(max(start, first), last)
            return range(begun - first, min(max(stop, begun), last) - first)
        first, last = np.searchsorted(self.rows, (start, stop))
        return range(int(first), int(last))


def _change(mine: Array, where: tuple[Index, Index], how: Callable[[Array], None]) -> None:
    """Changes the entries at some places: a view where they lie together, else a copy that is put back."""
    some = mine[where]
    how(some)
    if not all(isinstance(index, slice) for index in where):
        mine[where] = some


def _at(rows: Index, columns: Index) -> tuple[Index, Index]:
    """What picks the entries that lie in both some rows and some columns."""
    if isinstance(rows, slice) or isinstance(columns, slice):
        return rows, columns
    return rows[:, None], columns


def prefix_of(whole: Sequence[int], part: Sequence[int]) -> Array:
    """Returns the places of a prefix along every factor of a dimension, in rising order.

    Args:
        whole: The dimension's factors, slowest first.
        part: How many of each.
    """
    places = np.arange(prod(whole)).reshape(tuple(whole))
    return places[tuple(slice(0, length) for length in part)].reshape(-1)


def places_of(whole: Sequence[int], part: Sequence[int]) -> tuple[Array, Array]:
    """Returns the place of each entry of a dimension in a smaller one that is repeated along every factor.

    Args:
        whole: The dimension's factors, slowest first.
        part: The smaller one's.

    Returns:
        (its place there, how many entries share that place), one of each for every entry of the dimension.
    """
    places = np.zeros(tuple(whole), dtype=np.int64)
    for factor, (length, less) in enumerate(zip(whole, part, strict=True)):
        along = [1] * len(whole)
        along[factor] = length
        places = places * less + (np.arange(length) % less).reshape(along)
    flat = places.reshape(-1)
    return flat, np.bincount(flat)[flat]


def rest_of(whole: int, places: Array) -> Array:
    """Returns all other places of a dimension, in rising order."""
    there = np.zeros(whole, dtype=np.bool_)
    there[places] = True
    return np.flatnonzero(~there)


def as_index(places: Array) -> Index:
    """A slice where places lie together."""
    if not len(places):
        return slice(0, 0)
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last - first + 1 == len(places) else places


def runs(places: Array) -> list[tuple[int, int]]:
    """(first, how many) of each group of places that lie together, of rising places."""
    cuts = (np.flatnonzero(np.diff(places) != 1) + 1).tolist()
    bounds = [0, *cuts, len(places)]
    return [(int(places[first]), last - first) for first, last in pairwise(bounds) if last > first]
