"""Converts a config.json to transformers' configuration, with the architecture's own settings only."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig

from colbuild.arch import own_settings


def transformers_config(config: Mapping[str, Any]) -> Any:
    """The configuration that transformers makes of a config.json, which stays as it is: transformers fills in nested values."""
    return AutoConfig.for_model(**copy.deepcopy(own_settings(config)))
