"""Whether a family needs a bridge, what shape it has, and what is drawn for it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from colbuild.arch import ARCHITECTURES, parameters, read_structure, structure_from_json, structure_to_json
from colbuild.errors import SpecError
from colbuild.plan.drawing.build_graph import build_graph
from colbuild.plan.lock.lock_file import LockedSource
from colbuild.plan.lock.locked_chain import lock_of, pinned_chain
from colbuild.plan.shapes.chain import resolve_chain
from colbuild.plan.shapes.context_lengths import position_problems
from colbuild.report.screen.ledger_view import reference
from colbuild.run.building.family_rows import family_rows
from tests.helpers.configs import SMOLLM2
from tests.plan.families import ANSNET, VERSIONS, chain, graph, load, refusal

PHONE = "  - {name: phone, params: 82M, exports: [phone-int8]}\n"
ANCHORS = "    - {name: a90, params: 90M}\n    - {name: a76, params: 76M}\n"
TRAINED = "{tokenizer: {train: 16k}}"
NAMED = "{tokenizer: ./words}"


def solved(root, bridge, vocabulary=None, **parts):
    return resolve_chain(
        load(root, bridge=bridge, desnets=PHONE, anchors=ANCHORS, **parts), ANSNET, vocabulary=vocabulary
    )


def drawn(root, bridge, vocabulary=None, **parts):
    loaded = load(root, bridge=bridge, **{"desnets": PHONE, "anchors": ANCHORS, **parts})
    return build_graph(loaded.family, resolve_chain(loaded, ANSNET, vocabulary=vocabulary), VERSIONS)


def steps(found):
    return {step.id: step for step in found.steps}


# -- whether ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bridge", ["{}", "{tokenizer: same}", "{architecture: llama}", "{params: 100M}"])
def test_the_ansnets_own_architecture_and_vocabulary_need_none(tmp_path, bridge):
    found = solved(tmp_path, bridge)
    assert found.bridge is None
    assert found.top == found.ansnet
    assert found.warnings == ("the bridge is not built: the family has the AnsNet's own architecture and vocabulary",)
    assert "bridge" not in steps(drawn(tmp_path, bridge))


@pytest.mark.parametrize(
    ("bridge", "vocabulary", "reason", "across"),
    [
        ("{architecture: qwen3}", None, "the family is qwen3 and the AnsNet llama", False),
        (TRAINED, None, "it has its own vocabulary of 16,000 tokens", True),
        (NAMED, 50_257, "its vocabulary, of 50,257 tokens, is that of ./words", True),
        (
            "{architecture: gpt2, tokenizer: {train: 8k}}",
            None,
            "the family is gpt2 and the AnsNet llama and it has its own vocabulary of 8,000 tokens",
            True,
        ),
    ],
)
def test_it_says_why_it_is_needed(tmp_path, bridge, vocabulary, reason, across):
    found = solved(tmp_path, bridge, vocabulary).bridge
    assert (found.reason, found.across) == (reason, across)


# -- what shape -------------------------------------------------------------------------------------------------------


def test_it_is_as_large_as_the_ansnet_but_for_its_vocabulary(tmp_path):
    found = solved(tmp_path, TRAINED).top
    assert found.structure.shape == ANSNET.shape.__class__(**{**vars(ANSNET.shape), "vocab": 16_000})
    assert found.parameters == parameters(ANSNET) - (49_152 - 16_000) * 576


def test_a_vocabulary_from_elsewhere_has_room_for_the_chats_special_tokens(tmp_path):
    rows = solved(tmp_path, NAMED, 50_257).top.structure.shape.vocab
    assert rows % 64 == 0
    assert 16 <= rows - 50_257 < 16 + 64


def test_an_architecture_without_groups_gets_a_key_for_every_head_and_positions_of_its_own(tmp_path):
    structure = solved(tmp_path, "{architecture: gpt2}").top.structure
    assert (structure.shape.heads, structure.shape.kv_heads) == (9, 9)
    assert structure.fixed == {("positions", 1024)}
    assert ("tie_word_embeddings", True) in structure.flags


def test_a_size_and_a_shape_are_those_of_the_bridge(tmp_path):
    sized = solved(tmp_path, "{tokenizer: {train: 16k}, params: 110M}")
    assert sized.top.parameters == pytest.approx(110e6, rel=0.01)
    shaped = solved(tmp_path, "{tokenizer: {train: 16k}, shape: {layers: 28, heads: 6, hidden: 576}}").top.structure
    assert (shaped.shape.layers, shaped.shape.heads, shaped.shape.kv_heads) == (28, 6, 2)
    assert all(placed.larger.parameters <= sized.top.parameters for placed in sized.desnets)


@pytest.mark.parametrize(
    ("bridge", "message"),
    [
        (
            "{tokenizer: {train: 16k}, params: 200M}",
            "the bridge (200.0M) would be larger than the AnsNet's shape with its",
        ),
        ("{tokenizer: {train: 16k}, shape: {layers: 31}}", "the bridge: layers 31 is more than the AnsNet's 30"),
        ("{architecture: gpt2, shape: {hidden: 500}}", "the bridge: hidden 500 is not 9 heads of 64"),
    ],
)
def test_what_it_cannot_be_is_refused_at_its_place(tmp_path, bridge, message):
    (problem,) = refusal(tmp_path, bridge=bridge, desnets=PHONE)
    assert message in problem
    assert problem.startswith("specs/family.yaml:9:")


QWEN2 = {**SMOLLM2, "model_type": "qwen2"}


def test_biases_that_nothing_can_hold_are_refused_in_the_plan(tmp_path):
    qwen2 = read_structure(QWEN2)
    with pytest.raises(SpecError) as caught:
        resolve_chain(load(tmp_path, bridge="{architecture: mistral}", desnets=PHONE, anchors=ANCHORS), qwen2)
    assert "the AnsNet (qwen2) has biases on queries, keys and values, and mistral has none" in caught.value.message
    assert "specs/family.yaml:9:" in caught.value.message
    able = " or ".join(one for one in ARCHITECTURES if one not in ("mistral", "olmo2"))
    assert f"choose architecture: {able}, or set start: random" in caught.value.message
    # A start that copies nothing loses nothing, and another architecture holds them.
    for bridge in ("{architecture: mistral, start: random}", "{architecture: llama}"):
        found = resolve_chain(load(tmp_path, bridge=bridge, desnets=PHONE, anchors=ANCHORS), qwen2)
        assert found.bridge is not None
    assert ("attention_bias", True) in found.bridge.structure.flags


@pytest.mark.parametrize(("own", "other"), [("llama", "olmo2"), ("olmo2", "llama")])
def test_norms_that_stand_elsewhere_are_refused_in_the_plan(own, other, tmp_path):
    ansnet = read_structure({**SMOLLM2, "model_type": own})
    with pytest.raises(SpecError) as caught:
        resolve_chain(load(tmp_path, bridge=f"{{architecture: {other}}}", desnets=PHONE, anchors=ANCHORS), ansnet)
    assert "olmo2 has no norms before attention and FFN, and llama has" in caught.value.message
    able = " or ".join(one for one in ARCHITECTURES if (one == "olmo2") == (own == "olmo2"))
    assert f"choose architecture: {able}, or set start: random" in caught.value.message
    drawn = f"{{architecture: {other}, start: random}}"
    assert resolve_chain(load(tmp_path, bridge=drawn, desnets=PHONE, anchors=ANCHORS), ansnet).bridge is not None


def test_it_knows_whether_its_start_is_approximate(tmp_path):
    assert solved(tmp_path, TRAINED).bridge.approximate == ()
    assert solved(tmp_path, "{architecture: mistral}").bridge.approximate == ()
    assert solved(tmp_path, "{architecture: gpt2}").bridge.approximate == (
        "gpt2 has learned positions",
        "gpt2 has LayerNorm",
        "gpt2 has no gate in its FFN",
    )


def test_a_vocabulary_of_as_many_tokens_is_still_another(tmp_path):
    """Models of it are compared with the bridge, and said to be."""
    bridge = "{tokenizer: {train: 49152}}"
    loaded = load(tmp_path, bridge=bridge, desnets=PHONE, anchors=ANCHORS)
    found = resolve_chain(loaded, ANSNET)
    graph = build_graph(loaded.family, found, VERSIONS)
    assert found.top.structure.shape.vocab == found.ansnet.structure.shape.vocab
    assert graph.references["phone"] == "bridge"
    rows = family_rows(found, graph, {}, {}, tmp_path)
    assert {row.name: row.reference for row in rows} == {
        "ansnet": "ansnet", "bridge": "bridge", "a90": "bridge", "a76": "bridge", "phone": "bridge",
    }  # fmt: skip
    assert reference(rows) == "the bridge"


def test_a_structure_survives_as_json(tmp_path):
    structure = solved(tmp_path, "{architecture: gpt2, tokenizer: {train: 8k}}").top.structure
    assert structure_from_json(json.loads(json.dumps(structure_to_json(structure))), ARCHITECTURES) == structure


# -- what is drawn ----------------------------------------------------------------------------------------------------


def test_across_vocabularies_every_text_is_cut_for_who_reads_it(tmp_path):
    found = steps(drawn(tmp_path, TRAINED))
    assert found["corpus ansnet-train"].inputs == {"tokenizer": "source ansnet"}
    assert found["corpus train"].inputs == {"tokenizer": "tokenizer"}
    assert found["order ansnet"].inputs["corpus"] == "corpus ansnet-train"
    assert found["bridge"].inputs == {
        "teacher": "order ansnet",
        "tokenizer": "tokenizer",
        "corpus": "corpus train",
        "calibration": "corpus ansnet-train",
    }
    assert found["distill a90"].inputs == {"teacher": "order bridge", "corpus": "corpus train"}
    assert found["evaluate ansnet"].inputs["corpus"] == "corpus ansnet-train"
    # No model of other tokens can be compared with the AnsNet token by token.
    assert found["evaluate phone"].inputs["reference"] == "bridge"


def test_with_one_vocabulary_there_is_one_corpus_and_the_ansnet_is_what_all_are_compared_with(tmp_path):
    found = steps(drawn(tmp_path, "{architecture: qwen3}"))
    assert [step for step in found if step.startswith(("corpus", "tokenizer"))] == ["corpus train"]
    assert found["evaluate phone"].inputs["reference"] == "source ansnet"
    assert "across" not in found["bridge"].params["recipe"]["loss"]


def test_a_random_start_reads_nothing_of_the_ansnet_but_what_it_teaches(tmp_path):
    found = steps(drawn(tmp_path, "{tokenizer: {train: 16k}, start: random}"))
    assert "order ansnet" not in found
    assert found["bridge"].inputs["teacher"] == "source ansnet"
    assert "calibration" not in found["bridge"].inputs


def test_seqkd_reads_what_the_ansnet_has_written(tmp_path):
    found = steps(drawn(tmp_path, "{tokenizer: {train: 16k}, loss: {across: seqkd}}"))
    assert found["generate bridge"].params["tokens"] >= 80_000
    assert found["corpus bridge"].inputs == {"tokenizer": "tokenizer", "raw": "generate bridge"}
    assert found["bridge"].inputs["corpus"] == "corpus bridge"


def test_text_that_the_ansnet_writes_takes_the_place_of_a_source(tmp_path):
    data = "  train: {generate: {tokens: 200k, prompts: [The sea]}}\n"
    found = steps(graph(tmp_path, data=data))
    assert found["generate train"].params == {
        "tokens": 200_000, "temperature": 1.0, "prompts": ["The sea"], "length": 256, "seed": 0,
    }  # fmt: skip
    assert found["corpus train"].inputs == {"tokenizer": "source ansnet", "raw": "generate train"}
    assert not found["corpus train"].sources


def test_how_vocabularies_are_compared_is_in_the_bridges_key_alone(tmp_path):
    one, other = (
        {step.id: (step.params, step.inputs) for step in found.steps}
        for found in (drawn(tmp_path, TRAINED), drawn(tmp_path, "{tokenizer: {train: 16k}, loss: {across: uld}}"))
    )
    assert {step for step in one if one[step] != other[step]} == {"bridge"}


# -- what it changes elsewhere ----------------------------------------------------------------------------------------


def test_the_lock_pins_its_shape_and_vocabulary(tmp_path):
    loaded = load(tmp_path, bridge=NAMED, desnets=PHONE)
    found = resolve_chain(loaded, ANSNET, vocabulary=50_257)
    lock = lock_of(loaded.family, SMOLLM2, found, {})
    assert lock.vocabulary == 50_257
    pinned = replace(lock, sources={"./words": LockedSource("0" * 64), "./ansnet": LockedSource("1" * 64)})
    assert pinned.counts("./words", "0" * 64)
    assert not pinned.counts("./words", "2" * 64)
    assert not pinned.counts("./ansnet", "1" * 64)  # another tokenizer by now, which is a source of the family too
    assert lock.shapes["bridge"] == found.top.structure.shape

    class State:
        name = "specs/family.lock"

    State.lock = lock
    assert pinned_chain(loaded, ANSNET, State, 50_257).top == found.top


def test_learned_positions_bound_every_recipe(tmp_path):
    loaded = load(tmp_path, bridge="{architecture: gpt2, positions: 128}", desnets=PHONE)
    problems = position_problems(loaded, {**SMOLLM2, "max_position_embeddings": 8192})
    assert "the bridge has 128 positions" in problems[0].message


def test_lessons_of_another_vocabulary_cannot_be_kept(tmp_path):
    with pytest.raises(SpecError) as caught:
        load(tmp_path, bridge="{tokenizer: {train: 16k}, teacher: cached}", desnets=PHONE)
    assert "'teacher' cannot be cached for a bridge to another vocabulary" in caught.value.message


def test_a_family_without_a_bridge_is_drawn_as_before(tmp_path):
    assert chain(tmp_path).bridge is None
    assert "corpus train" in steps(graph(tmp_path))
