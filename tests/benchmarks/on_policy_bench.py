"""What the on-policy benchmark trains and scores: its texts, its start, and its trainings, made by a build's operations."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.distill_inputs import inputs_in
from tests.helpers.steps import run_step

KINDS: Final = ("prose", "chat")
STUDENT: Final = 0.75
"""Of the AnsNet's parameters: 101M of SmolLM2-135M's."""

SEQUENCE: Final = 256
BATCH: Final = 4
PROMPT: Final = 64
_ROWS: Final = 64
_PERIODS: Final = 2
"""Periods of the training that tells a way's speed: the second does, which holds one writing."""


@dataclass(frozen=True)
class Setting:
    """How thoroughly is compared.

    Attributes:
        work: Where all is kept.
        seeds: How many.
        tokens: That `forward_kl` off policy learns from; the start has half as many before.
        every: Steps of a period.
    """

    work: Path
    seeds: int
    tokens: int
    every: int = 8

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{self.tokens} tokens"

    @property
    def scored(self) -> int:
        """Held-out tokens that a model is scored on."""
        return min(16_384, 2 * self.tokens)

    @property
    def written(self) -> int:
        """Rows that a model writes to be scored on."""
        return max(8, min(_ROWS, self.tokens // 1_024))

    @property
    def chat(self) -> int:
        """Tokens of conversations to write."""
        return 3 * self.tokens + self.scored


@dataclass(frozen=True)
class Trained:
    """A trained model and the CPU seconds that its steps took, in this run and those before."""

    folder: Path
    seconds: float


class Bench:
    """Where it is trained and scored."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._inputs = inputs_in(setting.work / "inputs")

    # -- texts ------------------------------------------------------------------------------------------------------

    @functools.cache  # noqa: B019  (a bench lives as long as the process)
    def corpus(self, kind: str) -> Path:
        """A packed corpus with a held-out split."""
        if kind == "prose":
            return self._inputs.corpus
        made = self._made(f"conversations, {self.setting.chat} tokens", self._converse)
        params = {"format": "jsonl", "text": "text", "limit": None, "heldout": 0.1}
        inputs = {"raw": made / "chat.jsonl", "tokenizer": self._inputs.teacher}
        return self._made(f"chat, {self.setting.chat} tokens", lambda to: run_step("corpus", inputs, params, to))

    def _blind(self, kind: str) -> Path:
        """The corpus as trainings read it: without held-out text, on which they would judge themselves."""

        def make(to: Path) -> None:
            shutil.copytree(self.corpus(kind), to, dirs_exist_ok=True)
            meta = json.loads((to / "corpus.json").read_text(encoding="utf-8"))
            meta["splits"]["heldout"] = dict.fromkeys(meta["splits"]["heldout"], 0)
            (to / "corpus.json").write_text(json.dumps(meta), encoding="utf-8")

        return self._made(f"{self.corpus(kind).name}, blind", make)

    def _converse(self, to: Path) -> None:
        """Has the AnsNet write both sides of conversations: after the mark of a question, and after that of an answer."""
        import torch

        from colbuild.ops.corpus.tokens import load_vocabulary
        from colbuild.ops.shared.answer_marks import answer_marks
        from colbuild.ops.shared.student_writing import write_rows

        tokenizer, marks = load_vocabulary(self._inputs.teacher).tokenizer, answer_marks(self._inputs.teacher)
        asking = tokenizer.encode(marks.text.replace("assistant", "user"), add_special_tokens=False).ids
        behind = tokenizer.encode("\n", add_special_tokens=False).ids
        length, model = 2 * SEQUENCE, self._running(self._inputs.teacher)

        def script() -> Iterator[list[int]]:
            yield asking
            for opening in itertools.cycle((list(marks.opening), asking)):
                yield behind + opening

        with (to / "chat.jsonl").open("w", encoding="utf-8") as file:
            for seed in range(-(-self.setting.chat // (_ROWS * length))):
                chances = torch.rand(_ROWS, length, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
                scripts = [script() for _ in range(_ROWS)]
                rows, _ = write_rows(model, scripts, chances, {marks.end}, marks.end, None, lambda _: None)
                for row in rows.tolist():
                    # A conversation that is cut keeps its whole turns.
                    whole = row[: len(row) - row[::-1].index(marks.end)] if marks.end in row else row
                    text = tokenizer.decode(whole, skip_special_tokens=False)
                    file.write(json.dumps({"text": text}) + "\n")

    # -- trainings --------------------------------------------------------------------------------------------------

    def start(self, kind: str) -> Path:
        """A student that has learned from a little of the text, off policy."""
        from colbuild.arch import parameters
        from colbuild.arch.solving import solve_down
        from colbuild.weights.files.checkpoint import load_checkpoint

        structure = load_checkpoint(self._inputs.teacher).structure
        shape = asdict(solve_down(structure, structure.shape, round(STUDENT * parameters(structure))))
        recipe = self._recipe({"tokens": self.setting.tokens // 2, "seed": 100})
        inputs = {"teacher": self._inputs.teacher, "corpus": self._blind(kind)}
        params = {"shape": shape, "recipe": recipe, "split": "train"}
        return self._train("distill", inputs, params, f"{kind}, start").folder

    def trained(self, kind: str, changes: Mapping[str, Any], name: str, behind: int = 0) -> Trained:
        """A training from the start, whose seconds are those behind so many tokens."""
        inputs = {"start": self.start(kind), "teacher": self._inputs.teacher, "corpus": self._blind(kind)}
        inputs |= {"chat": self._inputs.teacher}
        params = {"recipe": self._recipe(changes, kind), "split": "train"}
        return self._train("recover", inputs, params, name, behind)

    def rate(self, kind: str, changes: Mapping[str, Any], seed: int) -> float:
        """CPU seconds of a token, from a few steps."""
        path = self.setting.work / "rates.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        key = f"{kind}, {json.dumps(changes, sort_keys=True)}"
        if key not in known:
            period = self.setting.every * BATCH * SEQUENCE
            asked = {**changes, "tokens": _PERIODS * period, "seed": 200 + seed}
            found = self.trained(kind, asked, f"{kind}, speed", behind=period)
            known[key] = found.seconds / ((_PERIODS - 1) * period)
            shutil.rmtree(found.folder)
            # The next way's few steps have the same name, and seconds of their own.
            _spent(found.folder).unlink(missing_ok=True)
            path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        return float(known[key])

    def _recipe(self, changes: Mapping[str, Any], kind: str = "prose") -> dict[str, Any]:
        from colbuild.spec.model.recipe import Recipe

        values = {"sequence": SEQUENCE, "batch": BATCH, **changes}
        if "on_policy" in changes:
            prompt = "chat" if kind == "chat" else PROMPT
            values["on_policy"] = {"every": self.setting.every, "prompt": prompt, **changes["on_policy"]}
        return Recipe.model_validate(values, strict=False).model_dump(mode="json")

    def _train(
        self, op: str, inputs: Mapping[str, Path], params: dict[str, Any], name: str, behind: int = 0
    ) -> Trained:
        """Runs a training, or goes on with it."""
        folder = self.setting.work / "models" / f"{self.setting.name}, {name}"
        partial = folder.with_name(f"{folder.name}.partial")
        clock = _Clock(_spent(folder), behind)
        if not folder.exists():
            settings = {"compile": "always", "evaluate_every": 0.0, "epochs": "allow"}
            draft = folder.with_name(f"{folder.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            run_step(op, inputs, params, draft, clock.hear, partial=partial, settings=settings)
            draft.rename(folder)
            shutil.rmtree(partial, ignore_errors=True)
        return Trained(folder, clock.seconds)

    # -- scores -----------------------------------------------------------------------------------------------------

    def teacher_scores(self, kind: str) -> dict[str, float]:
        """What the AnsNet itself has on held-out text."""
        path = self.setting.work / "scores" / f"{self.setting.name}, {kind}, the AnsNet.json"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(self.scores(kind, self._inputs.teacher)) + "\n", encoding="utf-8")
        found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def scores(self, kind: str, folder: Path) -> dict[str, float]:
        """A model's figures on held-out text and on its own."""
        import torch

        from colbuild.ops.shared.answer_marks import answer_marks
        from colbuild.ops.shared.student_writing import StudentWriter
        from colbuild.spec.model.recipe import Recipe
        from colbuild.train.batch import IGNORED
        from colbuild.train.corpus.packing import open_corpus
        from colbuild.train.corpus.text_beginning import asked
        from colbuild.train.corpus.text_windows import calibration_windows
        from colbuild.train.watching.measure import held_out, score_window

        student, teacher = self._running(folder), self._running(self._inputs.teacher)
        corpus = open_corpus(self.corpus(kind), "heldout")
        windows = calibration_windows(corpus, self.setting.scored, SEQUENCE)
        found = held_out(student, teacher, windows, targets=asked(windows, corpus.begin, corpus.separator))
        values = self._recipe({"on_policy": {"share": 1.0}, "seed": 300, "precision": "fp32"}, kind)
        marks = answer_marks(self._inputs.teacher) if kind == "chat" else None
        writer = StudentWriter(Recipe.model_validate(values, strict=False), corpus, student, marks)
        rows, drawn = writer.write(range(self.setting.written), lambda _: None)
        forward = reverse = cost = 0.0
        for row, own in zip(rows, drawn, strict=True):
            targets = row[1:].masked_fill(~own[1:], IGNORED)
            forward += score_window(student, row[None, :-1], targets, teacher).kl
            other = score_window(teacher, row[None, :-1], targets, student)
            reverse, cost = reverse + other.kl, cost + other.nats
        count = max(1, int(drawn[:, 1:].sum()))
        begun = int((drawn[:, 1:] & ~drawn[:, :-1]).sum())
        assert torch.isfinite(torch.tensor([forward, reverse, cost])).all()
        return {
            "loss": found.loss,
            "kl": found.kl or 0.0,
            "own_forward": forward / count,
            "own_reverse": reverse / count,
            "own_cost": cost / count,
            "own_length": count / max(1, begun),
        }

    def _running(self, folder: Path) -> Any:
        import torch

        from colbuild.ops.shared.running_models import running_model
        from colbuild.train.loop.devices import forward_type
        from colbuild.weights.files.checkpoint import load_checkpoint

        return running_model(load_checkpoint(folder), forward_type(), torch.device("cpu"))

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        """A folder that is made once, whole or not at all."""
        folder = self.setting.work / "texts" / name
        if not folder.exists():
            draft = folder.with_name(f"{folder.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            make(draft)
            draft.rename(folder)
        return folder


def _spent(folder: Path) -> Path:
    """The file with the seconds of a training, beside its folder."""
    return folder.with_name(f"{folder.name}.seconds")


class _Clock:
    """Sums the CPU seconds of a training's steps behind so many tokens, over interruptions."""

    def __init__(self, path: Path, behind: int) -> None:
        self._path = path
        self._behind = behind
        self._before = float(path.read_text(encoding="utf-8")) if path.exists() else 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """What is summed so far."""
        now = 0.0 if self._since is None else time.process_time() - self._since
        return self._before + now

    def hear(self, progress: Any) -> None:
        """Hears of a step."""
        if self._since is None:
            if progress.done < self._behind:
                return
            self._since = time.process_time()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(str(self.seconds), encoding="utf-8")
