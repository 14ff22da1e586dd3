"""Records are read back as they were written, older ones too."""

from __future__ import annotations

import json
from dataclasses import replace

from colbuild.plan.drawing.keys import record_key
from colbuild.store.records import record_from_json, record_to_json
from tests.store.processes import RECORD

LEDGER = {"tokens": 3, "mfu": None, "final_loss": 3.25}


def test_a_ledger_is_read_back():
    noted = replace(RECORD, ledger=LEDGER)
    assert record_from_json(json.loads(json.dumps(record_to_json(noted)))) == noted


def test_a_record_from_before_there_were_ledgers_has_an_empty_one():
    older = record_to_json(RECORD)
    del older["ledger"]
    del older["check"]
    found = record_from_json(older)
    assert found is not None
    assert found.ledger == {}


def test_a_ledger_that_was_changed_afterwards_is_no_record():
    value = record_to_json(replace(RECORD, ledger=LEDGER))
    value["ledger"] = {**LEDGER, "final_loss": 1.0}
    assert record_from_json(value) is None


def test_a_ledger_is_in_no_key():
    assert record_key(replace(RECORD, ledger=LEDGER)) == record_key(RECORD)
