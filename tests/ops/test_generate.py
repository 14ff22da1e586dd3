"""Text that the AnsNet writes: many texts at once, the same as one after the other, and the same again."""

from __future__ import annotations

import json

import pytest
import torch

from colbuild.arch import ARCHITECTURES
from colbuild.errors import BuildError, StoppedError
from colbuild.ops import generate
from colbuild.ops.corpus.tokens import load_vocabulary
from colbuild.ops.generate import write_texts
from colbuild.ops.models import model_of, running_model
from colbuild.ops.step import StepRun
from colbuild.store.hashing import scan_tree
from colbuild.weights.checkpoint import load_checkpoint
from tests.ops.bridges import done
from tests.ops.family import ansnet
from tests.weights.helpers import config_of, random_checkpoint

CPU = torch.device("cpu")
LIKELIEST = 1e-6
"""A temperature at which the likeliest token is drawn each time."""
PARAMS = {"tokens": 1500, "temperature": 1.0, "prompts": [], "length": 40, "seed": 1}


def texts(folder):
    return [json.loads(line)["text"] for line in (folder / "texts.jsonl").read_text(encoding="utf-8").splitlines()]


def written(name, **changes):
    return done("generate", {"model": ansnet()}, {**PARAMS, **changes}, name)


def test_the_same_texts_again_and_others_by_another_seed():
    first, second, other = written("one"), written("two"), written("three", seed=2)
    assert scan_tree(first) == scan_tree(second)
    assert texts(first) != texts(other)
    assert len(texts(first)) >= 1500 // 40


def test_prompts_begin_the_texts_in_turn():
    found = texts(written("prompted", prompts=["Ada builds", "The sea"]))
    assert all(text.startswith(("Ada builds", "The sea")[index % 2]) for index, text in enumerate(found))


def running():
    """The AnsNet as the step runs it."""
    return running_model(load_checkpoint(ansnet()), torch.float32, CPU)


def greedy(model, start, length, end=None):
    """What transformers' own `generate` writes, the id that ends it left out."""
    settings = {"do_sample": False, "eos_token_id": end, "pad_token_id": 0}
    ids = model.generate(torch.tensor([start]), max_new_tokens=length + 1 - len(start), **settings)[0].tolist()
    return ids[:-1] if len(ids) > len(start) and ids[-1] == end else ids


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_it_writes_what_transformers_writes_on_every_architecture(name):
    checkpoint = random_checkpoint(config_of(name), seed=2)
    plain = model_of(checkpoint, torch.float32)
    starts = [[5], [6, 7, 8], [9, 10]]
    ours = write_texts(running_model(checkpoint, torch.float32, CPU), starts, 20, set(), temperature=LIKELIEST, seed=1)
    assert ours == [greedy(plain, start, 20) for start in starts]


def test_the_step_writes_what_transformers_writes():
    prompts, vocabulary = ["Ada builds", "The sea"], load_vocabulary(ansnet())
    plain = model_of(load_checkpoint(ansnet()), torch.float32)
    starts = [[vocabulary.separator, *vocabulary.tokenizer.encode(prompt).ids] for prompt in prompts]
    expected = [vocabulary.tokenizer.decode(greedy(plain, start, 40, vocabulary.separator)[1:]) for start in starts]
    found = texts(written("likeliest", prompts=prompts, temperature=LIKELIEST, tokens=160))
    assert found == (expected * 2)[: len(found)]
    assert len(found) >= 4


def test_a_prompt_that_leaves_no_room_is_refused():
    with pytest.raises(BuildError, match="leaves nothing of a text of 4 to write"):
        written("full", prompts=["Ada builds bridges near the old roof"], length=4)


def test_rows_side_by_side_are_what_each_is_alone():
    model = running()
    starts = [[0, 300], [0, 310, 320, 330], [0]]
    together = write_texts(model, starts, 24, {0}, temperature=LIKELIEST, seed=5)
    for start, text in zip(starts, together, strict=True):
        assert write_texts(model, [start], 24, {0}, temperature=LIKELIEST, seed=6) == [text]
        assert text[: len(start)] == start
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(together[:1])).logits[0]
    assert logits.argmax(dim=-1)[1:-1].tolist() == together[0][2:]


def test_rows_that_end_are_taken_out_of_the_batch():
    model = running()
    ends = set(range(1, 512, 2))  # every second token ends a text
    found = write_texts(model, [[0]] * 16, 30, ends, temperature=1.0, seed=3)
    lengths = {len(text) for text in found}
    assert len(lengths) > 2
    assert all(not ends & set(text) for text in found)


def test_an_interrupted_run_goes_on_to_the_same_texts(tmp_path):
    asked = 0

    def stopping():
        nonlocal asked
        asked += 1
        return asked > 1

    whole = written("whole", tokens=3000)
    partial = tmp_path / "partial"
    (tmp_path / "first").mkdir()
    params = {**PARAMS, "tokens": 3000}
    with pytest.raises(StoppedError, match=r"stopped after [\d,]+ of 3,000 tokens"):
        generate.run(StepRun({"model": ansnet()}, params, tmp_path / "first", partial=partial, stopping=stopping))
    assert len(list(partial.iterdir())) == 1
    (tmp_path / "second").mkdir()
    generate.run(StepRun({"model": ansnet()}, params, tmp_path / "second", partial=partial))
    assert texts(tmp_path / "second") == texts(whole)


def test_a_damaged_ansnet_is_said_so():
    model = running()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(BuildError, match="computes NaN or infinity"):
        write_texts(model, [[0]], 4, {0}, temperature=1.0, seed=0)
