"""How an answer begins and ends in a conversation that was rendered with a chat template, in tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from colbuild.bounds import TEMPLATE_MEMORY, TEMPLATE_SECONDS
from colbuild.confined import Bounds, Task, confined
from colbuild.errors import BuildError
from colbuild.export.runtime.chat_template import read_template
from colbuild.export.runtime.template_sandbox import render
from colbuild.ops.corpus.tokens import load_vocabulary

_QUESTION: Final = "Which?"
_ANSWER: Final = "This."
_HINT: Final = "set on_policy.prompt to a number of tokens"


@dataclass(frozen=True)
class Marks:
    """The tokens around an answer.

    Attributes:
        opening: Token ids that an answer follows.
        end: The token that ends it.
        text: The opening in words, for messages.
    """

    opening: tuple[int, ...]
    end: int
    text: str


def answer_marks(folder: Path) -> Marks:
    """Returns the marks of a model's answers, from its chat template: ChatML's `<|im_start|>assistant` and `<|im_end|>`.

    Raises:
        BuildError: The model has no chat template, or one that refuses a conversation, or puts nothing in front of answers.
    """
    template = read_template(folder)
    if template is None:
        raise BuildError("on_policy.prompt is chat, but the teacher has no chat template", hint=_HINT)
    given = {"source": template.source, "special": dict(template.special)}
    bounds = Bounds(TEMPLATE_SECONDS, TEMPLATE_MEMORY)
    found = list(confined(Task(__name__, "marks_in", given, "the chat template", _HINT), bounds))
    opening, ending = found[0]
    vocabulary = load_vocabulary(folder)
    ids = vocabulary.tokenizer.encode(opening, add_special_tokens=False).ids
    if not ids:
        raise BuildError(
            "on_policy.prompt is chat, but the chat template puts nothing in front of an answer", hint=_HINT
        )
    behind = vocabulary.tokenizer.encode(ending, add_special_tokens=False).ids
    special = vocabulary.tokenizer.get_added_tokens_decoder()
    end = next((token for token in behind if token in special), vocabulary.separator)
    return Marks(tuple(ids), end, opening)


def marks_in(beat: Callable[[], None], source: str, special: dict[str, str]) -> Iterator[tuple[str, str]]:
    """In a process of its own: (what a template puts in front of an answer, what it puts behind one)."""
    question = {"role": "user", "content": _QUESTION}
    answer = {"role": "assistant", "content": _ANSWER}

    def rendered(*messages: dict[str, str], prompts: bool = False) -> str:
        given: dict[str, Any] = {"messages": list(messages), "tools": None, "documents": None}
        try:
            return render(source, {**special, **given, "add_generation_prompt": prompts})
        except Exception as error:  # noqa: BLE001  (a template is a program, and may raise anything)
            raise BuildError(f"the chat template fails: {error}", hint=_HINT) from None

    asked = rendered(question)
    before, _, behind = rendered(question, answer).partition(_ANSWER)
    opening = rendered(question, prompts=True).removeprefix(asked)
    # Templates without a prompt for the answer mark the end of the question: [/INST].
    yield opening or before.partition(_QUESTION)[2], behind
