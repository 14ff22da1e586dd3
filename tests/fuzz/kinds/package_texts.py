"""The texts of a package that are programs of a kind: its tokenizer and its chat template."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.fuzz.frame import Driver
from tests.fuzz.kinds.packages import MEMORY, SECONDS, answer_with, copied, special, start
from tests.fuzz.mutate import mutated_bytes, mutated_json
from tests.helpers.toy_package import TEMPLATE, list_files

# -- the tokenizer ----------------------------------------------------------------------------------------------------


def _with_tokenizer(**changes: Any) -> Callable[[Path, Path], None]:
    def write(toy: Path, folder: Path) -> None:
        package = copied(toy, folder)
        path = package / "tokenizer.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        list_files(package)

    return write


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _all_of(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": parts}


_TOKENIZERS: Final = {
    "backtracking": _with_tokenizer(pre_tokenizer=_split(r"(\w+)+\d")),
    "backtracking 2": _with_tokenizer(pre_tokenizer=_split(r"^(([a-z])+.)+[A-Z]([a-z])+$")),
    "empty matches": _with_tokenizer(pre_tokenizer=_split("")),
    "lookbehind": _with_tokenizer(pre_tokenizer=_split(r"(?<=a{1,100000})b{99999}")),
    "doubling": _with_tokenizer(normalizer=_all_of([_replace({"String": "e"}, "ee")] * 64)),
    "endless text": _with_tokenizer(normalizer=_all_of([_replace({"Regex": "^"}, "x" * 1000)] * 10_000)),
    "nested": _with_tokenizer(normalizer=json.loads('{"type":"Sequence","normalizers":[' * 100 + "]}" * 100)),
    "no parts": _with_tokenizer(model={"type": "BPE", "vocab": {}, "merges": []}),
    "wide padding": _with_tokenizer(padding={
        "strategy": {"Fixed": 2**40}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "a",
    }),
    "precompiled": _with_tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAAAAAAAA"}),
    "unigram": _with_tokenizer(model={"type": "Unigram", "unk_id": 2**40, "vocab": [["a", -1.0]]}),
    "wordpiece": _with_tokenizer(model={
        "type": "WordPiece", "unk_token": "none", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 2**60, "vocab": {"a": 0},
    }),
    "huge ids": _with_tokenizer(model={"type": "BPE", "vocab": {"h": 2**32 - 1, "e": 1}, "merges": []}),
    "added": _with_tokenizer(added_tokens=[{
        "id": 2**32 - 1, "content": "h", "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": True,
    }]),
    "pipe": special("tokenizer.json"),
}  # fmt: skip


def _make_tokenizer(toy: Path, random: Random, folder: Path) -> None:
    package = copied(toy, folder)
    path = package / "tokenizer.json"
    content = json.loads(path.read_text())
    content["normalizer"] = random.choice((
        None, {"type": "NFKC"}, _all_of([{"type": "Lowercase"}, _replace({"Regex": r"\s+"}, " ")]),
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
         "lowercase": True},
    ))  # fmt: skip
    content["pre_tokenizer"] = random.choice(
        (content["pre_tokenizer"], _split(r"\w+|[^\w\s]+"), {"type": "Whitespace"})
    )
    content["model"] = random.choice((
        content["model"],
        {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["h", -1.0], ["ello", -2.0]], "byte_fallback": False},
        {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
         "vocab": {"[UNK]": 0, "h": 1, "##ello": 2}},
        {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "hello": 1}},
    ))  # fmt: skip
    path.write_bytes(mutated_json(random, content))
    list_files(package)


def _try_tokenizer(_seeds: Path, folder: Path) -> None:
    answer_with(folder / "toy", chat=False)


def _try_source(_seeds: Path, folder: Path) -> None:
    """As a plan and the step `source` read the tokenizer of an AnsNet for the first time."""
    from colbuild.arch.files import tokenizer_trial
    from colbuild.arch.files.tokenizer_file import load_tokenizer

    tokenizer_trial.TOKENIZER_SECONDS = SECONDS
    path = folder / "toy/tokenizer.json"
    tokenizer_trial.try_tokenizer(path)
    load_tokenizer(path)


# -- the chat template ------------------------------------------------------------------------------------------------

_PIECES: Final = (
    TEMPLATE,
    "{% for i in range(10**9) %}a{% endfor %}",
    "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 10**10 }}",
    "{{ 10**(10**10) }}",
    "{{ ('a'|center(10**11))|length }}",
    "{{ ([range(99999)|list]|first|join('a' * 99999))|length }}",
    "{{ '%099999999999d'|format(1) }}",
    "{{ '{:099999999999d}'.format(1) }}",
    "{{ 'a'.ljust(10**10) }}{{ 'a\tb'.expandtabs(10**10) }}",
    "{{ [1]|batch(10**10, 0)|list }}{{ [1]|slice(10**10)|list }}",
    "{{ lipsum(n=99999) }}",
    "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(99) }}",
    "{% set n = namespace(x='aa') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x|length }}",
    "{% for x in [[1, 2]] recursive %}{{ loop([x, x]) }}{% endfor %}",
    "{{ ().__class__.__base__.__subclasses__() }}{{ messages.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.system('touch ../outside/written') }}",
    "{% include '/etc/passwd' %}{% import 'os' as os %}",
    "{{ raise_exception(10**5000) }}{{ strftime_now('%Y' * 99999) }}",
    "{{ messages|tojson(indent=10**10) }}",
    "{" * 5000, "(" * 5000, "{{ " + "-" * 50_000 + "1 }}", "{{ [" + "[" * 500 + "]" * 500 + "] }}",
    "{{ 1" + " + 1" * 3_000 + " }}", "{{ 'a'" + "|upper" * 3_000 + " }}",
)  # fmt: skip


def _with_template(source: str) -> Callable[[Path, Path], None]:
    def write(toy: Path, folder: Path) -> None:
        package = copied(toy, folder)
        (package / "chat_template.jinja").write_text(source, encoding="utf-8", errors="replace")
        list_files(package)

    return write


def _make_template(toy: Path, random: Random, folder: Path) -> None:
    pieces = [random.choice(_PIECES[:20]) for _ in range(random.randrange(1, 4))]
    source = mutated_bytes(random, "".join(pieces).encode()).decode("utf-8", "replace")
    _with_template(source)(toy, folder)


def _try_template(_seeds: Path, folder: Path) -> None:
    from colbuild.errors import BuildError
    from colbuild.export.runtime import chat_template

    chat_template._BOUNDS = chat_template.Bounds(SECONDS, chat_template.TEMPLATE_MEMORY)
    # Before a package is made, and when one is asked.
    try:
        template = chat_template.read_template(folder / "toy")
    except BuildError:
        template = None
    assert template is None or template.works in (True, False)
    answer_with(folder / "toy", chat=True)


DRIVERS: Final = (
    Driver("package: tokenizer.json", start, _make_tokenizer, _try_tokenizer, _TOKENIZERS, memory=MEMORY),
    Driver("tokenizer.json", start, _make_tokenizer, _try_source, _TOKENIZERS, memory=MEMORY),
    Driver(
        "package: chat template",
        start,
        _make_template,
        _try_template,
        {f"piece {place}": _with_template(piece) for place, piece in enumerate(_PIECES)},
        memory=MEMORY,
    ),
)
