"""Rotary positions in a config.json: the kinds of scaling that both transformers and an ONNX graph support.

transformers 5 writes `rope_parameters`; older files have `rope_theta` and `rope_scaling`. Some architectures have settings for
each kind of layer, some turn a share of each head. Dynamic and long scaling depend on the length of a text; the tables of a
graph do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from colbuild.arch.table import FULL, SLIDING, Architecture, Rotary
from colbuild.arch.value_kinds import ANYTHING, FLAG, MAPPING, Kind, optional, real, whole

_THETA: Final = Kind("a number above 1, at most 1e15", lambda value: real(1.0, 1e15).holds(value) and value > 1)
_FACTOR: Final = real(1.0, 1e9)
_POSITIVE: Final = real(1e-9, 1e9)

ROTARY_KEYS: Final[Mapping[str, Kind]] = {
    "rope_theta": _THETA,
    "rope_scaling": optional(MAPPING),
    "rope_parameters": optional(MAPPING),
    "partial_rotary_factor": ANYTHING,
}
"""Keys of config.json."""

_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}
"""Kind of scaling -> the settings that it cannot be without."""

_VALUES: Final[Mapping[str, Kind]] = {
    "rope_type": ANYTHING,
    "type": ANYTHING,
    "rope_theta": _THETA,
    "factor": _FACTOR,
    "original_max_position_embeddings": whole(1, 1 << 24),
    "low_freq_factor": _POSITIVE,
    "high_freq_factor": _POSITIVE,
    "beta_fast": _POSITIVE,
    "beta_slow": _POSITIVE,
    "mscale": real(0.0, 1e3),
    "mscale_all_dim": real(0.0, 1e3),
    "partial_rotary_factor": real(0.0, 1.0),
    "attention_factor": Kind("null: a graph cannot hold another", lambda value: value is None),
    "truncate": Kind("true: a graph cannot hold another", lambda value: value is True),
    "finetuned": FLAG,
}

_LAYERS: Final = (FULL, SLIDING)


def rotary_problems(
    architecture: Architecture, rotary: Rotary, config: Mapping[str, Any], head_dim: int
) -> Iterator[str]:
    """Yields the problems of a config.json's rotary positions, each with its key; the values have the right kinds.

    Args:
        architecture: Its architecture.
        rotary: How that turns queries and keys.
        config: What it holds.
        head_dim: Width of a head.
    """
    name, share = architecture.name, config.get("partial_rotary_factor")
    if rotary.share is None and share not in (None, 1):
        yield f"partial_rotary_factor: {share!r} is not supported: {name} rotates whole heads"
    if rotary.share is not None:
        yield from _share_problems(config, head_dim, rotary.share)
    for key in ("rope_scaling", "rope_parameters"):
        found = config.get(key) or {}
        if not rotary.by_kind or key == "rope_scaling":
            yield from _problems(name, rotary, key, found)
            continue
        for layers, own in found.items():
            if layers not in _LAYERS or not isinstance(own, Mapping | None):
                yield f"{key}.{layers} is not supported; {name} needs settings for each of {' and '.join(_LAYERS)}"
            elif own is not None:
                yield from _problems(name, rotary, f"{key}.{layers}", own)


def _share_problems(config: Mapping[str, Any], head_dim: int, usual: float) -> Iterator[str]:
    """What is wrong with the share of each head that is turned."""
    found = config.get("rope_scaling") or config.get("rope_parameters") or {}
    key = "partial_rotary_factor" if "partial_rotary_factor" in found else "rotary_pct"
    share = found.get(key, config.get("rotary_pct", usual))
    turned = int(head_dim * share) if real(0.0, 1.0).holds(share) else 2
    if turned < 2 or turned % 2:
        yield f"{key} {share} rotates {turned} of a head's {head_dim} channels; rotary positions rotate pairs of channels"


def _problems(name: str, rotary: Rotary, key: str, found: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with one mapping of settings."""
    kind = found.get("rope_type", found.get("type", "default"))
    possible = ("default",) if key.endswith(SLIDING) else rotary.scalings
    if kind not in possible:
        yield f"{key}: rope_type {kind!r} is not supported; {name} can be exported with {', '.join(possible)}"
        return
    for setting, value in found.items():
        if setting not in _VALUES:
            yield f"{key}.{setting} is not known"
        elif not _VALUES[setting].holds(value):
            yield f"{key}.{setting} is {value!r}; it must be {_VALUES[setting].told}"
    for setting in _NEEDED[kind]:
        if setting not in found:
            yield f"{key}.{setting} is missing, and rope_type {kind!r} needs it"
    if rotary.share is None and found.get("partial_rotary_factor", 1) != 1:
        yield f"{key}.partial_rotary_factor is not supported: {name} rotates whole heads"
    for low, high in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
        both = low in found and high in found and all(_POSITIVE.holds(found[one]) for one in (low, high))
        if both and found[low] >= found[high]:
            yield f"{key}.{high} is not above {low}"
