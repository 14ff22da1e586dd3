"""Operations run one after the other in this process, in a temporary folder: the steps of a build without a family."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from colbuild.errors import BuildError
from colbuild.events import Event, Listener, Notice, StepProgress
from colbuild.interface.arguments import StrPath, existing, python_hint
from colbuild.progress import Progress
from colbuild.store.durable_files import storage_errors

SPLIT: Final = "train"
"""All of a text here: none of it is held out."""
_MARGIN: Final = 1.25
"""More tokens than are needed are written, since the same text may be cut into fewer when it is read again."""
_LONGEST_TEXT: Final = 256

_HINTS: Final = {"source": "give a folder that transformers loads, or a GGUF file"}
"""Operation -> the hint of an error that has none of its own."""
_BUG: Final = "report this bug of colbuild or a library, with the exception above"

_ONE_AT_A_TIME: Final = threading.Lock()
"""Models are built with settings of torch that hold for the whole process: its default type, weights without memory."""

Texts = StrPath | Iterable[str] | None
"""Text to look at: a file or folder, or a list of texts; None: text that the model writes itself."""


class Scratch:
    """A temporary folder that is removed with the last object that needs it.

    Args:
        listener: Told how far each operation is.

    Attributes:
        notes: What the operations noted of themselves.
    """

    def __init__(self, listener: Listener) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="colbuild-"))
        self._listener = listener
        self._raised: BaseException | None = None
        self._made = 0
        self.notes: dict[str, Any] = {}
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def run(
        self,
        op: str,
        inputs: Mapping[str, Path],
        params: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
    ) -> Path:
        """Runs an operation as a build does, and returns the folder that it filled.

        Raises:
            ColbuildError: It cannot be done.
        """
        from colbuild.ops.step_run import StepRun
        from colbuild.plan.steps.operations import OPERATIONS
        from colbuild.run.process.failures import UnexpectedError, explain

        output = self.folder(op)

        def report(progress: Progress) -> None:
            self._tell(StepProgress(op, progress))

        def remark(text: str) -> None:
            self._tell(Notice(f"{op}: {text}"))

        step = StepRun(inputs, output, report, settings=settings or {}, note=self.notes.update, remark=remark)
        try:
            with _ONE_AT_A_TIME:
                OPERATIONS[op].carry_out(step, params)
        except Exception as error:
            if self._raised is not None:
                # The caller's own error, which ended the operation.
                raise self._raised from None
            told = explain(error, output, output)
            told.hint = _BUG if isinstance(told, UnexpectedError) else python_hint(told.hint) or _HINTS.get(op)
            raise told from error
        return output

    def _tell(self, event: Event) -> None:
        try:
            self._listener(event)
        except BaseException as error:
            self._raised = error
            raise

    def folder(self, name: str) -> Path:
        """A new, empty folder."""
        self._made += 1
        folder = self._folder / f"{self._made}-{name}"
        folder.mkdir()
        return folder

    def model(self, given: StrPath, what: str) -> Path:
        """A model's folder in the form that operations read: what colbuild wrote is taken as it is, others are converted.

        Raises:
            BuildError: It is no model, or is of an architecture that is not supported.
        """
        from colbuild.weights.files.origin import ORIGIN

        path = existing(given, what)
        return path if (path / ORIGIN).is_file() else self.run("source", {"raw": path.resolve()}, {})

    def corpus(self, texts: Texts, model: Path, tokens: int, seed: int, what: str = "the text") -> Path:
        """Text in a model's tokens.

        Args:
            texts: The text.
            model: The model, which writes `tokens` tokens itself where no text is given.
            tokens: How many.
            seed: Of what it writes.
            what: The text's name in messages.

        Raises:
            BuildError: There is no text, or it cannot be read.
        """
        if texts is None:
            wanted = {"tokens": round(tokens * _MARGIN), "temperature": 1.0, "prompts": [], "length": _LONGEST_TEXT}
            raw = self.run("generate", {"model": model}, {**wanted, "seed": seed})
        elif isinstance(texts, str | os.PathLike):
            raw = existing(texts, what).resolve()
        else:
            raw = self._written(texts, what)
        params = {"format": "auto", "text": "text", "limit": None, "heldout": 0.0}
        return self.run("corpus", {"raw": raw, "tokenizer": model}, params)

    def _written(self, texts: Iterable[str], what: str) -> Path:
        if isinstance(texts, Mapping | bytes):
            raise BuildError(f"{what} is a {type(texts).__name__}", hint="give a file, or a list of strings")
        listed = list(texts) if isinstance(texts, Iterable) else [texts]
        if odd := [text for text in listed if not isinstance(text, str)]:
            raise BuildError(
                f"{what} holds a value that is not text: {odd[0]!r:.60}", hint="give a file, or a list of strings"
            )
        if not any(text.strip() for text in listed):
            raise BuildError(f"{what} is empty", hint="give text that holds more than blanks")
        file = self.folder("texts") / "texts.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in listed), encoding="utf-8")
        return file


def tokens_in(corpus: Path, most: int) -> int:
    """Returns the number of tokens of a corpus to read: all, up to `most`."""
    from colbuild.train.corpus.packing import open_corpus

    return min(most, max(1, open_corpus(corpus, SPLIT).tokens - 1))


def copy_to(folder: Path, target: Path) -> None:
    """Copies a folder to a place where there is none, or an empty one: all of it or nothing.

    Raises:
        BuildError: The disk refuses.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as beside:
            draft = Path(beside) / "copy"
            shutil.copytree(folder, draft)
            # An empty folder gives way; one that is not is refused here too.
            draft.replace(target)
