"""Elastic steps: sub-shapes of one student compute what a subset would, and what they learn lands in the student."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colbuild.arch import forward_flops, parameters
from colbuild.arch.solving import contains
from colbuild.errors import BuildError
from colbuild.ops.shared.running_models import model_of
from colbuild.train.batch import Batch
from colbuild.train.loop.elastic import Nested, rows_of, shapes_between
from colbuild.train.losses.forward import final_hidden, head_weight
from colbuild.weights.prefix.subset import parts, subset
from tests.weights.helpers import GQA, random_ordered, shaped

ORDERED = random_ordered()
UNTIED = random_ordered(GQA | {"tie_word_embeddings": False, "attention_bias": False}, seed=1)
WHOLE = ORDERED.structure.shape
SMALLEST = shaped(ORDERED, layers=2, ffn=16)
SUB_SHAPES = [
    SMALLEST,
    shaped(ORDERED, layers=3, ffn=24),
    shaped(ORDERED, layers=1),
    shaped(ORDERED, ffn=8),
    shaped(ORDERED, heads=4, kv_heads=2),
    shaped(ORDERED, hidden=24),
    shaped(ORDERED, layers=2, hidden=36, ffn=24, heads=2, kv_heads=1),
]


def nested(checkpoint, smallest, *, share=0.5, seed=0, dtype=torch.float32):
    """(the student, its elastic passes)."""
    student = model_of(checkpoint, dtype)
    lineage = checkpoint.ordered
    return student, Nested(
        student, checkpoint.structure, lineage, smallest, share=share, largest=0.5, seed=seed, context=16
    )


def batch_of(rows=2, documents=None):
    tokens = torch.randint(0, WHOLE.vocab, (rows, 16), generator=torch.Generator().manual_seed(5))
    return Batch(tokens, tokens.roll(-1, dims=1), tuple(range(rows)), documents)


def loss_of(hidden, head):
    """Something that depends on every logit."""
    return (hidden @ head.T).float().logsumexp(dim=-1).square().mean()


def shares(found):
    """(first row, row after the last, FLOPs) of each pass."""
    return [(each.start, each.stop, each.flops) for each in found]


@pytest.mark.parametrize("checkpoint", [ORDERED, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("shape", SUB_SHAPES, ids=str)
def test_a_sub_shape_computes_what_its_subset_computes(checkpoint, shape):
    _, elastic = nested(checkpoint, shape)
    hidden, head = elastic.forward(shape)(batch_of())
    alone = model_of(subset(checkpoint, shape), torch.float32)
    torch.testing.assert_close(hidden, final_hidden(alone, batch_of().tokens), rtol=1e-6, atol=1e-6)
    assert torch.equal(head, head_weight(alone))


@pytest.mark.parametrize("checkpoint", [ORDERED, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("shape", SUB_SHAPES, ids=str)
def test_gradients_land_in_the_prefix_of_the_students_weights(checkpoint, shape):
    student, elastic = nested(checkpoint, shape)
    loss_of(*elastic.forward(shape)(batch_of())).backward()
    alone = model_of(subset(checkpoint, shape), torch.float32)
    loss_of(final_hidden(alone, batch_of().tokens), head_weight(alone)).backward()
    expected = {name: weight.grad for name, weight in alone.named_parameters()}
    chosen = {part.source: part for part in parts(checkpoint.structure, checkpoint.ordered, shape)}
    for name, weight in student.named_parameters():
        if name not in chosen:
            assert weight.grad is None
            continue
        part = chosen[name]
        prefix = tuple(slice(0, length) for length in part.lengths)
        torch.testing.assert_close(
            weight.grad[prefix], expected[part.name] * part.scale, rtol=1e-4, atol=1e-6, msg=name
        )
        outside = weight.grad.clone()
        outside[prefix] = 0.0
        assert not outside.any()


def test_the_hooks_that_collect_gradients_fire_once_for_each_weight():
    student, elastic = nested(ORDERED, SMALLEST)
    fired = []
    for name, weight in student.named_parameters():
        weight.register_post_accumulate_grad_hook(lambda _, name=name: fired.append(name))
    loss_of(*elastic.forward(SMALLEST)(batch_of())).backward()
    sources = [part.source for part in parts(ORDERED.structure, ORDERED.ordered, SMALLEST)]
    assert sorted(fired) == sorted(sources)


def test_a_sub_shape_follows_the_student_as_it_learns():
    student, elastic = nested(ORDERED, SMALLEST)
    before, _ = elastic.forward(SMALLEST)(batch_of())
    with torch.no_grad():
        for weight in student.parameters():
            weight.mul_(1.1)
    after, head = elastic.forward(SMALLEST)(batch_of())
    scaled = replace(ORDERED, tensors={name: tensor * 1.1 for name, tensor in ORDERED.tensors.items()})
    alone = model_of(subset(scaled, SMALLEST), torch.float32)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, final_hidden(alone, batch_of().tokens), rtol=1e-5, atol=1e-5)
    assert torch.equal(head, head_weight(alone))


def test_the_whole_student_passes_through_itself():
    student, elastic = nested(ORDERED, SMALLEST)
    hidden, head = elastic.forward(WHOLE)(batch_of())
    assert torch.equal(hidden, final_hidden(student, batch_of().tokens))
    assert head is head_weight(student)


def test_documents_stay_apart_in_a_sub_shape_too():
    documents = torch.tensor([[0] * 6 + [1] * 10] * 2, dtype=torch.int32)
    _, elastic = nested(ORDERED, SMALLEST)
    apart, _ = elastic.forward(SMALLEST)(batch_of(documents=documents))
    alone = model_of(subset(ORDERED, SMALLEST), torch.float32)
    torch.testing.assert_close(apart, final_hidden(alone, batch_of().tokens, documents), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(apart, elastic.forward(SMALLEST)(batch_of())[0])


def test_a_sub_shape_attends_as_the_student_does():
    student, elastic = nested(ORDERED, SMALLEST)
    student.set_attn_implementation("eager")
    elastic.forward(SMALLEST)(batch_of())
    assert elastic._modules[SMALLEST].config._attn_implementation == "eager"


def test_bf16_students_have_bf16_sub_shapes():
    shape = SUB_SHAPES[-1]
    student, elastic = nested(ORDERED, shape, dtype=torch.bfloat16)
    hidden, head = elastic.forward(shape)(batch_of())
    assert (hidden.dtype, head.dtype) == (torch.bfloat16, torch.bfloat16)
    loss_of(hidden, head).backward()
    assert {weight.grad.dtype for weight in student.parameters() if weight.grad is not None} == {torch.bfloat16}


def test_activations_computed_again_give_the_same_gradients():
    def gradients(*, again):
        student, elastic = nested(ORDERED, SMALLEST)
        elastic.forward(SMALLEST)(batch_of())
        if again:
            elastic.recompute()
        loss_of(*elastic.forward(SMALLEST)(batch_of())).backward()
        return {name: weight.grad for name, weight in student.named_parameters() if weight.grad is not None}

    kept, computed = gradients(again=False), gradients(again=True)
    assert kept.keys() == computed.keys()
    assert all(torch.equal(kept[name], computed[name]) for name in kept)


# -- which rows pass through what -------------------------------------------------------------------------------------


@given(st.integers(1, 64), st.floats(0.01, 0.99), st.floats(0.0, 1.0), st.integers(0, 200))
@settings(max_examples=100, deadline=None)
def test_rows_are_shared_out_as_asked_over_the_steps(rows, share, largest, steps):
    taken = [rows_of(step, rows, share, largest) for step in range(steps)]
    assert all(each.full + each.between + each.smallest == rows for each in taken)
    assert all(min(each.full, each.between, each.smallest) >= 0 for each in taken)
    whole = steps * rows
    assert abs(sum(each.between for each in taken) - share * whole) <= 1.0
    rest = (1.0 - share) * whole
    assert abs(sum(each.full for each in taken) - largest * rest) <= 2.0
    assert abs(sum(each.smallest for each in taken) - (1.0 - largest) * rest) <= 2.0


def test_a_single_row_takes_turns():
    taken = [rows_of(step, 1, 0.5, 0.5) for step in range(4)]
    assert [(each.full, each.between, each.smallest) for each in taken] == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 0)]


def test_passes_cover_the_batch_and_count_their_flops():
    _, elastic = nested(ORDERED, SMALLEST)
    found = elastic.passes(0, 8)
    assert [(each.start, each.stop) for each in found] == [(0, 2), (2, 6), (6, 8)]
    assert found[0].flops == forward_flops(ORDERED.structure, 16)
    assert found[2].flops == forward_flops(ORDERED.structure.at(SMALLEST), 16)
    assert found[0].flops > found[1].flops > found[2].flops


def test_passes_are_a_function_of_seed_step_and_rows():
    _, one = nested(ORDERED, SMALLEST, seed=3)
    _, other = nested(ORDERED, SMALLEST, seed=3)
    _, third = nested(ORDERED, SMALLEST, seed=4)
    forwards = [shares(one.passes(step, 8)) for step in range(40)]
    # In another order, and not from the start: as after an interruption.
    assert [shares(other.passes(step, 8)) for step in reversed(range(20, 40))] == forwards[:19:-1]
    assert [shares(third.passes(step, 8)) for step in range(40)] != forwards


def test_every_sub_shape_gets_its_turn():
    _, elastic = nested(ORDERED, SMALLEST)
    draws = shapes_between(ORDERED.structure, WHOLE, SMALLEST)
    drawn = [elastic._drawn(step) for step in range(len(draws))]
    assert sorted(drawn) == sorted(draws)
    assert set(drawn) == set(elastic.shapes)


@pytest.mark.parametrize("smallest", SUB_SHAPES, ids=str)
def test_sub_shapes_lie_between_the_ends_and_are_few(smallest):
    found = shapes_between(ORDERED.structure, WHOLE, smallest)
    assert all(contains(WHOLE, shape) and contains(shape, smallest) for shape in found)
    assert len(set(found)) <= 24
    sizes = {parameters(ORDERED.structure.at(shape)) for shape in found}
    assert not sizes or min(sizes) >= parameters(ORDERED.structure.at(smallest))


def test_ends_with_nothing_between_them_share_all_rows():
    smallest = shaped(ORDERED, layers=WHOLE.layers - 1)
    student, elastic = nested(ORDERED, smallest)
    assert elastic.shapes == ()
    found = [each for step in range(6) for each in elastic.passes(step, 4)]
    assert {each.flops for each in found} == {
        forward_flops(ORDERED.structure, 16),
        forward_flops(ORDERED.structure.at(smallest), 16),
    }
    for each in found:
        loss_of(*each.forward(batch_of())).backward()
    assert all(weight.grad is not None for weight in student.parameters())


def test_an_end_outside_the_student_is_an_error():
    with pytest.raises(BuildError, match="not inside"):
        nested(ORDERED, shaped(ORDERED, ffn=WHOLE.ffn + 8))
