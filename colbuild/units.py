"""Counts, sizes and durations as text: "100M", "40MB", "12 min"."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

COUNT_PATTERN: Final = r"^[0-9]+(_[0-9]+)*(\.[0-9]+)? ?[kMBT]?$"
"""Texts that `parse_count` may accept, for JSON schemas."""

BYTES_PATTERN: Final = r"^[0-9]+(_[0-9]+)*(\.[0-9]+)? ?([kMGT]?B|[KMGT]iB)?$"
"""Texts that `parse_bytes` may accept, for JSON schemas."""

DURATION_PATTERN: Final = r"^[0-9]+(\.[0-9]+)? ?(d|h|min|s)( ?[0-9]+(\.[0-9]+)? ?(d|h|min|s))*$"
"""Texts that `parse_duration` may accept, for JSON schemas."""

LARGEST: Final = 2**63 - 1
"""Nothing counted here is larger: it has to fit the integers of every file format it is written to."""

_COUNT_UNITS: Final[Mapping[str, int]] = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_BYTE_UNITS: Final[Mapping[str, int]] = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
# What people write instead, in lower case; only used to suggest, never to accept.
_COUNT_MEANT: Final[Mapping[str, str]] = {
    written: unit
    for unit, others in {"k": "k kb thousand", "M": "m mb mio million", "B": "b g gb bn billion", "T": "t tb"}.items()
    for written in others.split()
}
_BYTES_MEANT: Final[Mapping[str, str]] = {
    **{unit.lower(): unit for unit in _BYTE_UNITS},
    **{unit[:-1].lower(): unit for unit in _BYTE_UNITS if len(unit) > 1},
    **dict.fromkeys(("byte", "bytes"), "B"),
}
_DURATION_UNITS: Final[Mapping[str, int]] = {"d": 86_400_000, "h": 3_600_000, "min": 60_000, "s": 1000}
"""Milliseconds, from the longest: in this order they are written."""
_DURATIONS_MEANT: Final[Mapping[str, str]] = {
    written: unit
    for unit, others in {
        "d": "d day days",
        "h": "h hr hrs hour hours",
        "min": "min m mins minute minutes",
        "s": "s sec secs second seconds",
    }.items()
    for written in others.split()
}
_DURATION_EXAMPLES: Final = "write it as in 30s, 5min or 1h30min"
_WRITTEN: Final = re.compile(r"([0-9]{1,20}(?:_[0-9]{1,20}){0,8})(?:\.([0-9]{1,20}))? ?([A-Za-z]*)", re.ASCII)
_DURATION_PART: Final = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,20}))? ?([A-Za-z]+) ?", re.ASCII)


class UnitError(ValueError):
    """A text that is not a count, a size or a duration.

    Attributes:
        message: What is wrong with it.
        hint: What was probably meant; None when there is no telling.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint


def parse_count(value: object) -> int:
    """Reads a number of parameters or tokens: 4096, "20k", "100M", "1.5B".

    Raises:
        UnitError: It is not a whole, non-negative number with one of the units k, M, B, T.
    """
    return _parse(value, "a count", "100M, 20k or 4096", _COUNT_UNITS, _COUNT_MEANT)


def parse_bytes(value: object) -> int:
    """Reads a number of bytes: 4096, "512kB", "40MB" (decimal), "40MiB" (binary).

    Raises:
        UnitError: It is not a whole, non-negative number of bytes with a unit of bytes.
    """
    return _parse(value, "a size", "40MB, 40MiB or 512kB", _BYTE_UNITS, _BYTES_MEANT)


def parse_duration(value: object) -> float:
    """Reads a duration, in seconds: "30s", "5min", "1.5h", "1h30min", "2d". A number without a unit is refused.

    Raises:
        UnitError: It is not a non-negative number of d, h, min or s, or several of them from the longest unit to the
            shortest; or it is no whole number of milliseconds.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        meant = f"did you mean {value}s?" if 0 <= value < math.inf else _DURATION_EXAMPLES
        raise UnitError(f"{value} is not a duration: it has no unit", meant)
    if not isinstance(value, str):
        raise UnitError("this is not a duration", _DURATION_EXAMPLES)
    text = value.strip()
    shown = f"'{text}'" if len(text) <= 40 else f"'{text[:37]}...'"
    if re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?", text, re.ASCII):
        raise UnitError(f"{shown} is not a duration: it has no unit", f"did you mean {text}s?")
    parts = list(_DURATION_PART.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        point = text.replace(",", ".")
        decimal = point != text and _DURATION_PART.fullmatch(point) is not None
        raise UnitError(f"{shown} is not a duration", f"did you mean {point}?" if decimal else _DURATION_EXAMPLES)
    units = [part[3] for part in parts]
    unknown = next((unit for unit in units if unit not in _DURATION_UNITS), None)
    if unknown is not None:
        raise UnitError(f"{shown} is not a duration: unknown unit '{unknown}'", _guess_duration(parts))
    if units != [unit for unit in _DURATION_UNITS if unit in units]:
        raise UnitError(f"{shown} is not a duration: units go from long to short, each once", _DURATION_EXAMPLES)
    milliseconds = 0
    for whole, fraction, unit in (part.groups(default="") for part in parts):
        number, rest = divmod(int(whole + fraction) * _DURATION_UNITS[unit], 10 ** len(fraction))
        if rest:
            raise UnitError(f"{shown} is not a duration: no whole number of milliseconds", _DURATION_EXAMPLES)
        milliseconds += number
    return _in_range(milliseconds, "a duration") / 1000


def duration_text(seconds: float) -> str:
    """A duration as `parse_duration` reads it back: "30s", "5min", "1h30min", "0.5s"."""
    rest, parts = round(seconds * 1000), []
    for unit, size in _DURATION_UNITS.items():
        if unit != "s":
            number, rest = divmod(rest, size)
            parts += [f"{number}{unit}"] if number else []
    if rest or not parts:
        parts.append(f"{rest // 1000}.{rest % 1000:03d}".rstrip("0").rstrip(".") + "s")
    return "".join(parts)


def _guess_duration(parts: Sequence[re.Match[str]]) -> str:
    """The same with the units that were probably meant."""
    guessed = []
    for whole, fraction, unit in (part.groups() for part in parts):
        likely = _DURATIONS_MEANT.get(unit.lower())
        if likely is None:
            return f"units are {', '.join(_DURATION_UNITS)}"
        guessed.append(f"{whole}{'.' + fraction if fraction else ''}{likely}")
    return f"did you mean {''.join(guessed)}?"


def _parse(value: object, noun: str, examples: str, units: Mapping[str, int], meant: Mapping[str, str]) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 2e7 is a float to YAML, and a whole number to everybody else
    if isinstance(value, int) and not isinstance(value, bool):
        return _in_range(value, noun)
    if isinstance(value, float):
        raise UnitError(f"{value} is not {noun}: not a whole number", f"write it as in {examples}")
    if not isinstance(value, str):
        raise UnitError(f"this is not {noun}", f"write it as in {examples}")
    shown = f"'{value}'" if len(value) <= 40 else f"'{value[:37]}...'"
    match = _WRITTEN.fullmatch(value.strip())
    if match is None:
        raise UnitError(f"{shown} is not {noun}", _guess_number(value, units) or f"write it as in {examples}")
    whole, fraction, unit = match[1].replace("_", ""), match[2] or "", match[3]
    if unit not in units:
        raise UnitError(f"{shown} is not {noun}: unknown unit '{unit}'", _guess_unit(value, unit, units, meant))
    number, rest = divmod(int(whole + fraction) * units[unit], 10 ** len(fraction))
    if rest:
        raise UnitError(f"{shown} is not {noun}: not a whole number", f"write it as in {examples}")
    return _in_range(number, noun)


def _in_range(number: int, noun: str) -> int:
    if number < 0:
        raise UnitError(f"{noun} cannot be negative")
    if number > LARGEST:
        raise UnitError(f"{noun} is too large", "check the unit")
    return number


def _guess_unit(value: str, unit: str, units: Mapping[str, int], meant: Mapping[str, str]) -> str:
    likely = meant.get(unit.lower())
    if likely is None:
        return f"units are {', '.join(name for name in units if name)}"
    bits = " ('b' would be bits)" if unit.endswith("b") and likely.endswith("B") and len(likely) > 1 else ""
    return f"did you mean {value.strip()[: -len(unit)].rstrip()}{likely}?{bits}"


def _guess_number(value: str, units: Mapping[str, int]) -> str | None:
    """Commas are the usual mistake: thousands in English, decimals elsewhere."""
    text = value.strip()
    if re.fullmatch(r"[0-9]{1,3}(,[0-9]{3})+", text, re.ASCII):
        return f"did you mean {text.replace(',', '_')}?"
    match = re.fullmatch(r"([0-9]+),([0-9]+) ?([A-Za-z]+)", text, re.ASCII)
    return f"did you mean {match[1]}.{match[2]}{match[3]}?" if match and match[3] in units else None


def format_count(number: int) -> str:
    """A count for reading: "512", "4.1k", "980k", "134.5M", "1.5B"."""
    return _scaled(number, ((1, ""), (10**3, "k"), (10**6, "M"), (10**9, "B"), (10**12, "T")))


def format_bytes(number: int) -> str:
    """A size for reading, in decimal units: "512 B", "980 kB", "40.3 MB", "2.1 GB"."""
    return _scaled(number, ((1, " B"), (10**3, " kB"), (10**6, " MB"), (10**9, " GB"), (10**12, " TB")))


def _scaled(number: int, scales: tuple[tuple[int, str], ...]) -> str:
    for (scale, unit), (above, _) in zip(scales, (*scales[1:], (10**30, "")), strict=True):
        # One decimal from a million on, where it is worth something; below, only for small numbers.
        decimals = 0 if scale == 1 or (scale == 10**3 and number >= 10 * scale) else 1
        rounded = round(number / scale, decimals)
        if rounded * scale < above:
            return f"{rounded:.{decimals}f}{unit}"
    return str(number)


def format_duration(seconds: float) -> str:
    """A duration for reading: "0.4 s", "4 s", "2 min 30 s", "12 min", "1 h 5 min", "2 d 3 h"."""
    if round(seconds, 1) < 1:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    if round(seconds) < 600:
        return _two(round(seconds), (60, "min"), (1, "s"))
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return _two(minutes, (60, "h"), (1, "min"))
    return _two(round(seconds / 3600), (24, "d"), (1, "h"))


def _two(amount: int, large: tuple[int, str], small: tuple[int, str]) -> str:
    first, rest = divmod(amount, large[0])
    return f"{first} {large[1]} {rest} {small[1]}" if rest else f"{first} {large[1]}"
