"""Every driver, found by its module in `tests/fuzz/kinds`."""

from __future__ import annotations

import importlib
import pkgutil

from tests.fuzz import kinds
from tests.fuzz.frame import Driver


def drivers() -> tuple[Driver, ...]:
    """In the order of their kinds' names.

    Raises:
        ValueError: Two drivers have the same kind.
    """
    modules = [importlib.import_module(f"{kinds.__name__}.{one.name}") for one in pkgutil.iter_modules(kinds.__path__)]
    found = sorted((driver for module in modules for driver in module.DRIVERS), key=lambda driver: driver.kind)
    names = [driver.kind for driver in found]
    if len(set(names)) != len(names):
        raise ValueError(f"two drivers have the same kind: {names}")
    return tuple(found)
