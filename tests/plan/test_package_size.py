"""An estimated package is never smaller than the one that is built, and hardly larger."""

from __future__ import annotations

from dataclasses import replace

import pytest

from colbuild.arch import read_structure
from colbuild.plan.shapes.package_size import package_bytes, tokenizer_bound
from colbuild.spec.model.device import Profile
from tests.helpers.configs import SMOLLM2

ANSNET = read_structure(SMOLLM2)
PHONE = Profile(name="phone", precision="int8")
TOKENIZER = 3_523_034
"""Bytes of SmolLM2's tokenizer.json."""


def sized(layers, ffn):
    return ANSNET.at(replace(ANSNET.shape, layers=layers, ffn=ffn))


@pytest.mark.parametrize(
    ("layers", "ffn", "built"),
    [(30, 1536, 155_651_187), (22, 1152, 107_296_201), (21, 1136, 103_615_729), (19, 944, 90_075_459)],
)
def test_packages_of_smollm2_that_were_built_are_met_within_a_thousandth(layers, ffn, built):
    estimate = package_bytes(sized(layers, ffn), PHONE, TOKENIZER)
    assert built <= estimate <= built * 1.001


@pytest.mark.parametrize(("bits", "block", "built"), [(8, 32, 102_232_444), (4, 32, 88_520_599), (4, 16, 107_431_946)])
def test_packages_of_4_bits_that_were_built_are_met_within_two_thousandths(bits, block, built):
    profile = Profile(name="watch", precision="int4", embedding_bits=bits, block=block)
    assert built <= package_bytes(ANSNET, profile, 1_563_439) <= built * 1.002


TINY = replace(ANSNET.shape, layers=6, hidden=96, ffn=192, heads=6, kv_heads=3, head_dim=16, vocab=512)


@pytest.mark.parametrize(
    ("precision", "layers", "ffn", "built"),
    [
        ("int8", 4, 128, 426_250),
        ("int8", 3, 78, 304_698),
        ("int8", 4, 95, 383_886),
        ("fp32", 6, 192, 2_272_981),
        ("fp32", 4, 95, 1_152_284),
    ],
)
def test_packages_of_a_tiny_model_that_were_built_are_met_within_what_lies_beside_the_weights(
    precision, layers, ffn, built
):
    structure = ANSNET.at(replace(TINY, layers=layers, ffn=ffn))
    profile = Profile(name="tiny", precision=precision, context=512)
    assert built <= package_bytes(structure, profile, 15_690) <= built + 60_000


def test_a_tokenizer_that_is_not_known_is_bounded_by_the_vocabulary():
    unknown, known = (package_bytes(ANSNET, PHONE, tokenizer) for tokenizer in (None, TOKENIZER))
    assert unknown - known == tokenizer_bound(ANSNET.shape.vocab) - TOKENIZER > 0


def test_smaller_blocks_longer_contexts_and_an_untied_head_make_a_package_larger():
    plain = package_bytes(ANSNET, PHONE)
    assert package_bytes(ANSNET, PHONE.model_copy(update={"block": 16})) > plain
    assert package_bytes(ANSNET, PHONE.model_copy(update={"context": 8192})) == plain + 6144 * 64 * 4
    untied = read_structure({**SMOLLM2, "tie_word_embeddings": False})
    assert package_bytes(untied, PHONE) == plain + 49152 * 18 * 36
