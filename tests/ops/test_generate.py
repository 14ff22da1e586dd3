"""Text that the AnsNet writes: many texts at once, the same as one after the other, and the same again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import AttentionInterface, AutoTokenizer

from colbuild.arch import ARCHITECTURES
from colbuild.errors import BuildError, StoppedError
from colbuild.hashing import scan_tree
from colbuild.ops.corpus.tokens import load_vocabulary
from colbuild.ops.shared.authorship import check_author
from colbuild.ops.shared.running_models import model_of, running_model
from colbuild.ops.shared.text_writing import draw_texts, drawn_tokens
from colbuild.plan.steps.generate import GENERATED_AT_ONCE, generated_at_once
from colbuild.train.losses.attention import BLOCKED, blocked_attention
from colbuild.weights.files.checkpoint import load_checkpoint
from tests.helpers.beginnings import beginning_with
from tests.helpers.steps import run_step
from tests.ops.bridges import done
from tests.ops.family import ansnet
from tests.weights.helpers import config_of, random_checkpoint

CPU = torch.device("cpu")
LIKELIEST = 1e-6
"""A temperature at which the likeliest token is drawn each time."""
PARAMS = {"tokens": 1500, "temperature": 1.0, "prompts": [], "length": 40, "seed": 1}


def texts(folder):
    return [json.loads(line)["text"] for line in (folder / "texts.jsonl").open(encoding="utf-8", newline="\n")]


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


def write_texts(model, starts, length, ends, *, temperature, seed):
    """The ids of texts as the step draws them."""
    return [text.ids for text in draw_texts(model, starts, length, ends, temperature=temperature, seed=seed)]


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


def test_the_step_writes_what_transformers_writes(monkeypatch):
    # In bf16 other sums of the same products decide between tokens that are almost equally likely.
    monkeypatch.setattr("colbuild.ops.generate.forward_type", lambda: torch.float32)
    prompts, vocabulary = ["Ada builds", "The sea"], load_vocabulary(ansnet())
    plain = model_of(load_checkpoint(ansnet()), torch.float32)
    starts = [[vocabulary.separator, *vocabulary.tokenizer.encode(prompt).ids] for prompt in prompts]
    expected = [vocabulary.tokenizer.decode(greedy(plain, start, 40, vocabulary.separator)[1:]) for start in starts]
    found = texts(written("likeliest", prompts=prompts, temperature=LIKELIEST, tokens=160))
    assert found == (expected * 2)[: len(found)]
    assert len(found) >= 4


def test_a_prompt_that_leaves_no_room_is_refused():
    with pytest.raises(BuildError, match="leaves no room in a text of 4 tokens"):
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
    whole = written("whole", tokens=3000)
    partial = tmp_path / "partial"

    def stopping():
        nonlocal asked
        # In the middle of the second batch.
        asked += partial.exists()
        return asked > 10

    (tmp_path / "first").mkdir()
    params = {**PARAMS, "tokens": 3000}
    with pytest.raises(StoppedError, match=r"stopped after [\d,]+ of 3,000 tokens"):
        run_step("generate", {"model": ansnet()}, params, tmp_path / "first", partial=partial, stopping=stopping)
    assert len(list(partial.iterdir())) == 1
    (tmp_path / "second").mkdir()
    run_step("generate", {"model": ansnet()}, params, tmp_path / "second", partial=partial)
    assert texts(tmp_path / "second") == texts(whole)


def test_a_row_is_the_same_whatever_the_others_are():
    ends = set(range(1, 512, 2))
    together = write_texts(running(), [[0]] * 16, 30, ends, temperature=1.0, seed=3)
    longer = write_texts(running(), [[0]] * 16, 30, set(), temperature=1.0, seed=3)
    assert all(one == other[: len(one)] for one, other in zip(together, longer, strict=True))


def test_tokens_are_drawn_as_often_as_they_are_likely():
    logits = torch.tensor([0.5, 2.0, -torch.inf, 1.0]).repeat(20_000, 1)
    drawn = drawn_tokens(
        logits, 0.7, torch.rand(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    )
    shares = torch.bincount(torch.tensor([token for token, _ in drawn]), minlength=4) / 20_000
    torch.testing.assert_close(shares, (logits[0] / 0.7).softmax(dim=-1), rtol=0.0, atol=0.01)
    assert drawn[0][1] == pytest.approx(-float(logits[0].log_softmax(dim=-1)[drawn[0][0]]))


@pytest.mark.parametrize("vocabulary", [511, 512, 1300])
def test_a_number_falls_to_the_token_that_the_sums_of_all_probabilities_say(vocabulary):
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(500, vocabulary, generator=generator) * 3
    chances = torch.rand(500, generator=generator, dtype=torch.float64)
    chances[:2] = torch.tensor([0.0, 1.0 - 2.0**-53], dtype=torch.float64)
    sums = logits.double().softmax(dim=-1).cumsum(dim=-1)
    found = torch.tensor([token for token, _ in drawn_tokens(logits, 1.0, chances)])
    expected = torch.searchsorted(sums, chances[:, None], right=True).squeeze(1).clamp(max=vocabulary - 1)
    assert (found == expected).float().mean() > 0.995  # numbers that lie between two tokens but for rounding
    assert int(found.max()) < vocabulary


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_text_that_its_author_finds_unlikely_fails_the_step(temperature, monkeypatch):
    def forgetful(module, query, key, value, mask, **settings):
        """Attention that cuts the keys to as many as there are queries."""
        seen = query.shape[2]
        return blocked_attention(module, query, key[:, :, :seen], value[:, :, :seen], mask, **settings)

    monkeypatch.setitem(AttentionInterface._global_mapping, BLOCKED, forgetful)
    with pytest.raises(BuildError, match="the text that the AnsNet wrote is wrong"):
        written("unlikely", temperature=temperature)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_what_is_drawn_costs_as_much_in_one_pass(name, dtype):
    model = running_model(random_checkpoint(config_of(name), seed=2), dtype, CPU)
    drawn = draw_texts(model, [[5], [6, 7, 8]] * 4, 20, set(), temperature=1.0, seed=1)
    running = model.config._attn_implementation
    check_author(model, drawn)
    assert model.config._attn_implementation == running
    with pytest.raises(BuildError, match=r"sampled \d+ tokens at \d\.\d\d nats each, and scores the same text at"):
        check_author(model, [replace(text, nats=[cost - 0.3 for cost in text.nats]) for text in drawn])


def ending(tmp_path, ids):
    """An AnsNet whose texts end with any of these ids."""
    folder = shutil.copytree(ansnet(), tmp_path / "ending")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": list(ids)}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("prompts", [[], ["Ada builds", "The sea"]])
def test_texts_of_nothing_but_a_prompt_do_not_count(prompts, tmp_path):
    folder = done("generate", {"model": ending(tmp_path, range(150))}, {**PARAMS, "prompts": prompts}, "some empty")
    found = texts(folder)
    assert all(text.strip() and text not in prompts for text in found)
    assert len(found) >= 1500 // 40


@pytest.mark.parametrize("prompts", [[], ["Ada builds", "The sea"]])
def test_mostly_empty_texts_fail_the_step(prompts, tmp_path):
    message = (
        r"of \d+ texts that the AnsNet wrote for data.generate are empty: after its begin token, '<\|endoftext\|>'"
    )
    with pytest.raises(BuildError, match=message) as caught:
        done("generate", {"model": ending(tmp_path, range(400))}, {**PARAMS, "prompts": prompts}, "empty")
    assert "data.begin" in caught.value.hint


def test_a_damaged_ansnet_is_said_so():
    model = running()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(BuildError, match="computes NaN or infinity"):
        write_texts(model, [[0]], 4, {0}, temperature=1.0, seed=0)


def test_texts_begin_with_what_the_tokenizer_puts_in_front(tmp_path):
    """As transformers writes them from `tokenizer(text)`."""
    folder = beginning_with(ansnet(), tmp_path / "model")
    found = texts(done("generate", {"model": folder}, {**PARAMS, "temperature": LIKELIEST, "tokens": 40}, "begun"))
    vocabulary = load_vocabulary(folder)
    ids = AutoTokenizer.from_pretrained(folder, local_files_only=True)("")["input_ids"]
    assert tuple(ids) == vocabulary.begin
    expected = greedy(running(), ids, PARAMS["length"], vocabulary.separator)
    assert found[0] == vocabulary.tokenizer.decode(expected[1:], skip_special_tokens=True)
    assert found[0] != texts(written("plain", temperature=LIKELIEST, tokens=40))[0]


def test_a_text_is_over_where_the_next_one_begins(tmp_path, monkeypatch):
    """Some models were trained without a token that ends texts: after a text comes the beginning of another one."""
    folder, seen = beginning_with(ansnet(), tmp_path / "model"), []

    def drawing(model, starts, length, ends, **settings):
        seen.append(ends)
        return draw_texts(model, starts, length, ends, **settings)

    monkeypatch.setattr("colbuild.ops.generate.draw_texts", drawing)
    done("generate", {"model": folder}, {**PARAMS, "tokens": 40}, "beginnings")
    assert set(load_vocabulary(folder).begin) <= seen[0]


def test_many_texts_of_a_small_model_are_written_at_once():
    model = load_checkpoint(ansnet()).structure
    assert generated_at_once(model, 256) == 256
    assert generated_at_once(model.at(replace(model.shape, layers=1_000)), 4096) == GENERATED_AT_ONCE
