"""hidden_cosine: which layers are compared, what it is worth, and that it teaches."""

from __future__ import annotations

import pytest
import torch

from colbuild.train.loop.loop import train
from colbuild.train.loop.teaching import online
from colbuild.train.losses.hidden_cosine import counterparts, hidden_cosine, watching
from tests.train.helpers import batch_of, recipe, running, same, student_of, text, tiny_llama, weights_of


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ((0, 1, 2), (0, 1, 2), (0, 1, 2)),
        ((0, 2, 4), (0, 1, 2, 3, 4, 5), (1, 3, 5)),
        ((2, 7), (1, 2, 5, 7, 9), (2, 4)),
        ((3,), (1, 2, 3), (2,)),
        ((0, 3), (0, 1, 2), None),
    ],
)
def test_a_layer_is_compared_with_what_the_next_one_was_used_to_read(student, teacher, expected):
    assert counterparts(student, teacher) == expected


def test_it_is_one_minus_the_cosine_over_the_channels_that_both_have():
    torch.manual_seed(0)
    one, other = [torch.randn(5, 6) for _ in range(2)], [torch.randn(5, 8) for _ in range(2)]
    cosines = [torch.cosine_similarity(a.double(), b[:, :6].double()) for a, b in zip(one, other, strict=True)]
    assert hidden_cosine(one, other).item() == pytest.approx((1 - torch.stack(cosines)).mean().item(), rel=1e-5)


def test_it_is_zero_with_no_gradient_where_both_are_equal():
    states = torch.randn(7, 16, requires_grad=True)
    value = hidden_cosine([states], [states.detach().clone()])
    value.backward()
    assert value.item() == 0.0
    assert torch.count_nonzero(states.grad) == 0


def test_lengths_make_no_difference():
    one, other = torch.randn(4, 8), torch.randn(4, 8)
    apart = hidden_cosine([one], [other]).item()
    assert hidden_cosine([3.0 * one], [0.2 * other]).item() == pytest.approx(apart, rel=1e-5)


def trained(weight):
    model, teacher = tiny_llama(1), tiny_llama(2)
    how = recipe(steps=40, loss={"kd_weight": 0.01, "ce_weight": 0.0})
    taught = online(teacher, tuple(teacher.model.layers))
    return model, train(student_of(model), taught, lambda step: batch_of(text(step)), how, weight, running(how))


def test_training_on_it_brings_hidden_states_together():
    _, state = trained(1.0)
    assert state.readings[-1].hidden < 0.6 * state.readings[0].hidden
    for reading in state.readings:
        assert reading.loss == pytest.approx(0.01 * reading.kl + reading.hidden, rel=1e-5)


def test_without_weight_nothing_is_compared():
    plain, state = trained(0.0)
    assert {reading.hidden for reading in state.readings} == {0.0}
    again, _ = trained(0.0)
    assert same(weights_of(plain), weights_of(again))


def test_watching_collects_in_order_and_leaves_no_hook():
    model = tiny_llama(1)
    tokens = text(0)[:, :-1]
    with watching(list(model.model.layers)) as seen:
        states = model(input_ids=tokens, output_hidden_states=True).hidden_states
    assert [tuple(entry.shape) for entry in seen] == [(64, 32)] * 2
    assert torch.equal(seen[0], states[1].flatten(0, 1))
    model(input_ids=tokens)
    assert len(seen) == 2
