"""Importance: what does nothing ranks last."""

from __future__ import annotations

from dataclasses import replace

import torch

from colbuild.progress import silent
from colbuild.weights.prefix.importance import measure_importance
from tests.weights.helpers import GQA, config_of, random_checkpoint, reference_model

WINDOWS = torch.randint(0, 70, (3, 24), generator=torch.Generator().manual_seed(5))


def measured(checkpoint, report=silent, windows=WINDOWS):
    return measure_importance(reference_model(checkpoint), checkpoint.structure, windows, report)


def silenced(name, index, checkpoint):
    """The checkpoint with part of one tensor set to zero."""
    weights = dict(checkpoint.tensors)
    weights[name] = weights[name].clone()
    weights[name][index] = 0.0
    return replace(checkpoint, tensors=weights)


def test_scores_have_a_place_for_each_part():
    checkpoint = random_checkpoint(GQA)
    found, shape = measured(checkpoint), checkpoint.structure.shape
    assert found.ffn.shape == (shape.layers, shape.ffn)
    assert found.heads.shape == (shape.layers, shape.heads)
    assert found.hidden.shape == (shape.hidden,)
    assert found.layers.shape == (shape.layers,)
    assert found.residual.shape == (2 * shape.layers + 1, shape.hidden)
    assert all(bool(torch.isfinite(part).all()) for part in (found.ffn, found.heads, found.hidden, found.layers))


def test_ffn_channel_that_writes_nothing_ranks_last():
    checkpoint = silenced("model.layers.1.mlp.down_proj.weight", (slice(None), 17), random_checkpoint(GQA))
    found = measured(checkpoint)
    assert int(found.ffn[1].argmin()) == 17
    assert found.ffn[1, 17] == 0.0
    assert bool((found.ffn[0] > 0.0).all())


def test_ffn_channel_that_is_never_active_ranks_last():
    checkpoint = silenced("model.layers.2.mlp.up_proj.weight", 5, random_checkpoint(GQA))
    checkpoint = silenced("model.layers.2.mlp.up_proj.bias", 5, checkpoint)
    assert int(measured(checkpoint).ffn[2].argmin()) == 5


def test_head_that_writes_nothing_ranks_last():
    checkpoint = silenced(
        "model.layers.0.self_attn.o_proj.weight", (slice(None), slice(32, 40)), random_checkpoint(GQA)
    )
    assert int(measured(checkpoint).heads[0].argmin()) == 4


def test_without_norms_before_the_branches_the_stream_is_what_these_read():
    checkpoint = random_checkpoint(config_of("olmo2") | {"vocab_size": 70})
    for layer in range(4):
        for norm in ("post_attention_layernorm", "post_feedforward_layernorm"):
            checkpoint = silenced(f"model.layers.{layer}.{norm}.weight", 3, checkpoint)
    checkpoint = silenced("model.embed_tokens.weight", (slice(None), 3), checkpoint)
    found = measured(checkpoint)
    assert found.hidden[3] == 0.0
    assert int(found.hidden.count_nonzero()) == checkpoint.structure.shape.hidden - 1
    # The norms after the branches read what these compute, whatever becomes of it.
    assert found.residual.shape == (2 * 4 + 1, checkpoint.structure.shape.hidden)
    assert bool((found.residual[:-1, 3] > 0.0).all())


def test_groups_of_heads_have_the_energy_that_a_norm_over_all_of_them_reads():
    checkpoint = random_checkpoint(config_of("olmo2") | {"vocab_size": 70})
    model, seen = reference_model(checkpoint), []
    norm = model.get_submodule("model.layers.0.self_attn.k_norm")
    norm.register_forward_pre_hook(lambda _, read: seen.append(read[0].detach().flatten(0, -2)))
    found = measure_importance(model, checkpoint.structure, WINDOWS, silent)
    kv_heads = checkpoint.structure.shape.kv_heads
    wanted = torch.cat(seen).square().mean(dim=0).reshape(kv_heads, -1).mean(dim=1)
    assert found.groups.shape == (2 * 4, kv_heads)
    torch.testing.assert_close(found.groups[1], wanted)
    assert measured(random_checkpoint(GQA)).groups is None


def test_block_that_changes_nothing_has_no_influence():
    checkpoint = random_checkpoint(GQA)
    for name in ("self_attn.o_proj.weight", "self_attn.o_proj.bias", "mlp.down_proj.weight", "mlp.down_proj.bias"):
        checkpoint = silenced(f"model.layers.2.{name}", slice(None), checkpoint)
    found = measured(checkpoint)
    assert int(found.layers.argmin()) == 2
    torch.testing.assert_close(found.layers[2].item(), 0.0, atol=1e-6, rtol=0.0)
    assert all(found.layers[layer] > 0.01 for layer in (0, 1, 3))


def test_scores_are_what_their_definitions_say():
    checkpoint = random_checkpoint(GQA)
    found = measured(checkpoint)
    seen = {}
    model = reference_model(checkpoint)
    block = model.model.layers[1]
    block.mlp.down_proj.register_forward_pre_hook(lambda _, arguments: seen.update(ffn=arguments[0]))
    block.post_attention_layernorm.register_forward_pre_hook(lambda _, arguments: seen.update(residual=arguments[0]))
    with torch.no_grad():
        states = model(input_ids=WINDOWS, output_hidden_states=True).hidden_states
    energy = seen["ffn"].double().square().mean(dim=(0, 1))
    columns = checkpoint.tensors["model.layers.1.mlp.down_proj.weight"].double().square().sum(dim=0)
    torch.testing.assert_close(found.ffn[1], energy * columns, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(found.residual[3], seen["residual"].square().mean(dim=(0, 1)), rtol=1e-4, atol=1e-6)
    influence = 1.0 - torch.nn.functional.cosine_similarity(states[1], states[2], dim=-1).mean()
    torch.testing.assert_close(found.layers[1], influence, rtol=1e-4, atol=1e-5)


def test_measuring_leaves_the_model_as_it_was_and_tells_its_progress():
    checkpoint = random_checkpoint(GQA)
    model = reference_model(checkpoint)
    told = []
    measure_importance(model, checkpoint.structure, WINDOWS, told.append)
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in checkpoint.tensors.items())
    assert [entry.done for entry in told] == [24, 48, 72]
    assert told[-1].total == 72
