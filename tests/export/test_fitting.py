"""4 bits, fitted on text: what keeps 8, what is measured, which limits hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from colbuild.errors import BuildError
from colbuild.export.manifest import Quality
from colbuild.export.package import packaging as package
from colbuild.export.package.packaging import Texts, build_package, exported_model
from colbuild.export.rounding import matrix_statistics
from colbuild.export.rounding.fitting import Form, allocate
from colbuild.export.rounding.matrix_statistics import gather, harm, seen_by
from colbuild.ops.shared.running_models import build_model, model_of
from colbuild.progress import silent
from colbuild.spec.model.device import Device, Limits
from colbuild.spec.model.precision import stored_bytes
from colbuild.units import format_bytes
from colbuild.weights.files.checkpoint import load_checkpoint
from tests.export.helpers import build, graph_of, manifest, saved, text
from tests.helpers.configs import random_config
from tests.helpers.steps import run_step
from tests.helpers.tiny import make_tiny_model, tiny_documents
from tests.weights.helpers import random_checkpoint


@pytest.fixture(scope="module")
def int4_package(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tiny_model, tmp_path_factory.mktemp("packages") / "int4", precision="int4")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def bits_of(folder: Path) -> dict[str, int]:
    found = {}
    for node in graph_of(folder).node:
        if node.op_type == "MatMulNBits":
            # Several of the same x are one.
            stem, _, kinds = node.input[1].removesuffix(".weight.bytes").rpartition(".")
            bits = next(one.i for one in node.attribute if one.name == "bits")
            found |= {f"{stem}.{kind}.weight".lstrip("."): bits for kind in kinds.split("+")}
    return found


def test_int4_is_4_bits_but_for_embedding_and_head(int4_package: Path):
    bits = bits_of(int4_package)
    assert {name for name, every in bits.items() if every == 8} == {"model.embed_tokens.weight"}
    assert len(bits) == 1 + 6 * 7
    told = manifest(int4_package)
    assert told["eight_bits"] == ["model.embed_tokens.weight"]
    assert told["graph"]["file"] == "onnx/model_q4.onnx"
    assert told["quality"]["tokens"] == 4 * 64
    assert 0.5 < told["quality"]["top1_agreement"] <= 1.0


def words(bits: dict[str, int]) -> dict[str, int]:
    return {name: each for name, each in bits.items() if ".layers." not in name}


@pytest.mark.parametrize("tied", [True, False])
def test_embedding_and_head_in_4_bits(tied: bool, tmp_path: Path):
    """Both smaller by what 4 bits are, and hardly further from the model; one of its own is not read for a token."""
    model = make_tiny_model(tmp_path / "model", tied=tied)
    large = build(model, tmp_path / "large", precision="int4")
    limits = {"min_decode_tps": 10.0, "when_broken": "warn"}
    small = build(model, tmp_path / "small", precision="int4", embedding_bits=4, bandwidth="1kB", limits=limits)
    head = "model.embed_tokens.weight" if tied else "lm_head.weight"
    assert words(bits_of(large)) == {head: 8}
    assert words(bits_of(small)) == {head: 4}
    assert manifest(small)["eight_bits"] == []
    assert "| Weights | int4, embedding and head in 4 bits, blocks of 32 |" in (small / "README.md").read_text()
    vocab, hidden = manifest(small)["model"]["shape"]["vocab"], manifest(small)["model"]["shape"]["hidden"]
    saved = (stored_bytes(8, (vocab, hidden), 32) - stored_bytes(4, (vocab, hidden), 32)) * (1 if tied else 2)
    assert size_of(large) - size_of(small) == pytest.approx(saved, abs=6_000)
    errors = [manifest(package)["parity"]["relative_error"] for package in (large, small)]
    assert errors[0] < errors[1] < 0.5
    graph = (small / manifest(small)["graph"]["file"]).stat().st_size
    read = graph - (0 if tied else stored_bytes(4, (vocab, hidden), 32))
    [broken] = manifest(small)["broken"]
    assert f"each token reads {format_bytes(read)} of weights" in broken


def test_learned_positions_keep_8_bits(tmp_path: Path):
    model, _ = saved(random_config("gpt2", 3), tmp_path / "model")
    exported = exported_model(model, lambda dtype: model_of(load_checkpoint(model), dtype))
    device = Device(precision="int4", embedding_bits=4, context=32, block=16)
    vocab = exported.structure.shape.vocab
    build_package(exported, device, {}, tmp_path / "package", silent, Texts(text(1, vocab)[:, :17], None))
    assert manifest(tmp_path / "package")["eight_bits"] == ["transformer.wpe.weight"]


def test_mixed_has_more_room_where_embedding_and_head_have_4_bits(tiny_model: Path, int4_package: Path, tmp_path: Path):
    limits = {"max_package": size_of(int4_package) + 100_000}
    plain = build(tiny_model, tmp_path / "plain", precision="int4-mixed", limits=limits)
    small = build(tiny_model, tmp_path / "small", precision="int4-mixed", embedding_bits=4, limits=limits)
    eight = [sum(bits == 8 for bits in bits_of(package).values()) for package in (plain, small)]
    assert eight[0] < eight[1]
    assert size_of(small) <= limits["max_package"]


def test_what_is_kept_is_kept(tiny_model: Path, tmp_path: Path):
    bits = bits_of(build(tiny_model, tmp_path / "package", precision="int4", keep_8bit=["down", "first"]))
    for name, every in bits.items():
        kept = "down_proj" in name or ".layers.0." in name or "embed" in name
        assert every == (8 if kept else 4), name


def test_int4_with_standard_operators_computes_the_same(tiny_model: Path, int4_package: Path, tmp_path: Path):
    other = build(tiny_model, tmp_path / "package", precision="int4", operators="standard")
    assert {node.domain for node in graph_of(other).node} == {""}
    mine, theirs = (manifest(package)["quality"]["perplexity"] for package in (other, int4_package))
    # onnxruntime's own products round activations too.
    assert mine == pytest.approx(theirs, rel=0.05)


def test_mixed_fills_the_room_and_no_more(tiny_model: Path, int4_package: Path, tmp_path: Path):
    small = size_of(int4_package)
    most = small + 150_000
    mixed = build(tiny_model, tmp_path / "mixed", precision="int4-mixed", limits={"max_package": most})
    eight = [name for name, bits in bits_of(mixed).items() if bits == 8]
    assert 3 < len(eight) < 40
    assert most - 80_000 < size_of(mixed) <= most
    assert manifest(mixed)["parity"]["relative_error"] < manifest(int4_package)["parity"]["relative_error"]


def test_no_room_for_4_bits_names_the_nearest_size_that_fits(tiny_model: Path, tmp_path: Path):
    with pytest.raises(BuildError) as failed:
        build(tiny_model, tmp_path / "a", precision="int4-mixed", limits={"max_package": 200_000})
    assert "more than its limit max_package even with 4 bits in every layer" in failed.value.message
    assert failed.value.hint is not None
    nearest = failed.value.hint.partition("max_package: ")[2].partition(";")[0]
    assert build(tiny_model, tmp_path / "b", precision="int4-mixed", limits={"max_package": nearest})


def test_two_builds_give_the_same_bytes(tiny_model: Path, int4_package: Path, tmp_path: Path):
    again = build(tiny_model, tmp_path / "again", precision="int4")
    for path in int4_package.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(int4_package)).read_bytes(), path


def test_a_broken_perplexity_limit_fails_or_is_told(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # A random model predicts random text no worse when it is rounded.
    worse = Quality(tokens=256, perplexity=22.0, reference=20.0, increase=0.1, top1_agreement=0.8)
    monkeypatch.setattr(package, "measure_quality", lambda *_: worse)
    limits = {"max_perplexity_increase": 0.05}
    with pytest.raises(BuildError, match=r"perplexity on held-out text is 22, 10.0% above the model's 20;") as failed:
        build(tiny_model, tmp_path / "a", precision="int4", limits=limits)
    assert "int4-mixed or int8" in str(failed.value.hint)
    warned = build(tiny_model, tmp_path / "b", precision="int4", limits={**limits, "when_broken": "warn"})
    [broken] = manifest(warned)["broken"]
    assert "max_perplexity_increase" in broken


def test_limits_of_speed_and_memory_are_measured(tiny_model: Path, tmp_path: Path):
    with pytest.raises(
        BuildError, match=r"tokens/s here with 1 thread, \d+% less than its limit min_decode_tps: 1e\+09"
    ):
        build(tiny_model, tmp_path / "a", threads=1, limits={"min_decode_tps": 1e9})
    with pytest.raises(BuildError, match=r"of memory, .* more than its limit max_memory: 1.0 kB"):
        build(tiny_model, tmp_path / "b", limits={"max_memory": 1000})
    assert build(tiny_model, tmp_path / "c", limits={"max_memory": "2GB", "min_decode_tps": 0.01})


def test_a_declared_bandwidth_judges_the_speed_instead(tiny_model: Path, tmp_path: Path):
    limits = {"min_decode_tps": 10.0, "when_broken": "warn"}
    slow = build(tiny_model, tmp_path / "a", bandwidth="10MB", limits=limits)
    [broken] = manifest(slow)["broken"]
    weights = (slow / "onnx/model.onnx").stat().st_size
    assert broken.startswith(f"the device can generate no more than {1e7 / weights:.1f} tokens/s, below its limit")
    assert "its bandwidth of 10.0 MB a second allows 1.0 MB" in broken
    fast = build(tiny_model, tmp_path / "b", bandwidth="1GB", limits={"min_decode_tps": 10.0})
    assert manifest(fast)["broken"] == []


def test_an_embedding_of_its_own_is_not_read_for_a_token(tmp_path: Path):
    tied, apart = (
        build(
            make_tiny_model(tmp_path / name, tied=name == "tied"),
            tmp_path / f"{name}-package",
            bandwidth="1MB",
            limits={"min_decode_tps": 10.0, "when_broken": "warn"},
        )
        for name in ("tied", "apart")
    )
    # What a token reads is the same: "2.1 MB of weights".
    told = [manifest(package)["broken"][0].partition("reads ")[2] for package in (tied, apart)]
    assert told[0] == told[1]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "gemma3_text"])
def test_every_matrix_of_a_block_is_seen(name: str):
    from colbuild.export.graph.decoder import decoder_graph
    from colbuild.export.graph.graph_nodes import linears, lookups

    checkpoint = random_checkpoint(random_config(name, 0))
    model = build_model(checkpoint.config, checkpoint.tensors, dtype=torch.float32)
    statistics = gather(model, checkpoint.structure, text(3, checkpoint.structure.shape.vocab)[:, :17], silent)
    decoder = decoder_graph(checkpoint.config, checkpoint.tensors, 32)
    tables = {use.weight for use in lookups(decoder.model.graph)}
    for use in linears(decoder.model.graph):
        seen = seen_by(use.weight, statistics)
        if seen is None:
            assert use.weight in tables | {"lm_head.weight", "embed_out.weight"}
            continue
        rows, columns = decoder.weights[use.weight].shape
        assert seen.moments.shape == (columns, columns)
        assert seen.pull.shape == (rows,)


@pytest.mark.parametrize("columns", [1, 7, 128, 200, 256])
def test_half_of_a_symmetric_matrix_is_all_of_it(columns: int):
    inputs = torch.randn(9, columns, generator=torch.Generator().manual_seed(columns)).round(decimals=1)
    sums = matrix_statistics._Sums(columns, 2)
    sums.add(inputs, torch.ones(9, 2))
    assert torch.allclose(sums.seen(1, 0.0).moments, inputs.T @ inputs / 9, atol=1e-6)


@pytest.mark.parametrize("name", ["layers.2.mlp.up_proj", "layers.5.mlp.down_proj", "layers.0.self_attn.q_proj"])
def test_harm_is_how_far_predictions_move(name: str, tiny_model: Path):
    windows = torch.randint(0, 512, (24, 33), generator=torch.Generator().manual_seed(5))
    checkpoint = load_checkpoint(tiny_model)
    model = model_of(checkpoint, torch.float32)
    seen = seen_by(f"model.{name}.weight", gather(model, checkpoint.structure, windows, silent))
    model = model.double()
    weight = dict(model.named_parameters())[f"model.{name}.weight"]
    error = torch.randn(weight.shape, generator=torch.Generator().manual_seed(6)).double() * 0.003
    with torch.no_grad():
        before = model(input_ids=windows[:, :-1]).logits.log_softmax(dim=-1)
        weight.add_(error)
        after = model(input_ids=windows[:, :-1]).logits.log_softmax(dim=-1)
    moved = float((before.exp() * (before - after)).sum(dim=-1).mean())
    assert seen is not None
    assert harm(error.float(), seen.moments, seen.pull) == pytest.approx(moved, rel=0.35)


def forms(*sizes_and_harms: tuple[int, float]) -> tuple[Form, ...]:
    return tuple(Form(4, 32, size, each) for size, each in sizes_and_harms)


def sizes(room: int, **every: tuple[Form, ...]) -> dict[str, int]:
    return {name: form.size for name, form in allocate(room, every, Device()).items()}


def test_room_goes_to_what_gains_most_for_its_bytes():
    each = {"a": forms((1, 2.0), (6, 1.0)), "b": forms((1, 10.0), (7, 1.0)), "c": forms((1, 2.0), (5, 1.0))}
    assert sizes(13, **each) == {"a": 1, "b": 7, "c": 5}
    # What no longer fits is passed over, not waited for.
    assert sizes(8, **each) == {"a": 1, "b": 1, "c": 5}
    assert sizes(100, **each) == {"a": 6, "b": 7, "c": 5}


def test_a_form_between_two_is_taken_where_it_is_worth_it():
    assert sizes(10, a=forms((2, 9.0), (4, 3.0), (9, 2.0)), b=forms((2, 4.0), (4, 1.0))) == {"a": 4, "b": 4}
    assert sizes(13, a=forms((2, 9.0), (4, 3.0), (9, 2.0)), b=forms((2, 4.0), (4, 1.0))) == {"a": 9, "b": 4}


def test_what_does_no_good_is_not_paid_for():
    assert sizes(99, a=forms((2, 1.0), (5, 2.0))) == {"a": 2}


def test_too_little_room_says_how_much_would_do():
    profile = Device(precision="int4-mixed", limits=Limits(max_package=10_000_000))
    with pytest.raises(BuildError, match=r"would have 20 kB more") as failed:
        allocate(5_000, {"a": forms((25_000, 1.0))}, profile)
    assert str(failed.value.hint).endswith("max_package: 10.02MB; or embedding_bits: 4")
    with pytest.raises(BuildError) as failed:
        allocate(5_000, {"a": forms((25_000, 1.0))}, profile.model_copy(update={"embedding_bits": 4}))
    assert str(failed.value.hint).endswith("max_package: 10.02MB")


def test_stored_bytes_count_codes_scales_and_zeros():
    assert stored_bytes(8, (10, 40), 32) == 10 * (64 + 8)
    assert stored_bytes(4, (10, 40), 32) == 10 * (32 + 8 + 1)


def test_profiles_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="there is no 'max_package'"):
        Device(precision="int4-mixed")
    with pytest.raises(ValueError, match="'keep_8bit' is for precision: int4"):
        Device(precision="int8", keep_8bit=("down",))
    with pytest.raises(
        ValueError, match="'embedding_bits' is for precision: int4 and int4-mixed, and this profile's is int8"
    ):
        Device(precision="int8", embedding_bits=4)
    with pytest.raises(ValueError, match="ONNX's own operators cannot look up rows of 4 bits"):
        Device(precision="int4", embedding_bits=4, operators="standard")
    assert Device(precision="int4-mixed", limits=Limits(max_package=10**8)).fitted


def test_a_short_text_and_a_short_context_are_measured_as_far_as_they_go(tiny_model: Path, tmp_path: Path):
    """By the operation itself, on a corpus with less held-out text than is asked for."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    raw = tmp_path / "text.jsonl"
    raw.write_text("".join(json.dumps({"text": one}) + "\n" for one in tiny_documents(30)), encoding="utf-8")
    params = {"format": "jsonl", "text": "text", "limit": None, "heldout": 0.1}
    run_step("corpus", {"raw": raw, "tokenizer": tiny_model}, params, corpus)
    output = tmp_path / "package"
    output.mkdir()
    asked = {"profile": {"context": 24}, "versions": {}, "heldout_split": "heldout"}
    run_step("export", {"model": tiny_model, "heldout": corpus}, asked, output)
    assert 0 < manifest(output)["quality"]["tokens"] < 2048
