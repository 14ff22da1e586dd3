"""What may stand in a bridge and in generated text, and what is said of mistakes there."""

from __future__ import annotations

import pytest

from colbuild.errors import SpecError
from tests.plan.families import load

PHONE = "  - {name: phone, params: 82M, exports: [phone-int8]}\n"


def family_of(root, **parts):
    return load(root, desnets=PHONE, **parts).family


def mistakes(root, **parts):
    with pytest.raises(SpecError) as caught:
        family_of(root, **parts)
    return caught.value.message


@pytest.mark.parametrize(
    ("bridge", "says"),
    [
        ("{tokenizer: {trian: 16k}}", ["unknown key 'trian' in 'tokenizer'", "did you mean 'train'?"]),
        ("{tokenizer: {train: 20}}", ["'train' must be at least 300, not 20"]),
        ("{tokenizer: {train: 16K}}", ["'train'"]),
        ("{tokenizer: gpt2}", ["'tokenizer': 'gpt2' is not a source", "tokenizer: {train: 16k}"]),
        ("{architecture: bert}", ["'architecture' cannot be 'bert'"]),
        ("{loss: {across: kl}}", ["'across' cannot be 'kl'"]),
        ("{params: 90M, shape: {layers: 20}}", ["the bridge has both 'params' and 'shape'"]),
        ("{start: copy}", ["'start' cannot be 'copy'"]),
        (
            "{tokenizer: {train: 16k}, on_policy: {share: 0.5}}",
            ["'on_policy' is for students with their teacher's vocabulary", "remove it from 'bridge'"],
        ),
    ],
)
def test_a_mistake_in_a_bridge_is_told_at_its_place(tmp_path, bridge, says):
    message = mistakes(tmp_path, bridge=bridge)
    assert message.splitlines()[2].startswith("specs/family.yaml:9:")
    assert all(part in message for part in says)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("{source: ./a.txt, generate: {tokens: 5k}}", "the text has both a 'source' and 'generate'"),
        (
            "{generate: {tokens: 5k}, sha256: " + "a" * 64 + "}",
            "'sha256' belongs to a source, and this text is generated",
        ),
        ("{generate: {token: 5k}}", "did you mean 'tokens'?"),
        ("{generate: {tokens: 5k, temperature: 0}}", "'temperature' must be more than 0"),
        ("{limit: 5MB}", "'source' is missing"),
    ],
)
def test_a_mistake_in_generated_text_is_told_too(tmp_path, data, says):
    assert says in mistakes(tmp_path, data=f"  train: {data}\n")


def test_the_bridges_recipe_is_its_own_or_the_chains(tmp_path):
    assert family_of(tmp_path, bridge="{tokenizer: {train: 16k}}").bridge.recipe.sequence == 256
    own = family_of(
        tmp_path, bridge="{tokenizer: {train: 16k}, recipe: recipes/recover.yaml, tokens: 3k}"
    ).bridge.recipe
    assert (own.tokens, own.optimizer.lr) == (3_000, 1e-4)


def test_what_is_measured_on_is_generated_too_if_it_says_nothing_else(tmp_path):
    data = family_of(tmp_path, data="  train: {generate: {tokens: 5k}}\n").data
    assert data.eval.generate == data.train.generate
    assert data.eval.source is None
    other = family_of(tmp_path, data="  train: {generate: {tokens: 5k}}\n  eval: {source: ./b.txt}\n").data
    assert (other.eval.generate, other.eval.source) == (None, "./b.txt")


def test_no_member_may_be_called_bridge(tmp_path):
    assert "cannot be called 'bridge'" in mistakes(tmp_path, anchors="    - {name: bridge, params: 100M}\n")
