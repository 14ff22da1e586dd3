"""Chat templates: rendered here exactly as transformers renders them, and from wherever it reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from colbuild.errors import BuildError
from colbuild.export.runtime.chat_template import ChatTemplate, read_template
from tests.helpers.tiny import make_tiny_tokenizer

ROOT = Path(__file__).parents[2]
PROMPT = "Zürich <b> & 'x'\n {{ no }}"
TRICKY = {
    "generation": (
        "{%- set seen = 0 %}{% for m in messages %}{% generation %}{% set seen = 1 %}{{ m.content }}{{ seen }}"
        "{% endgeneration %}\n|{{ seen }}{% endfor %}"
    ),
    "generation, trimmed": "a\n  {%- generation -%}\n  b  \n  {%- endgeneration %}\n  {% generation %}\nc{% endgeneration %}",
    "strftime_now": "{{ strftime_now('%d %b %Y') }}{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}",
    "tojson": "{{ messages | tojson }}{{ messages | tojson(indent=2) }}{{ {'b': '<é>', 'a': none} | tojson(sort_keys=true) }}",
    "tojson, all options": (
        "{{ messages[0] | tojson(ensure_ascii=true, separators=(',', ':'), indent='\t') }}{{ 'ß' | tojson(true) }}"
    ),
    "raise_exception": "{% if messages|length > 1 %}{{ raise_exception('one at a time') }}{% endif %}fine",
    "loop controls": (
        "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}{% endif %}"
        "{{ i }}{% endfor %}"
    ),
    "trim and lstrip": "  {% if true %}\n    kept\n  {% endif %}\n\n\t{# gone #}\n end\n",
    "namespace": (
        "{% set ns = namespace(last=none, n=0) %}{% for m in messages %}{% set ns.last = m %}"
        "{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.last.role }}{{ ns.n }}"
    ),
    "dict": "{{ dict(a=1, b=2) | tojson }}{{ dict.fromkeys(['x'], 0) }}",
    "tools are none": (
        "{{ tools is defined }}{{ tools is none }}{{ documents is none }}{% if tools is not none %}tools!{% endif %}"
        "{{ nothing is defined }}"
    ),
    "special tokens": "{{ bos_token }}|{{ eos_token }}|{{ image_token }}|{{ pad_token is defined }}|{{ own_token }}",
    "macro": (
        "{% macro say(m) %}[{{ m.role }}: {{ m['content'] | trim }}]{% endmacro %}"
        "{% for m in messages %}{{ say(m) }}{% endfor %}"
    ),
    "strings": (
        "{{ messages[0].content.split('\n')[0].strip().replace('b', 'c') | upper }}"
        "{{ '%s' | format('x') }}{{ messages[-1]['role'] }}"
    ),
    "prompt": (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
}
REFUSED = {
    "syntax": "{% for %}",
    "raised": "{{ raise_exception('roles must alternate') }}",
    "dunder": "{{ ''.__class__.__mro__ }}",
    "undefined": "{{ messages[0].content.no() }}",
    "namespace": "{% set ns = namespace(_x=1) %}",
    "mutation": "{{ messages.append(1) }}",
    "too large": "{{ range(100000000) }}",
    "division": "{{ 1 // 0 }}",
    "recursion": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
}


def tokenizer_with(folder: Path, template: Any = None, **settings: Any) -> Path:
    """A tokenizer folder whose settings have a template, or several, or none."""
    make_tiny_tokenizer(folder)
    path = folder / "tokenizer_config.json"
    known = json.loads(path.read_text())
    known.pop("chat_template")
    path.write_text(json.dumps({**known, **settings, **({} if template is None else {"chat_template": template})}))
    return folder


def ours(folder: Path) -> str:
    found = read_template(folder)
    assert found is not None
    return found.render(PROMPT)


def theirs(folder: Path) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": PROMPT}]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


@pytest.mark.parametrize("name", list(TRICKY))
def test_a_template_is_rendered_as_transformers_renders_it(name: str, tmp_path: Path) -> None:
    special = {"extra_special_tokens": {"image_token": "<img>"}, "own_token": "<own>"}
    folder = tokenizer_with(tmp_path / "t", TRICKY[name], **special)
    assert ours(folder) == theirs(folder)
    assert ours(folder)


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_template_that_fails_or_escapes_is_an_error_not_a_traceback(name: str, tmp_path: Path) -> None:
    template = ChatTemplate(REFUSED[name], {})
    with pytest.raises(BuildError, match="chat template fails"):
        template.render("hello")
    assert not template.works
    with pytest.raises(Exception):  # noqa: B017 (transformers lets anything through)
        theirs(tokenizer_with(tmp_path / "t", REFUSED[name]))


NAMED = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes {{ bos_token }}"}]
PLACES: dict[str, tuple[Any, dict[str, str]]] = {
    "a text": ("config {{ messages[0].content }}", {}),
    "a list": (NAMED, {}),
    "a file": (None, {"chat_template.jinja": "file {{ messages[0].role }}"}),
    "a file before the settings": ("config", {"chat_template.jinja": "file"}),
    "a file before a list": (NAMED, {"chat_template.jinja": "file"}),
    "several files": (None, {"chat_template.jinja": "file", "additional_chat_templates/tool_use.jinja": "no"}),
}


@pytest.mark.parametrize("place", list(PLACES))
def test_a_template_is_read_from_where_transformers_reads_it(place: str, tmp_path: Path) -> None:
    settings, files = PLACES[place]
    folder = tokenizer_with(tmp_path / "t", settings)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    assert ours(folder) == theirs(folder)


def test_special_tokens_are_found_in_their_older_file(tmp_path: Path) -> None:
    folder = tokenizer_with(
        tmp_path / "t", "{{ bos_token }}|{{ pad_token }}|{{ mask_token is defined }}", bos_token=None
    )
    more = {"bos_token": {"content": "<s>", "lstrip": False, "normalized": False}, "pad_token": "<pad>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(more))
    assert ours(folder) == theirs(folder) == "<s>|<pad>|False"


def test_templates_without_a_default_are_none(tmp_path: Path) -> None:
    assert read_template(tmp_path) is None
    assert read_template(tokenizer_with(tmp_path / "none")) is None
    assert read_template(tokenizer_with(tmp_path / "named", NAMED[:1])) is None


def test_transformers_is_not_imported(tmp_path: Path) -> None:
    folder = tokenizer_with(tmp_path / "t", TRICKY["generation"])
    code = (
        "import sys; from pathlib import Path; from colbuild.export.runtime.chat_template import read_template\n"
        "print(read_template(Path(sys.argv[1])).render('x'))\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, check=True)


ENDLESS = {
    "a long loop": ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
    "loops in loops": ("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}", "steps"),
    "a generator": (
        "{% for i in range(9999) %}{% for j in range(9999)|map('abs') %}{% endfor %}{% endfor %}",
        "steps",
    ),
    "macros": ("{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}", "steps"),
    "a recursive loop": ("{% for x in [[1, 2]] recursive %}{{ loop([x, x]) }}{% endfor %}", "recursion"),
    "a long text": ("{{ 'a' * 10**10 }}", "more than 1.0 MB"),
    "a long list": ("{{ ([0] * 10**9)|length }}", "more than 1.0 MB"),
    "a large number": ("{{ 10**(10**10) }}", "more than 1.0 MB"),
    "a wide number": ("{{ '%099999999999d' % 1 }}", "more than 1.0 MB"),
    "doubling": (
        "{% set n = namespace(x='aa') %}{% for i in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "1.0 MB",
    ),
    "much output": ("{% for i in range(9999) %}{{ 'a' * 9999 }}{% endfor %}", "more than 1.0 MB"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_without_end_is_stopped(name: str):
    source, told = ENDLESS[name]
    with pytest.raises(BuildError, match="chat template fails") as caught:
        ChatTemplate(source, {}).render(PROMPT)
    assert told in caught.value.message


def test_what_a_filter_makes_of_little_is_tried_elsewhere():
    assert not ChatTemplate("{{ ('a'|center(10**11))|length }}", {}).works
    assert not ChatTemplate("{{ ([range(99999)|list]|first|join('a' * 99999))|length }}", {}).works
    assert ChatTemplate("{{ messages[0].content }}", {}).works


def test_a_template_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "additional_chat_templates").mkdir()
    os.mkfifo(tmp_path / "additional_chat_templates/default.jinja")
    with pytest.raises(BuildError, match="is not a regular file"):
        read_template(tmp_path)
