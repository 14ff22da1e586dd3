"""Digests are fixed for ever: what any store, lock or plan of an older version holds is found by them."""

from __future__ import annotations

import pytest

from colbuild.hashing import Tag, TreeEntry, canonical_json, hash_bytes, spaced_json, tagged_digest, tree_digest
from colbuild.store.durable_files import checksum

VALUE = {"b": [1, 2.0, None, True], "a": "ü"}
ENTRIES = [TreeEntry("b/ü.txt", 3, "0" * 64), TreeEntry("a", 2, "1" * 64)]
OF_VALUES = {
    Tag.ACTION: "f334a7d60e74b3b5a32140dacf8585c8a55e73fe2e0776fdcdaf2aab9a871a95",
    Tag.SIGNATURE: "edbf33120afd7cfb6a58a25222d76daafac56d39933bba28edff726d22608ffc",
    Tag.LOCK: "eda77fabac2ccb997a68799364bb2d6e28fb40b4eeed4e223b77beab785f0114",
}
OF_FILES = {
    Tag.TREE: "535d14ce0adda4ddd850387e066676eef54f2092f31c46f68469266238d458f0",
    Tag.PART: "4c8de6dfe60ed5cb01e5698af72e27ce390430070b56e4eae14f456d835fbd0f",
}


def test_every_tag_has_a_fixed_digest():
    assert OF_VALUES.keys() | OF_FILES.keys() == set(Tag)


@pytest.mark.parametrize("tag", OF_VALUES)
def test_tagged_digests_of_values_are_fixed(tag):
    assert tagged_digest(tag, VALUE) == OF_VALUES[tag]


@pytest.mark.parametrize("tag", OF_FILES)
def test_tagged_digests_of_files_are_fixed(tag):
    assert tree_digest(ENTRIES, tag) == OF_FILES[tag]


def test_untagged_digests_are_fixed():
    assert hash_bytes(canonical_json(VALUE)) == "c4e1d7bb35e7f120b7acedd7303bbd56f16a5aa0638461d7f57744f1c9b7bde6"
    assert hash_bytes(spaced_json(VALUE)) == "d7aabcc0db5a6b87368623ebde0c89d048eec64b1c3e5ddf140f493d9a2a5c49"
    assert checksum(VALUE) == "f3b1b2bad439f24b451263f24aceceabce18edca3daaa297b834dcef7454a601"
