"""Distillations on text that the student writes: prose, conversations, and the same bytes again."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path

import pytest
import torch

from colbuild.errors import BuildError, StoppedError
from colbuild.hashing import scan_tree
from colbuild.ops.shared.answer_marks import Marks, answer_marks
from colbuild.ops.shared.running_models import model_of, running_model
from colbuild.ops.shared.student_writing import StudentWriter, conversation, own_text, prose
from colbuild.spec.model.recipe import Recipe
from colbuild.train.corpus.packing import open_corpus
from colbuild.train.corpus.text_windows import read_windows, training_windows
from colbuild.train.fused.compiler import find_compiler
from colbuild.train.fused.kernels import fused
from colbuild.train.fused.modules import fuse
from colbuild.train.loop.micro_batch import recompute
from colbuild.weights.files.checkpoint import load_checkpoint
from tests.helpers.steps import run_step
from tests.ops.family import ansnet, carry_out, distilled, noted_by, ordered, packed, recipe_of, room, training_of

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def on_policy(**changes):
    """A recipe as a step's parameter: half of the sequences are the student's."""
    asked = {"share": 0.5, "every": 2, "prompt": 8} | changes.pop("on_policy", {})
    return recipe_of(**{"tokens": 128 * 5, "on_policy": asked, "loss": {"type": "reverse_kl"}, **changes})


@functools.cache
def student():
    return model_of(load_checkpoint(ordered()), torch.float32)


def writer(**changes):
    recipe = Recipe.model_validate(on_policy(**changes), strict=False)
    return StudentWriter(recipe, open_corpus(packed(), "train"), student())


def nothing(_):
    pass


# -- writing ----------------------------------------------------------------------------------------------------------


def test_a_row_begins_as_the_corpus_does_and_goes_on_as_the_student_would():
    found = writer()
    tokens, drawn = found.write([3, 7], nothing)
    assert tokens.shape == drawn.shape == (2, 33)
    for row, place in enumerate((3, 7)):
        (window,) = training_windows(found.corpus, seed=3, step=place, batch=1, sequence=32)
        assert torch.equal(tokens[row, :8], read_windows(found.corpus, (window,), 32, apart=False).tokens[0, :8])
        assert not drawn[row, :8].any()
        assert drawn[row, 8]
    # Drawn from the student's distribution: on average as likely as its entropy says.
    with torch.no_grad():
        logs = student()(input_ids=tokens[:, :-1]).logits.log_softmax(-1)
    cost = -logs.gather(-1, tokens[:, 1:, None]).squeeze(-1)[drawn[:, 1:]].mean()
    entropy = -(logs.exp() * logs).sum(-1)[drawn[:, 1:]].mean()
    assert abs(cost - entropy) < 0.5


@pytest.mark.parametrize("documents", ["joined", "apart"])
def test_a_text_depends_on_its_place_alone(documents):
    found = writer(documents=documents)
    tokens, drawn = found.write([3, 7, 12], nothing)
    for row, place in enumerate((3, 7, 12)):
        alone = found.write([place], nothing)
        assert torch.equal(tokens[row : row + 1], alone[0])
        assert torch.equal(drawn[row : row + 1], alone[1])
    assert not torch.equal(tokens, writer(seed=4, documents=documents).write([3, 7, 12], nothing)[0])


def test_nothing_to_write_is_no_text():
    tokens, drawn = writer().write([], nothing)
    assert tokens.shape == drawn.shape == (0, 33)


def test_with_too_little_memory_fewer_rows_are_written_at_once(monkeypatch):
    found, sizes = writer(), []
    plain = StudentWriter._rows

    def rows(self, places, beat):
        sizes.append(len(places))
        if len(places) > 1:
            raise MemoryError
        return plain(self, places, beat)

    expected = found.write([1, 2, 3], nothing)
    monkeypatch.setattr(StudentWriter, "_rows", rows)
    halved = found.write([1, 2, 3], nothing)
    assert sizes[-1] == 1
    assert torch.equal(halved[0], expected[0])


def test_a_student_that_computes_its_activations_again_writes_the_same():
    model = model_of(load_checkpoint(ordered()), torch.float32)
    expected = writer().write([1, 2], nothing)
    recompute(list(model.model.layers))
    found = StudentWriter(writer().recipe, writer().corpus, model).write([1, 2], nothing)
    assert torch.equal(found[0], expected[0])


@pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
def test_a_student_with_fused_passes_writes_the_same(tmp_path):
    model, plain = running_model(load_checkpoint(ordered()), torch.float32, torch.device("cpu")), writer()
    expected = plain.write([1, 2], nothing)
    with fused(tmp_path):
        assert fuse(model) > 0
        found = StudentWriter(plain.recipe, plain.corpus, model).write([1, 2], nothing)
    assert torch.equal(found[0], expected[0])


def test_an_ended_text_is_followed_by_the_next_prompt():
    corpus = open_corpus(packed(), "train")
    separator = corpus.separator
    ids = [11, 12, 13, separator, 14, 15, 16]
    assert list(prose(ids, 3, corpus)) == [[11, 12, 13], [14, 15], [16]]


def test_prompts_begin_with_what_the_tokenizer_puts_in_front_of_texts():
    class Corpus:
        begin, separator = (1,), 2

    assert list(prose([1, 11, 12, 13, 14, 15], 3, Corpus)) == [[1, 11, 12], [1, 13, 14, 15]]
    # A document begins where the piece does.
    assert list(prose([1, 11, 2, 1, 14, 15], 3, Corpus)) == [[1, 11, 2], [1, 14, 15]]


def test_each_answer_of_a_conversation_gives_way():
    marks = Marks((7, 8), 9, "…")
    ids = [1, 2, 7, 8, 30, 31, 9, 3, 7, 8, 32, 9, 4, 5]
    assert list(conversation(ids, marks)) == [[1, 2, 7, 8], [3, 7, 8]]
    # The last answer has no end in the window.
    assert list(conversation(ids[:11], marks)) == [[1, 2, 7, 8], [3, 7, 8]]
    assert list(conversation([1, 2, 3], marks)) == []


# -- conversations ----------------------------------------------------------------------------------------------------


def chatting():
    """The tiny model with ChatML's tokens and template."""
    from tokenizers import Tokenizer

    folder = Path(tempfile.mkdtemp(dir=room())) / "chat"
    shutil.copytree(ansnet(), folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": tokenizer.get_vocab_size()}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": CHATML}))
    return folder


def test_the_chat_template_tells_where_answers_begin_and_end():
    folder = chatting()
    found = answer_marks(folder)
    assert found.text == "<|im_start|>assistant\n"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert found.end == tokenizer.token_to_id("<|im_end|>")
    assert tokenizer.decode(found.opening, skip_special_tokens=False) == found.text


def test_a_template_without_a_prompt_for_the_answer_marks_the_end_of_the_question():
    from colbuild.ops.shared.answer_marks import marks_in

    question = "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    llama = "{% for m in messages %}" + question + "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
    assert list(marks_in(nothing, llama, {})) == [(" [/INST] ", "</s>")]


def test_the_student_writes_the_answers_of_a_corpus_of_conversations(tmp_path):
    folder = chatting()
    asked = "<|im_start|>user\nHow old is {0}?<|im_end|>\n"
    turn = asked + "<|im_start|>assistant\n{0} is old.<|im_end|>\n"
    turns = [turn.format(name) for name in "abcdefgh"]
    (tmp_path / "chat.jsonl").write_text("\n".join(json.dumps({"text": turn}) for turn in turns * 6))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    params = {"format": "jsonl", "text": "text", "limit": None, "heldout": 0.0}
    run_step("corpus", {"raw": tmp_path / "chat.jsonl", "tokenizer": folder}, params, corpus)
    recipe = Recipe.model_validate(on_policy(sequence=48, on_policy={"prompt": "chat"}), strict=False)
    opened = open_corpus(corpus, "train")
    marks = answer_marks(folder)
    # A model that knows ChatML's tokens.
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=opened.vocabulary, **sizes)).eval()
    own = own_text(recipe, opened, model, {"chat": folder})
    tokens, drawn = StudentWriter(recipe, opened, model, marks).write(own.places(0), nothing)
    assert drawn.any(dim=1).all()
    size = len(marks.opening)
    for row in range(len(tokens)):
        begun = (drawn[row, 1:] & ~drawn[row, :-1]).nonzero().squeeze(1) + 1
        for at in begun.tolist():
            assert tuple(tokens[row, at - size : at].tolist()) == marks.opening


def test_a_corpus_without_answers_is_refused():
    recipe = Recipe.model_validate(on_policy(on_policy={"prompt": "chat"}), strict=False)
    with pytest.raises(BuildError, match=r"no answer begins in 64 sequences of the corpus: none has 'assistant: '"):
        own_text(recipe, open_corpus(packed(), "train"), student(), {"chat": ansnet()})


# -- the step ---------------------------------------------------------------------------------------------------------


def attempt(step, partial, stop_after=None):
    """A distillation's tree; None: it stopped, as it was asked to."""
    output = Path(tempfile.mkdtemp(prefix="distill-", dir=room()))
    asked = iter(range(10**6))
    stopping = lambda: stop_after is not None and next(asked) >= stop_after  # noqa: E731
    try:
        run_step("distill", *step, output, lambda _: None, partial, 1e9, stopping)
    except StoppedError:
        return None
    return scan_tree(output)


@pytest.mark.parametrize("documents", ["joined", "apart"])
def test_a_distillation_on_its_own_text_resumes_to_the_same_bytes(tmp_path, documents):
    step = distilled(ordered(), on_policy(documents=documents), layers=3, ffn=72)
    output = carry_out("distill", *step)
    whole = scan_tree(output)
    curve = training_of(output)["curve"]
    assert {reading["written"] > 0.3 for reading in curve} == {True}
    while (found := attempt(step, tmp_path, stop_after=3)) is None:
        pass
    assert found == whole


def test_the_record_counts_the_writing():
    step = distilled(ordered(), on_policy(), layers=3, ffn=72)
    plain = distilled(ordered(), recipe_of(tokens=128 * 5, loss={"type": "reverse_kl"}), layers=3, ffn=72)
    own, other = (noted_by(carry_out("distill", *one)) for one in (step, plain))
    # Three passes for each token that is learned, and one for each token of the written half.
    assert own["student_flops"] == pytest.approx(other["student_flops"] * (3 + 0.5) / 3)


@pytest.mark.parametrize("form", ["anchor", "segment"])
def test_elastic_students_write_as_a_whole(form):
    inputs, params = distilled(ordered(), on_policy(elastic={"form": form}), layers=3, ffn=72)
    if form == "anchor":
        params["interval"] = {**params["shape"], "ffn": 48, "layers": 2}
    output = carry_out("distill", inputs, params)
    assert all(reading["written"] > 0 for reading in training_of(output)["curve"])
