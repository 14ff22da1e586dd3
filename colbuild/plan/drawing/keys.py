"""Action keys: the hash by which a result is found again.

A key names an operation, its epoch, the *output* digests of its inputs and the parameters that change its result. Host,
user, paths, worker count and times are not in it. Input keys are not either, only what came out: a step that is rebuilt to the
same bytes therefore leaves everything after it untouched (early cutoff).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colbuild.hashing import Tag, tagged_digest
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.store import ActionRecord


def action_key(op: str, params: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The key (64 hex digits) of running `op` with `params` on inputs given as role -> content digest."""
    action = {"op": op, "epoch": OPERATIONS[op].epoch, "inputs": dict(inputs), "params": dict(params)}
    return tagged_digest(Tag.ACTION, action)


def record_key(record: ActionRecord) -> str:
    """The key that a record's own operation, parameters and inputs have, to tell one that belongs elsewhere."""
    return action_key(record.op, record.params, record.inputs)
