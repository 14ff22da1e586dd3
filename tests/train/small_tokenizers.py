"""Small tokenizers of every kind, trained on the tiny corpus."""

from __future__ import annotations

import functools
import json

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.helpers.tiny import SEPARATOR, tiny_documents, train_byte_level

byte_level = functools.cache(train_byte_level)


@functools.cache
def falling_back(size: int) -> Tokenizer:
    """A BPE over characters that spells those it does not know by their bytes, and marks spaces, as Llama's."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token=None))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    pieces = [SEPARATOR, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=pieces, show_progress=False)
    tokenizer.train_from_iterator(tiny_documents(), trainer)
    return with_special(tokenizer)


def with_special(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer whose bytes are tokens like others, and only the separator a special one."""
    facts = json.loads(tokenizer.to_str())
    facts["added_tokens"] = [token for token in facts["added_tokens"] if token["content"] == SEPARATOR]
    return Tokenizer.from_str(json.dumps(facts))


def lowering(size: int) -> Tokenizer:
    """A tokenizer that knows no capitals."""
    tokenizer = Tokenizer.from_str(byte_level(size).to_str())
    tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def composing(size: int) -> Tokenizer:
    """A tokenizer that writes every character in its composed form."""
    tokenizer = Tokenizer.from_str(byte_level(size).to_str())
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def by_words() -> Tokenizer:
    """A tokenizer that knows whole words, and no others."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=100, special_tokens=["[UNK]", SEPARATOR])
    tokenizer.train_from_iterator(tiny_documents(), trainer)
    return tokenizer
