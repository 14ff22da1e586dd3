"""The scaling of a GGUF model's rotary positions, in the terms of transformers' config.json.

Llama 3.1 and later divide each frequency by a number that llama.cpp keeps as the tensor `rope_freqs.weight`; transformers works
these numbers out from four settings. The settings are found again from the numbers:

    1 / number = (1 - smooth) / factor + smooth,   smooth = (positions / wavelength - low) / (high - low), within 0 and 1

so `smooth` is a line over 1 / wavelength, and `low` may be 1, since only the ratios of the three settings matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from colbuild.arch.files.gguf_header import GGUFHeader, read_floats
from colbuild.arch.value_kinds import is_real, is_whole
from colbuild.errors import BuildError

FREQUENCIES: Final = "rope_freqs.weight"
"""The one tensor of a GGUF file that is no weight."""

_PUBLISHED: Final = tuple((1.0, 4.0, positions) for positions in (8192, 4096, 2048, 16384, 32768))
"""(low, high, positions) that models were published with; Llama 3.1's first."""

_CLOSE: Final = 1e-5
_YARN_DEFAULTS: Final = {"yarn_beta_fast": 32.0, "yarn_beta_slow": 1.0, "yarn_ext_factor": 1.0, "yarn_attn_factor": 1.0}
INSTEAD: Final = "use the model's safetensors folder instead"


def rotary_scaling(header: GGUFHeader, kind: str, theta: float) -> dict[str, Any] | None:
    """`rope_scaling` of config.json; None where positions are not scaled.

    Args:
        header: The model's.
        kind: Its architecture, as llama.cpp calls it.
        theta: The base of its rotary positions.

    Raises:
        BuildError: It scales them in a way that transformers' configuration cannot say.
    """
    if FREQUENCIES in header.tensors:
        return _llama3(header, theta)
    facts = {key.removeprefix(f"{kind}.rope.scaling."): value for key, value in header.metadata.items()}
    form = str(facts.get("type", "none"))
    if form == "none":
        return None
    found = _FORMS.get(form, lambda _: None)(facts)
    if found is None:
        raise BuildError(f"{header.name} scales its rotary positions in an unsupported way ('{form}')", hint=INSTEAD)
    return found


def _linear(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    factor = facts.get("factor")
    return {"rope_type": "linear", "factor": float(factor)} if is_real(factor) and factor else None


def _yarn(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    positions, factor = facts.get("original_context_length"), facts.get("factor")
    if not (is_real(factor) and is_whole(positions) and factor and positions) or facts.get("attn_factor", 1.0) != 1.0:
        return None
    given = [(facts.get(key, value), value) for key, value in _YARN_DEFAULTS.items()]
    if not all(is_real(found) and math.isclose(found, value, rel_tol=_CLOSE) for found, value in given):
        return None
    return {"rope_type": "yarn", "factor": float(factor), "original_max_position_embeddings": int(positions)}


_FORMS: Final = {"linear": _linear, "yarn": _yarn}


def _llama3(header: GGUFHeader, theta: float) -> dict[str, Any]:
    divisors = read_floats(header.tensors[FREQUENCIES])
    if not all(is_real(one) and one > 0 for one in divisors) or theta <= 1.0:
        raise _another(header)
    waves = [2.0 * math.pi * theta ** (place / len(divisors)) for place in range(len(divisors))]
    factor = max(divisors)
    for low, high, positions in (*_PUBLISHED, *_solved(divisors, waves, factor)):
        said = [_divisor(wave, factor, low, high, positions) for wave in waves]
        if all(math.isclose(*pair, rel_tol=_CLOSE) for pair in zip(said, divisors, strict=True)):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": positions,
            }
    raise _another(header)


def _another(header: GGUFHeader) -> BuildError:
    return BuildError(
        f"{header.name} scales its rotary positions by '{FREQUENCIES}' differently from Llama 3", hint=INSTEAD
    )


def _divisor(wave: float, factor: float, low: float, high: float, positions: float) -> float:
    """What the frequency of a wavelength is divided by."""
    smooth = min(1.0, max(0.0, (positions / wave - low) / (high - low)))
    return 1.0 / ((1.0 - smooth) / factor + smooth)


def _solved(divisors: Sequence[float], waves: Sequence[float], factor: float) -> list[tuple[float, float, int]]:
    """(low, high, positions) by the two farthest points of the line; nothing where there are none."""
    line = [
        (1.0 / wave, (1.0 / divisor - 1.0 / factor) / (1.0 - 1.0 / factor))
        for divisor, wave in zip(divisors, waves, strict=True)
        if 1.0 < divisor < factor
    ]
    if len(line) < 2:
        return []
    (first, upper), (last, lower) = line[0], line[-1]
    slope = (upper - lower) / (first - last)
    # A line without a slope is none of these, nor one through the origin.
    if not slope or not lower - slope * last:
        return []
    high = 1.0 - 1.0 / (lower - slope * last)
    return [(1.0, round(high, 4), round(slope * (high - 1.0)))]
