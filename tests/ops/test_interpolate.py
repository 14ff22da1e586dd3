"""The interpolate step, end to end."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from colbuild.arch import Shape
from colbuild.errors import BuildError
from colbuild.ops.shared import refitting, running_models
from colbuild.ops.shared.mixture_scores import Scoring
from colbuild.ops.shared.running_models import calibration, choice_text, model_of
from colbuild.plan.workload.at_once import WINDOW
from colbuild.train.corpus.packing import open_corpus
from colbuild.train.corpus.text_windows import choice_windows
from colbuild.train.loop.devices import forward_type
from colbuild.train.watching.measure import mean_loss
from colbuild.weights.files.checkpoint import load_checkpoint, load_nested, save_checkpoint, save_nested
from colbuild.weights.mixing import refit
from colbuild.weights.mixing.alpha_search import GRID
from colbuild.weights.mixing.interpolation import mix, neighbours
from colbuild.weights.mixing.layer_alpha import STEPS
from colbuild.weights.mixing.mixture import EXPAND, SUBSET, Mix, even
from colbuild.weights.mixing.strategies import CONTROLS, GIVEN, SEARCHES
from colbuild.weights.prefix.subset import subset
from tests.ops.family import between, carry_out, interpolation_of, larger, packed, progress_of, smaller, twice
from tests.weights.helpers import retrained


@pytest.fixture(scope="module")
def desnet():
    return carry_out("interpolate", *between())


def mix_of(told):
    """The mixture that a candidate is."""
    values = {key: value for key, value in told.items() if key != "loss"}
    return Mix(**values | {"layers": tuple(values.get("layers", ()))})


def loss_of(folder, tokens=512):
    model = model_of(load_checkpoint(folder), forward_type())
    return mean_loss(model, choice_text(packed(), "heldout", tokens, model))


def test_desnet_has_its_shape_and_transformers_loads_it_strictly(desnet):
    model, found = AutoModelForCausalLM.from_pretrained(desnet, output_loading_info=True)
    assert not found["unexpected_keys"]
    assert not found["missing_keys"]
    assert not found["mismatched_keys"]
    assert (model.config.num_hidden_layers, model.config.intermediate_size) == (3, 64)
    assert (desnet / "tokenizer.json").read_bytes() == (larger() / "tokenizer.json").read_bytes()


def lowest_of(facts):
    """The lowest loss of a candidate on all of the text."""
    return min(candidate["loss"] for candidate in facts["candidates"] if "part" not in candidate)


def test_best_candidate_is_the_lowest_and_the_one_that_was_written(desnet):
    facts = interpolation_of(desnet)
    assert facts["best"]["loss"] == lowest_of(facts)
    assert facts["best"] in facts["candidates"]
    assert loss_of(desnet) == facts["best"]["loss"]
    assert 512 <= facts["tokens"] < 1024
    how = mix_of(facts["best"])
    pair = neighbours(load_checkpoint(larger()), load_checkpoint(smaller()), Shape(**between()[1]["shape"]))
    expected = mix(pair, how)
    written = load_checkpoint(desnet).tensors
    assert all(torch.equal(written[name], tensor) for name, tensor in expected.items())


def test_desnet_is_never_worse_than_the_other_methods(desnet):
    best = interpolation_of(desnet)["best"]["loss"]
    assert best <= interpolation_of(carry_out("interpolate", *between("global_alpha")))["best"]["loss"]
    for method in ("subset", "expand"):
        assert best <= loss_of(carry_out("interpolate", *between(method)))


@pytest.mark.parametrize("fill", ["zero", "copy"])
def test_one_alpha_between_subset_and_another_expansion(fill):
    facts = interpolation_of(carry_out("interpolate", *between("global_alpha", how={"fill": fill})))
    assert [mix_of(candidate) for candidate in facts["candidates"]] == [even(alpha, fill) for alpha in GRID]
    assert facts["best"] in facts["candidates"]


@pytest.mark.parametrize(
    ("method", "how", "expected"),
    [
        ("subset", {}, SUBSET),
        ("expand", {}, EXPAND),
        ("expand", {"fill": "zero"}, even(1.0, "zero")),
        ("global_alpha", {"alpha": 0.25}, even(0.25)),
        ("global_alpha", {"alpha": 0.5, "fill": "copy"}, even(0.5, "copy")),
        ("global_alpha", {"alpha": 0, "fill": "zero"}, SUBSET),
    ],
    ids=str,
)
def test_a_given_mixture_needs_no_text_and_is_streamed(method, how, expected):
    inputs, params = between(method, how=how)
    assert "corpus" not in inputs
    found = carry_out("interpolate", inputs, params)
    pair = neighbours(load_checkpoint(larger()), load_checkpoint(smaller()), Shape(**params["shape"]))
    written = load_checkpoint(found)
    assert all(torch.equal(written.tensors[name], tensor) for name, tensor in mix(pair, expected).items())
    assert written.ordered.layers == pair.base.ordered.layers
    assert interpolation_of(found) == {"best": expected.to_json(), "candidates": [], "tokens": 0}
    assert (found / "tokenizer.json").read_bytes() == (larger() / "tokenizer.json").read_bytes()
    assert {entry.unit for entry in progress_of("interpolate", inputs, params)} == {"bytes"}


def test_the_relative_distance_is_measured_in_parameters():
    found = carry_out("interpolate", *between("global_alpha", how={"alpha": "distance", "fill": "zero"}))
    sizes = [sum(tensor.numel() for tensor in load_checkpoint(one).tensors.values()) for one in (larger(), smaller())]
    own = sum(tensor.numel() for tensor in load_checkpoint(found).tensors.values())
    assert interpolation_of(found)["best"]["mlp"] == (sizes[0] - own) / (sizes[0] - sizes[1])


def test_patch_puts_the_larger_anchors_layers_into_the_smaller_one():
    inputs, params = between("patch", layers=3, ffn=48)
    found, small = load_checkpoint(carry_out("interpolate", inputs, params)), load_checkpoint(smaller())
    large = load_checkpoint(larger())
    for layer, place in enumerate(found.ordered.layers):
        name = "model.layers.{}.mlp.up_proj.weight"
        theirs = small.ordered.layers.index(place) if place in small.ordered.layers else None
        expected = large.tensors[name.format(layer)][:48] if theirs is None else small.tensors[name.format(theirs)]
        assert torch.equal(found.tensors[name.format(layer)], expected)
    assert torch.equal(found.tensors["model.norm.weight"], small.tensors["model.norm.weight"])


def test_patch_of_other_widths_is_an_error():
    with pytest.raises(BuildError, match="ffn is 64, the smaller anchor's is 48"):
        carry_out("interpolate", *between("patch"))


def test_layer_alpha_keeps_the_lowest_and_is_never_above_one_alpha(tmp_path):
    # A smaller anchor that is a little spoilt, so that neither end is the lowest.
    save_checkpoint(retrained(load_checkpoint(smaller()), seed=12, amount=0.1), tmp_path, smaller())

    def by(method):
        inputs, params = between(method)
        return carry_out("interpolate", inputs | {"smaller": tmp_path}, params)

    found = by("layer_alpha")
    facts = interpolation_of(found)
    descent = [candidate for candidate in facts["candidates"] if "layers" in candidate]
    assert len(descent) == STEPS
    assert min(candidate["loss"] for candidate in descent) < descent[0]["loss"]
    assert facts["best"]["loss"] <= interpolation_of(by("global_alpha"))["best"]["loss"]
    assert loss_of(found) == pytest.approx(facts["best"]["loss"], abs=1e-3)


def test_slopes_are_those_of_the_loss():
    """Against differences of the loss itself, in float32."""
    pair = neighbours(load_checkpoint(larger()), load_checkpoint(smaller()), Shape(**between()[1]["shape"]))
    model = model_of(pair.base, torch.float32)
    scoring = Scoring(pair, model, calibration(packed(), "train", 512, model))
    start, step = [0.5, 0.25, 0.5, 0.75], 0.02

    def at(values):
        return Mix(values[0], 0.0, 0.0, 0.0, 0.0, layers=tuple(values[1:]))

    slopes = scoring.slopes(at(start))
    for place, told in enumerate((slopes.embedding, *slopes.layers)):
        up, down = ([*start[:place], start[place] + sign * step, *start[place + 1 :]] for sign in (1, -1))
        measured = (scoring.loss(at(up)) - scoring.loss(at(down))) / (2 * step)
        assert told == pytest.approx(measured, rel=0.05, abs=2e-4)
    assert slopes.loss == pytest.approx(scoring.loss(at(start)), abs=1e-5)


def test_a_mixture_scores_the_same_whatever_was_scored_before_it(segment):
    """Only what changes is written into the model."""
    shape = Shape(**between()[1]["shape"])
    pair = neighbours(load_checkpoint(larger()), load_checkpoint(smaller()), shape, load_nested(segment))
    windows = calibration(packed(), "train", 256, model_of(pair.base, torch.float32))

    def scoring():
        return Scoring(pair, model_of(pair.base, torch.float32), windows)

    start = Mix(0.5, 0.25, 0.5, 0.25, 0.5)
    coordinates = ("embedding", "attention", "mlp", "fill", "depth")
    hows = [start, *(replace(start, **{name: 0.75}) for name in coordinates), replace(start, nested=True)]
    hows += [even(0.5, "zero"), even(0.5, "copy"), Mix(0.5, 0.0, 0.0, 0.0, 0.0, layers=(0.25, 0.5, 0.75)), start]
    several = scoring().scores
    found = [(several.part(how), several.whole(how)) for how in hows]
    alone = [(scoring().scores.part(how), scoring().scores.whole(how)) for how in hows]
    assert found == alone
    assert len({whole for _, whole in found}) == len(hows) - 1


@pytest.mark.parametrize("method", ["random", "uniform"])
def test_controls_are_parts_of_the_larger_anchor(method):
    inputs, params = between(method)
    found = load_checkpoint(carry_out("interpolate", inputs, params))
    rows = {tuple(row.tolist()) for row in load_checkpoint(larger()).tensors["model.embed_tokens.weight"].T}
    assert {tuple(row.tolist()) for row in found.tensors["model.embed_tokens.weight"].T} <= rows
    assert found.structure.shape == Shape(**params["shape"])


def test_the_seed_decides_what_is_drawn():
    folders = [carry_out("interpolate", *between("random", how={"seed": seed})) for seed in (0, 0, 1)]
    first, again, other = (load_checkpoint(folder).tensors["model.layers.0.mlp.up_proj.weight"] for folder in folders)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_subset_method_is_the_larger_anchors_subset():
    inputs, params = between("subset")
    found = load_checkpoint(carry_out("interpolate", inputs, params))
    expected = subset(load_checkpoint(larger()), Shape(**params["shape"]))
    assert found.config == expected.config
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.tensors.items())


def test_expand_method_computes_the_smaller_anchor():
    found = carry_out("interpolate", *between("expand", layers=2))
    tokens = torch.randint(0, 512, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = (
            AutoModelForCausalLM.from_pretrained(folder)(input_ids=tokens).logits for folder in (found, smaller())
        )
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", sorted({*SEARCHES, *GIVEN, *CONTROLS, "subset"} - {"nested", "patch"}))
def test_same_inputs_give_the_same_bytes(method):
    first, second = twice("interpolate", *between(method))
    assert first == second


def test_desnet_can_be_recovered_and_interpolated_from_again(desnet):
    lineage = load_checkpoint(desnet).ordered
    assert lineage.layers == load_checkpoint(larger()).ordered.layers
    assert lineage.residual.shape == (7, 48)


def test_shape_outside_the_anchors_is_an_error():
    with pytest.raises(BuildError, match="not inside"):
        carry_out("interpolate", *between(ffn=80))
    with pytest.raises(BuildError, match="not inside"):
        carry_out("interpolate", *between(layers=1))


# -- refitted ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["group_alpha", "subset", "uniform"])
def test_a_refit_is_kept_where_other_text_says_so(method):
    inputs, params = between(method, how={"refit": "auto"})
    assert (params["refit"], params["tokens"]) == ("auto", 512)
    found = carry_out("interpolate", inputs, params)
    facts, plain = interpolation_of(found)["refit"], load_checkpoint(carry_out("interpolate", *between(method)))
    assert facts["kept"] == (facts["loss"] < facts["without"])
    changed = {
        name for name, tensor in load_checkpoint(found).tensors.items() if not torch.equal(tensor, plain.tensors[name])
    }
    expected = {f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(3)}
    assert changed == (expected if facts["kept"] else set())


def test_a_refit_that_does_not_help_is_left_out(monkeypatch):
    monkeypatch.setattr(refit, "RIDGE", -0.5)  # makes nonsense
    found = carry_out("interpolate", *between("subset", how={"refit": "auto"}))
    assert interpolation_of(found)["refit"]["kept"] is False
    plain = load_checkpoint(carry_out("interpolate", *between("subset"))).tensors
    assert all(torch.equal(tensor, plain[name]) for name, tensor in load_checkpoint(found).tensors.items())


def test_where_there_is_nothing_to_refit_the_reason_is_told():
    found = carry_out("interpolate", *between("subset", how={"refit": "auto"}, ffn=72))
    assert "as wide as the larger anchor's" in interpolation_of(found)["refit"]["reason"]


@pytest.mark.parametrize("tokens", [512, 10**6])
def test_where_nothing_is_held_out_a_refit_is_decided_on_other_text_than_it_was_fitted_on(monkeypatch, tokens):
    read = {}

    def noted(name, function):
        def called(*asked):
            read[name] = function(*asked)
            return read[name]

        monkeypatch.setattr(refitting, name, called)

    noted("choice_text", running_models.choice_text)
    noted("text_before_choice", running_models.text_before_choice)
    inputs, params = between("subset", tokens=tokens, how={"refit": "auto"})
    facts = interpolation_of(carry_out("interpolate", inputs, params | {"split": "train", "fitted_split": "train"}))[
        "refit"
    ]
    assert facts["kept"] == (facts["loss"] < facts["without"])
    decides, fitted = ({tuple(row) for row in windows.tolist()} for windows in read.values())
    assert facts["tokens"] == read["text_before_choice"][:, 1:].numel() > 2 * read["choice_text"][:, 1:].numel()
    assert not decides & fitted


# -- the text that decides ------------------------------------------------------------------------------------------------


def test_mixtures_are_chosen_on_held_out_text_and_not_on_what_the_anchors_know(monkeypatch):
    read = []
    monkeypatch.setattr(
        running_models, "choice_windows", lambda *asked: read.append(asked[0]) or choice_windows(*asked)
    )
    carry_out("interpolate", *between())
    assert [corpus.split for corpus in read] == ["heldout"]


def test_with_less_text_than_was_asked_for_all_of_it_decides():
    found = interpolation_of(carry_out("interpolate", *between(tokens=10**6)))
    there = open_corpus(packed(), "heldout").tokens
    assert 0 < there - 1 - found["tokens"] < there / 8


def test_a_refit_makes_do_with_the_training_text_that_there_is():
    facts = interpolation_of(carry_out("interpolate", *between(tokens=10**6, how={"refit": "auto"})))["refit"]
    there = open_corpus(packed(), "train").tokens
    assert facts["tokens"] == (there - 1) // WINDOW * WINDOW > 0


# -- with a nested student beside the smaller anchor --------------------------------------------------------------------


@pytest.fixture(scope="module")
def segment(tmp_path_factory):
    """The smaller anchor as a segment leaves it: cut from a student of the larger one's shape, which lies beside it."""
    folder = tmp_path_factory.mktemp("segment")
    student = retrained(load_checkpoint(larger()), seed=11, amount=0.02)
    save_checkpoint(subset(student, load_checkpoint(smaller()).structure.shape), folder, smaller())
    save_nested(student, folder)
    return folder


def with_segment(segment, method="group_alpha", **lengths):
    inputs, params = between(method, **lengths)
    return inputs | {"smaller": segment}, params


def test_the_nested_students_prefix_is_a_candidate(segment):
    found = carry_out("interpolate", *with_segment(segment))
    facts = interpolation_of(found)
    nested = [candidate for candidate in facts["candidates"] if candidate["nested"]]
    assert {candidate["mlp"] for candidate in nested} >= {0.0, 0.5, 1.0}
    assert facts["best"]["loss"] == lowest_of(facts)
    assert loss_of(found) == facts["best"]["loss"]


def test_a_nested_student_leaves_every_other_candidate_as_it_is(segment, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    save_checkpoint(load_checkpoint(segment), alone, segment)
    without, having = (interpolation_of(carry_out("interpolate", *with_segment(folder))) for folder in (alone, segment))
    assert [candidate for candidate in having["candidates"] if not candidate["nested"]] == without["candidates"]
    assert having["best"]["loss"] <= without["best"]["loss"]


def test_a_nested_prefix_that_is_best_is_what_is_written(tmp_path):
    # Both anchors are spoilt and the student is not, so its prefix is by far the best.
    student, spoilt = load_checkpoint(larger()), retrained(load_checkpoint(larger()), seed=12, amount=1.0)
    segment, above = tmp_path / "segment", tmp_path / "above"
    for folder, model in ((segment, subset(spoilt, Shape(**between(layers=2, ffn=48)[1]["shape"]))), (above, spoilt)):
        folder.mkdir()
        save_checkpoint(model, folder, larger())
    save_nested(student, segment)
    inputs, params = with_segment(segment, "global_alpha")
    found = carry_out("interpolate", inputs | {"larger": above}, params)
    assert interpolation_of(found)["best"]["nested"] is True
    how = mix_of(interpolation_of(found)["best"])
    pair = neighbours(spoilt, load_checkpoint(segment), Shape(**params["shape"]), student)
    expected, written = mix(pair, how), load_checkpoint(found).tensors
    assert all(torch.equal(written[name], tensor) for name, tensor in expected.items())


def test_nested_takes_the_prefix_alone_or_mixed_with_the_larger_anchor(segment):
    facts = interpolation_of(carry_out("interpolate", *with_segment(segment, "nested")))
    assert {candidate["mlp"] for candidate in facts["candidates"] if not candidate["nested"]} == {0.0}
    assert facts["best"] in facts["candidates"]
    assert facts["best"]["loss"] >= interpolation_of(carry_out("interpolate", *with_segment(segment)))["best"]["loss"]


def test_nested_without_a_nested_student_is_an_error():
    with pytest.raises(BuildError, match="needs a nested student") as found:
        carry_out("interpolate", *between("nested"))
    assert "segment" in str(found.value.hint)


@pytest.mark.parametrize("method", ["subset", "expand"])
def test_methods_of_one_candidate_mean_what_they_did(segment, method):
    found = carry_out("interpolate", *with_segment(segment, method))
    assert interpolation_of(found)["best"]["nested"] is False
    assert not (found / "nested").exists()


def test_progress_counts_candidates(desnet):
    told = progress_of("interpolate", *between())
    assert [entry.done for entry in told] == list(range(1, len(interpolation_of(desnet)["candidates"]) + 1))
    assert {entry.unit for entry in told} == {"candidates"}
