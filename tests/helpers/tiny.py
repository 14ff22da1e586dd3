"""A tiny random llama with a tokenizer of its own and a tiny corpus: everything a whole build needs, made in a second.

`python -m tests.helpers.tiny [FOLDER]` writes what `specs/tiny.yaml` reads (default: `.tiny`).
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 512
SEPARATOR = "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)

_NAMES = ["Ada", "Bela", "Cara", "Dora", "Elsa", "Fina", "Gita", "Hana", "Iris", "Jana"]
_VERBS = ["builds", "measures", "paints", "repairs", "studies", "visits", "draws", "counts"]
_THINGS = ["bridges", "clocks", "gardens", "kettles", "lamps", "maps", "mirrors", "radios", "ships", "towers"]
_PLACES = ["in Aarhus", "by the sea", "in the mountains", "near Zürich", "under the old roof", "on a café table"]


def tiny_documents(count: int = 240, seed: int = 0) -> list[str]:
    """Documents of a few simple sentences, with some letters beyond ASCII."""
    rng = random.Random(seed)

    def sentence() -> str:
        return f"{rng.choice(_NAMES)} {rng.choice(_VERBS)} {rng.choice(_THINGS)} {rng.choice(_PLACES)}."

    return [" ".join(sentence() for _ in range(rng.randint(4, 30))) for _ in range(count)]


def train_byte_level(size: int, *, prefix: bool = False) -> Tokenizer:
    """A byte-level BPE trained on the tiny corpus, as GPT-2's; with `prefix` it puts a space before each text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[SEPARATOR],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tiny_documents(), trainer)
    return tokenizer


def make_tiny_tokenizer(folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json: byte-level BPE trained on the tiny corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    train_byte_level(VOCABULARY).save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SEPARATOR,
        "eos_token": SEPARATOR,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def make_tiny_model(
    folder: Path,
    *,
    layers: int = 6,
    hidden: int = 96,
    ffn: int = 192,
    heads: int = 6,
    kv_heads: int = 3,
    tied: bool = True,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Path:
    """Writes a random llama as a Hugging Face folder with a tokenizer; about 0.5M parameters by default."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
        # Wider than the usual 0.02, so that a random model's logits differ enough to be compared.
        initializer_range=0.08,
    )
    model = LlamaForCausalLM(config).to(dtype)
    make_tiny_tokenizer(folder)
    model.save_pretrained(folder)
    return folder


def make_tiny_corpus(path: Path) -> Path:
    """Writes the tiny corpus as text, one document per block of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n\n".join(tiny_documents()) + "\n", encoding="utf-8")
    return path


def make_tiny_inputs(folder: Path) -> None:
    """Writes `ansnet/` and `corpus.txt`, the inputs of `specs/tiny.yaml`."""
    make_tiny_model(folder / "ansnet")
    make_tiny_corpus(folder / "corpus.txt")


if __name__ == "__main__":
    make_tiny_inputs(Path(sys.argv[1] if len(sys.argv) > 1 else ".tiny"))
