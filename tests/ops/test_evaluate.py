"""The evaluate step, end to end, against a computation by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from colbuild.errors import BuildError
from colbuild.train.corpus.packing import open_corpus
from colbuild.train.loop.devices import forward_type
from tests.helpers.tiny import make_tiny_model
from tests.ops.family import ansnet, carry_out, larger, ordered, packed, progress_of, smaller, twice

ALL = 10**9


def metrics(model, reference=None, tokens=ALL, split="heldout"):
    folder = carry_out(
        "evaluate",
        {"model": model, "reference": reference or ansnet(), "corpus": packed()},
        {"tokens": tokens, "split": split},
    )
    return json.loads((folder / "metrics.json").read_text())


def heldout_documents():
    """Token ids of each held-out document, without separators."""
    corpus = open_corpus(packed(), "heldout")
    found = [[]]
    for token in corpus.read(0, corpus.tokens).tolist():
        if token == corpus.separator:
            found.append([])
        else:
            found[-1].append(token)
    return corpus.separator, found[:-1]


def test_bits_per_byte_equal_a_computation_by_hand():
    separator, documents = heldout_documents()
    assert max(map(len, documents)) < 512  # each is one window
    tokenizer = Tokenizer.from_file(str(ansnet() / "tokenizer.json"))
    model, reference = (AutoModelForCausalLM.from_pretrained(f, dtype=forward_type()) for f in (smaller(), ansnet()))
    nats, kl, tokens, size, agreed = 0.0, 0.0, 0, 0, 0
    for ids in documents:
        inputs = torch.tensor([[separator, *ids[:-1]]])
        with torch.no_grad():
            ours, theirs = model(input_ids=inputs).logits[0], reference(input_ids=inputs).logits[0]
        likely = torch.log_softmax(ours.float(), dim=-1)
        reference_likely = torch.log_softmax(theirs.float(), dim=-1)
        kl += float((reference_likely.exp() * (reference_likely - likely)).sum())
        nats -= float(sum(likely[place, token] for place, token in enumerate(ids)))
        agreed += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        tokens += len(ids)
        size += len(tokenizer.decode(ids).encode("utf-8"))
    found = metrics(smaller())
    assert (found["tokens"], found["bytes"]) == (tokens, size)
    assert found["loss"] == pytest.approx(nats / tokens, rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(nats / size / math.log(2), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert found["top1_agreement"] == pytest.approx(agreed / tokens)
    assert found["kl"] == pytest.approx(kl / tokens, rel=1e-4)
    assert found["split"] == "heldout"


def test_the_ansnet_agrees_with_itself():
    assert metrics(ansnet())["top1_agreement"] == 1.0
    assert metrics(ansnet())["kl"] == 0.0


def test_the_ordered_ansnet_is_measured_like_the_ansnet():
    found = metrics(ordered())
    # The same function, summed in another order and in bf16.
    assert found["top1_agreement"] > 0.8
    assert found["loss"] == pytest.approx(metrics(ansnet())["loss"], rel=5e-3)


def test_a_model_less_like_the_ansnet_agrees_less():
    assert metrics(smaller())["top1_agreement"] < metrics(larger())["top1_agreement"] < 1.0
    assert metrics(smaller())["kl"] > metrics(larger())["kl"] > 0.0


def test_fewer_tokens_measure_whole_documents_from_the_start():
    _, documents = heldout_documents()
    found = metrics(smaller(), tokens=1)
    assert found["tokens"] == len(documents[0])
    assert metrics(smaller(), tokens=len(documents[0]) + 1)["tokens"] == len(documents[0]) + len(documents[1])


def test_same_inputs_give_the_same_bytes():
    inputs = {"model": smaller(), "reference": ansnet(), "corpus": packed()}
    first, second = twice("evaluate", inputs, {"tokens": 500, "split": "heldout"})
    assert first == second
    assert [entry.path for entry in first] == ["metrics.json"]


def test_a_model_of_few_positions_is_measured_in_shorter_windows(tmp_path):
    model = make_tiny_model(tmp_path / "short", layers=1, hidden=24, ffn=8, heads=3)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 16}))
    _, documents = heldout_documents()
    found = metrics(model, model)
    assert found["tokens"] == sum(map(len, documents))


def test_corpus_of_another_tokenizer_is_an_error(tmp_path):
    model = make_tiny_model(tmp_path / "small", layers=1, hidden=24, ffn=8, heads=3)
    small = AutoModelForCausalLM.from_pretrained(model)
    small.resize_token_embeddings(300)
    small.save_pretrained(model)
    with pytest.raises(BuildError, match=r"tokenizer has \d+ tokens, the model's embedding has 300"):
        metrics(model)


@pytest.mark.parametrize("value", [3e38, 1e30])
def test_a_model_that_computes_no_numbers_is_an_error(tmp_path, value):
    model = make_tiny_model(tmp_path / "lost", layers=1, hidden=24, ffn=8, heads=3)
    lost = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        lost.model.norm.weight.fill_(value)
    lost.save_pretrained(model)
    with pytest.raises(BuildError, match="the model's loss is"):
        metrics(model)


def test_an_ansnet_that_computes_no_numbers_is_an_error(tmp_path):
    reference = make_tiny_model(tmp_path / "lost", layers=1, hidden=24, ffn=8, heads=3)
    lost = AutoModelForCausalLM.from_pretrained(reference)
    with torch.no_grad():
        lost.model.norm.weight.fill_(3e38)
    lost.save_pretrained(reference)
    with pytest.raises(BuildError, match="the divergence from the AnsNet is nan"):
        metrics(smaller(), reference)


def test_progress_counts_every_token():
    inputs = {"model": smaller(), "reference": ansnet(), "corpus": packed()}
    told = progress_of("evaluate", inputs, {"tokens": ALL, "split": "heldout"})
    assert told[-1].done == told[-1].total == metrics(smaller())["tokens"]
    assert told[-1].metrics["bits/byte"] == pytest.approx(metrics(smaller())["bits_per_byte"])
