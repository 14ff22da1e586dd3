"""Programs that may write only what modes allow, also where root runs the tests."""

from __future__ import annotations

import ctypes
import os


def obey_modes() -> None:
    """Takes root's right to write whatever the modes say from the program that is started next."""
    if os.geteuid() == 0:
        drop_from_bounding_set, may_override = 24, 1
        if ctypes.CDLL(None).prctl(drop_from_bounding_set, may_override, 0, 0, 0) != 0:
            os._exit(77)
