"""Fused passes compute what torch and transformers do in many, and their gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from colbuild.train.fused import compiler
from colbuild.train.fused.compiler import compiled_library, find_compiler
from colbuild.train.fused.functions import Cosine, Gated, RmsNorm, Rotary
from colbuild.train.fused.kernels import fused, is_fusing
from colbuild.train.fused.modules import fuse
from colbuild.train.losses import losses
from colbuild.train.losses.attention import blocked_attention, use_blocked_attention
from colbuild.train.losses.forward import final_hidden
from colbuild.train.losses.losses import LossWeights, TeacherSamples, TeacherView, chunked_distillation_loss
from tests.train.dense_loss import distillation_loss
from tests.train.helpers import recipe, same, text, tiny_llama, train, weights_of
from tests.train.test_elastic import ORDERED, SMALLEST, batch_of, loss_of, nested

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def fusing(kept):
    with fused(kept) as there:
        assert there
        yield


def draw(*lengths, seed=0, spread=1.0):
    return torch.randn(lengths, generator=torch.Generator().manual_seed(seed)) * spread


def with_gradients(function, *inputs):
    leaves = [one.detach().clone().requires_grad_() for one in inputs]
    value = function(*leaves)
    value.backward(draw(*value.shape, seed=9))
    return [value.detach(), *(leaf.grad for leaf in leaves)]


def assert_alike(ours, theirs, *inputs):
    for found, expected in zip(with_gradients(ours, *inputs), with_gradients(theirs, *inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("fusing")
@pytest.mark.parametrize("rows", [1, 64, 130])
def test_the_norm_is_torch_s(rows):
    def plain(x, weight):
        return functional.rms_norm(x, (24,), weight, 1e-5)

    assert_alike(lambda x, weight: RmsNorm.apply(x, weight, 1e-5), plain, draw(rows, 24), draw(24, seed=1))


@pytest.mark.usefixtures("fusing")
def test_the_gated_unit_is_torch_s_also_where_numbers_are_large():
    gate = torch.cat([draw(5, 33, spread=4.0), torch.tensor([[-200.0, 200.0, 0.0] * 11])])
    assert_alike(Gated.apply, lambda gate, up: functional.silu(gate) * up, gate, draw(6, 33, seed=1))


@pytest.mark.usefixtures("fusing")
@pytest.mark.parametrize("given", [1, 2])
def test_rotary_positions_are_transformers_own(given):
    cosines, sines = draw(given, 7, 16, seed=1), draw(given, 7, 16, seed=2)

    def plain(x):
        return apply_rotary_pos_emb(x.transpose(1, 2), x.transpose(1, 2), cosines, sines)[0]

    assert_alike(lambda x: Rotary.apply(x, cosines, sines), plain, draw(2, 7, 3, 16))


@pytest.mark.usefixtures("fusing")
@pytest.mark.parametrize("tokens", [1, 100, 300])
def test_attention_is_torch_s(tokens):
    def plain(query, key, value):
        key, value = (each.repeat_interleave(3, dim=1) for each in (key, value))
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2)

    query, key, value = (draw(2, heads, tokens, 16, seed=seed) for seed, heads in enumerate((6, 2, 2)))
    assert_alike(lambda *three: blocked_attention(torch.nn.Identity(), *three, None)[0], plain, query, key, value)


@pytest.mark.usefixtures("fusing")
def test_the_cosine_is_torch_s_and_exactly_zero_where_both_are_equal():
    other = draw(50, 40, seed=1)[:, :32]
    assert_alike(
        lambda x: Cosine.apply(x, other), lambda x: 1 - functional.cosine_similarity(x, other).mean(), draw(50, 32)
    )
    value, gradient = with_gradients(lambda x: Cosine.apply(x, draw(50, 32)), draw(50, 32))
    assert value == 0.0
    assert not gradient.any()


def logits_case(tokens=70, vocabulary=1003):
    hidden, head, other = draw(tokens, 16), draw(vocabulary, 16, seed=1), draw(tokens, 16, seed=2)
    targets = torch.randint(0, vocabulary, (tokens,), generator=torch.Generator().manual_seed(3))
    return hidden.bfloat16(), head.bfloat16(), other.bfloat16(), targets


@pytest.mark.usefixtures("fusing")
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.9, 0.1), (0.0, 1.0)], ids=str)
def test_the_loss_of_logits_is_the_definition_and_so_is_its_gradient(temperature, sampled, weights):
    hidden, head, other, targets = logits_case()
    mixed = LossWeights(*weights, temperature)
    logits, known = hidden @ head.T, other @ head.T
    if sampled:
        ids = torch.randint(0, len(head), (len(hidden), 5), generator=torch.Generator().manual_seed(4))
        known = TeacherSamples(ids, torch.full(ids.shape, 0.2), draw(len(hidden), seed=5).abs())
    exact = logits.double().requires_grad_()
    wide = known.double() if isinstance(known, torch.Tensor) else known
    expected = distillation_loss(exact, wide, targets, mixed)
    expected[0].backward()
    divergence, entropy = losses.fused_loss(logits, len(hidden), known, targets, mixed) / len(hidden)
    torch.testing.assert_close(divergence, expected[1].detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(entropy, expected[2].detach(), rtol=1e-5, atol=1e-6)
    # bf16 has 8 bits.
    torch.testing.assert_close(logits.double(), exact.grad, rtol=2**-8, atol=1e-8)


@pytest.mark.usefixtures("fusing")
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(temperature):
    hidden, head, _, targets = logits_case()
    leaf = hidden.clone().requires_grad_()
    weights = LossWeights(1.0, 0.0, temperature)
    loss, divergence, _ = chunked_distillation_loss(leaf, head, TeacherView(hidden, head), targets, weights)
    loss.backward()
    assert loss.item() == divergence.item() == 0.0
    assert not leaf.grad.any()


@pytest.mark.usefixtures("fusing")
def test_what_is_no_number_is_not_hidden():
    hidden, head, other, targets = logits_case()
    other[3] = float("nan")
    weights = LossWeights(0.9, 0.1)
    loss, _, _ = chunked_distillation_loss(hidden, head, TeacherView(other, head), targets, weights)
    assert loss.isnan()


def stepped(dtype, kept=None):
    """The hidden states of a tiny model and the gradients of its weights."""
    model, tokens = tiny_llama(1, dtype=dtype), torch.arange(80).view(2, 40) % 40
    with fused(kept, wanted=kept is not None):
        assert use_blocked_attention(model)
        count = fuse(model)
        hidden = final_hidden(model, tokens)
        (hidden.float() * draw(*hidden.shape)).sum().backward()
    return count, hidden.detach(), {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)], ids=str)
def test_a_fused_model_is_the_model(kept, dtype, close):
    count, found, gradients = stepped(dtype, kept)
    # Two norms, a gated unit and the attention of each of two blocks, and the last norm.
    assert count == 9
    none, expected, theirs = stepped(dtype)
    assert none == 0
    torch.testing.assert_close(found, expected, rtol=close, atol=close)
    for name, gradient in gradients.items():
        if gradient is not None:
            distance = (gradient - theirs[name]).norm() / theirs[name].norm().clamp(min=1e-6)
            assert distance < close, name


def test_the_number_of_threads_changes_nothing(kept):
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with fused(kept):
                found.append(with_gradients(lambda x, w: RmsNorm.apply(x, w, 1e-5), draw(200, 24), draw(24, seed=1)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_modules_that_compute_something_else_are_left_alone(kept):
    class Shifted(torch.nn.Module):
        """A norm as Gemma's, whose weight is counted from one."""

        def __init__(self):
            super().__init__()
            self.weight, self.variance_epsilon = torch.nn.Parameter(draw(16)), 1e-6

        def forward(self, hidden):
            return functional.rms_norm(hidden, (16,), 1.0 + self.weight, self.variance_epsilon)

    model = Shifted()
    expected = model(draw(3, 16))
    with fused(kept):
        assert fuse(model) == 0
        assert torch.equal(model(draw(3, 16)), expected)


def test_without_a_compiler_nothing_is_fused(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler, "find_compiler", lambda: None)
    with fused(tmp_path) as there:
        assert not there
        assert not is_fusing()
        before = weights_of(model := tiny_llama(1))
        assert fuse(model) == 0
        assert same(weights_of(model), before)


def test_compiled_code_is_kept_and_made_again_where_it_is_damaged(kept, tmp_path, monkeypatch):
    with fused(kept):
        pass
    [made] = Path(kept).glob("*.so")
    copy = tmp_path / made.name
    copy.write_bytes(made.read_bytes())
    monkeypatch.setattr(compiler, "_compile", lambda *_: pytest.fail("it is there"))
    assert compiled_library(tmp_path) is not None
    copy.write_bytes(b"damaged")
    monkeypatch.setattr(compiler, "_compile", lambda *_: None)
    assert compiled_library(tmp_path) is None
    assert not copy.exists()


def trained(kept):
    models = [tiny_llama(seed, dtype=torch.bfloat16) for seed in (1, 2)]
    with fused(kept, wanted=kept is not None):
        for model in models:
            use_blocked_attention(model)
            fuse(model)
        readings = train(*models, text, recipe(steps=6, precision="bf16"))
    return weights_of(models[0]), readings[-1].loss


def test_a_fused_training_gives_the_same_bytes_again_and_follows_the_eager_one(kept):
    weights, loss = trained(kept)
    again, _ = trained(kept)
    assert same(weights, again)
    assert loss == pytest.approx(trained(None)[1], rel=0.02)


def test_sub_shapes_are_fused_too_and_their_gradients_land_in_the_student(kept):
    found = []
    for folder in (kept, None):
        with fused(folder, wanted=folder is not None):
            student, elastic = nested(ORDERED, SMALLEST)
            hidden, head = elastic.forward(SMALLEST)(batch_of())
            assert bool(elastic.installed(SMALLEST).base_model.norm.__dict__.get("forward")) == (folder is not None)
            loss_of(hidden, head).backward()
            found.append({name: weight.grad for name, weight in student.named_parameters() if weight.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-3, atol=1e-5)
