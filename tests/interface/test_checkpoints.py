"""Models between two plain folders, and models in order, as a notebook asks for them."""

from __future__ import annotations

import json
import shutil
import threading

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

import colbuild
from tests.helpers.project import ROOT
from tests.helpers.tiny import make_tiny_tokenizer, tiny_documents

TEXT = tiny_documents(30)
QUICK = {"text": TEXT, "tokens": 256}


@pytest.fixture(scope="module")
def between(models):
    return colbuild.interpolate(str(models / "small"), models / "large", params="400k", method="global_alpha", **QUICK)


def test_a_model_between_two_plain_folders_is_loaded_strictly(between, models, tmp_path):
    saved = between.save(str(tmp_path / "new" / "c"))
    model, told = AutoModelForCausalLM.from_pretrained(saved.folder, output_loading_info=True)
    assert not any(told.values())
    assert sum(one.numel() for one in model.parameters()) == between.parameters == pytest.approx(400_000, rel=0.01)
    assert (saved.folder / "LICENSE").read_text() == "MIT"
    text = "Ada builds bridges."
    assert AutoTokenizer.from_pretrained(saved.folder)(text) == AutoTokenizer.from_pretrained(models / "large")(text)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"c"}


def test_objects_show_themselves_in_a_line_and_a_table(between):
    assert repr(between).startswith("<Checkpoint 400k llama, 5 layers")
    assert "<td>400k</td>" in between._repr_html_()
    assert between.mixture["loss"] > 0


def test_the_same_arguments_give_the_same_bytes(between, models):
    again = colbuild.interpolate(models / "large", models / "small", params=400_000, method="global_alpha", **QUICK)
    assert (again.folder / "model.safetensors").read_bytes() == (between.folder / "model.safetensors").read_bytes()


def test_a_model_orders_without_any_text_and_computes_the_same(models):
    heard = []
    made = colbuild.order(models / "large", tokens=128, seed=3, progress=heard.append)
    assert {event.step for event in heard} == {"source", "generate", "corpus", "order"}
    ids = torch.arange(1, 30)[None]
    one, two = (AutoModelForCausalLM.from_pretrained(path)(ids).logits for path in (models / "large", made.folder))
    assert torch.allclose(one, two, atol=1e-4)


def test_what_was_ordered_and_mixed_is_mixed_again_as_it_is(between, models):
    """Both are prefixes in one coordinate system: nothing is ordered or aligned, and no text is needed."""
    large = colbuild.order(models / "large", **QUICK)
    small = colbuild.interpolate(large, models / "small", shape={"layers": 4, "ffn": 128}, method="subset", **QUICK)
    heard = []
    colbuild.interpolate(large, small, shape=between.shape, method="global_alpha", alpha=0.5, progress=heard.append)
    assert {event.step for event in heard} <= {"interpolate"}


@pytest.mark.parametrize(
    "how",
    [
        {"method": "layer_alpha"},
        {"method": "random", "seed": 3},
        {"method": "global_alpha", "alpha": 0.5, "refit": "auto"},
    ],
    ids=str,
)
def test_methods_and_refits_work_on_plain_folders(how, models):
    made = colbuild.interpolate(models / "large", models / "small", params="400k", text=TEXT, tokens=128, **how)
    assert made.parameters == pytest.approx(400_000, rel=0.01)


def test_temporary_folders_go_with_the_last_object(models):
    made = colbuild.interpolate(
        models / "large", models / "small", params="400k", method="global_alpha", alpha=0.5, **QUICK
    )
    folder = made.folder
    assert folder.is_dir()
    del made
    assert not folder.parent.exists()


def interpolate(**given):
    return lambda models: colbuild.interpolate(models / "large", models / "small", **given)


WRONG = {
    "no such folder": (lambda models: colbuild.order(models / "larg"), "does not exist", "large"),
    "not a path": (lambda models: colbuild.interpolate(3, models / "small", params="400k"), "not a path", "pathlib"),
    "no model": (lambda models: colbuild.order(models), "no config.json", "GGUF"),
    "two sizes": (interpolate(params="400k", shape={"layers": 5}), "both 'params' and 'shape'", "keep one"),
    "no size": (interpolate(), "neither 'params' nor 'shape'", "params: 88M"),
    "too large": (interpolate(params="2M"), "is not between", "from 308,064 to 548,064"),
    "no number": (interpolate(params="big"), "not a count", "100M"),
    "no whole number": (interpolate(params=400_000.5), "not a whole number", "100M"),
    "an object": (interpolate(params=object()), "is not a valid value of this argument", "help()"),
    "another axis": (interpolate(shape={"layer": 5}), "unknown key 'layer'", "did you mean 'layers'?"),
    "too many layers": (interpolate(shape={"layers": 7}), "more than the larger model's 6", "6 layers"),
    "a shape outside": (interpolate(shape={"layers": 3}), "is not between", "keep every length"),
    "another method": (interpolate(params="400k", method="grup_alpha"), "'grup_alpha'", "did you mean group_alpha?"),
    "another alpha": (interpolate(params="400k", method="global_alpha", alpha="x"), "'alpha' must be", "0 is all"),
    "a seed as text": (interpolate(params="400k", seed="x"), "'seed' must be a whole number", "help()"),
    "tokens as text": (interpolate(params="400k", tokens="many"), "'many' is not a count", "20k"),
    "no text": (interpolate(params="400k", text=[1, 2]), "a value that is not text", "list of strings"),
    "no text file": (interpolate(params="400k", text="nowhere.txt"), "the text does not exist", ""),
    "a home of nobody": (lambda models: colbuild.order("~nouser/x"), "folder of an unknown user", "whole path"),
    "too long a path": (lambda models: colbuild.order("x" * 300), "file name too long", "another path"),
    "no texts": (interpolate(params="400k", text=[]), "the text is empty", "more than blanks"),
    "a mapping as text": (interpolate(params="400k", text={"a": 1}), "the text is a dict", "list of strings"),
    "several formats": (interpolate(params="400k", text=ROOT / "specs"), "several formats", "name one file"),
    "no token count": (interpolate(params="400k", tokens=None), "'tokens' is missing", "help()"),
    "one size": (
        lambda models: colbuild.interpolate(models / "large", models / "large", params="900M"),
        "both models have 548,064 parameters",
        "different sizes",
    ),
    "no progress": (interpolate(params="400k", progress=3), "progress is 3", "True, False"),
    "no prefix": (
        lambda models: colbuild.interpolate(models / "large", models / "tall", params="400k"),
        "does not fit inside",
        "at most the larger one's lengths",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_with_a_hint(case, models):
    call, message, hint = WRONG[case]
    with pytest.raises(colbuild.ColbuildError) as caught:
        call(models)
    assert message in caught.value.message
    assert caught.value.hint is not None
    assert hint in caught.value.hint
    assert str(caught.value) == f"{caught.value.message}\nhint: {caught.value.hint}"


def test_two_architectures_are_refused(models, tmp_path):
    config = GPT2Config(vocab_size=512, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "other")
    make_tiny_tokenizer(tmp_path / "other")
    with pytest.raises(colbuild.ColbuildError, match="different architectures") as caught:
        colbuild.interpolate(models / "large", tmp_path / "other", params="100k")
    assert caught.value.hint == "choose two models of one architecture and vocabulary"


def test_two_tokenizers_of_one_size_are_refused_before_anything_runs(models, tmp_path):
    shutil.copytree(models / "small", tmp_path / "other")
    file = tmp_path / "other/tokenizer.json"
    told = json.loads(file.read_text())
    words = told["model"]["vocab"]
    last = max(words, key=words.get)
    words[last + "x"] = words.pop(last)
    told["model"]["merges"].pop()
    file.write_text(json.dumps(told))
    heard = []
    with pytest.raises(colbuild.ColbuildError, match="but other tokens") as caught:
        colbuild.interpolate(models / "large", tmp_path / "other", params="400k", progress=heard.append, **QUICK)
    assert caught.value.hint == "choose two models of one architecture and vocabulary"
    assert {event.step for event in heard} <= {"source"}


def test_places_that_cannot_be_written_to_are_named(between, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name, message in {
        "link": "link is a link",
        "dangling": "dangling is a link",
        "file/x": "file is a file",
        "x" * 300: "file name too long",
    }.items():
        with pytest.raises(colbuild.ColbuildError, match=message) as caught:
            between.save(tmp_path / name)
        assert caught.value.hint


def test_a_folder_that_holds_something_is_not_overwritten(between, tmp_path):
    (tmp_path / "c").mkdir()
    between.save(tmp_path / "c")
    with pytest.raises(colbuild.ColbuildError, match="is there already"):
        between.save(tmp_path / "c")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(colbuild.ColbuildError, match="is there already"):
        between.save(tmp_path / "file")


def test_a_damaged_model_is_told(models, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(colbuild.ColbuildError) as caught:
        colbuild.order(tmp_path)
    assert caught.value.hint


def test_an_error_of_the_callers_function_comes_out_as_it_is(models):
    def tell(event):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        colbuild.order(models / "small", **QUICK, progress=tell)
    assert torch.get_default_dtype() == torch.float32


def test_two_threads_take_turns(models):
    made = []

    def order():
        made.append(colbuild.order(models / "small", **QUICK).parameters)

    threads = [threading.Thread(target=order) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2
    assert torch.get_default_dtype() == torch.float32
    assert torch.nn.Linear(2, 2).weight.device.type == "cpu"
