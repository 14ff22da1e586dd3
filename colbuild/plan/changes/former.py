"""Converts records from before keys had parts of models to records under today's keys.

A key named whole results then: every model had the tokenizer and the texts of its family beside its weights. What such a step
made is found again by the parts of what it read, as long as these results are in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from colbuild.plan.drawing.keys import action_key, record_key
from colbuild.plan.drawing.parts import Parts, parts_read
from colbuild.plan.drawing.step import name_of
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.store import ActionRecord, Store


def translated(record: ActionRecord, parts: Parts) -> ActionRecord | None:
    """A record with parts for the whole results that its inputs name.

    Args:
        record: Any record.
        parts: Of the results in the same store.

    Returns:
        None if there is nothing to translate, the record is of another version of its operation, or a result that was read is
        not in the store.
    """
    try:
        wanted = {role: parts_read(record.op, role, record.params) for role in record.inputs}
    except (KeyError, TypeError):
        return None
    if not any(wanted.values()) or record.op not in OPERATIONS or record_key(record) != record.key:
        return None
    inputs: dict[str, str] = {}
    for role, result in record.inputs.items():
        for part in wanted[role] or (None,):
            digest = parts.digest(result, part)
            if digest is None:
                return None
            inputs[name_of(role, part)] = digest
    return replace(record, inputs=inputs, key=action_key(record.op, record.params, inputs))


def former_records(store: Store) -> Mapping[str, ActionRecord]:
    """Key -> record, of every record in a store that can be translated."""
    parts, found = Parts(store), {}
    for record in store.records():
        now = translated(record, parts)
        if now is not None:
            found[now.key] = now
    return found
