"""Packages: made of a model and a device profile, verified, and asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, overload

from colbuild.errors import BuildError
from colbuild.interface.arguments import Shown, StrPath, existing, listening, python_hints, switches, whole, words
from colbuild.interface.checkpoints import TOKENS, new_folder
from colbuild.interface.scratch import SPLIT, Scratch, Texts, copy_to, tokens_in
from colbuild.plan.cost.machine_resources import machine
from colbuild.report.html_table import html_facts
from colbuild.spec.model.decides import own_params
from colbuild.spec.model.device import Profile
from colbuild.spec.project.load import load_profile
from colbuild.units import format_bytes, format_count

if TYPE_CHECKING:
    from colbuild.export.manifest import Manifest
    from colbuild.export.package.verify import Verified
    from colbuild.export.runtime.generation import Generation

_THREADS: Final = 8
"""No more threads for each core are of any use."""


@dataclass(frozen=True)
class Package:
    """A package for a device.

    Attributes:
        folder: Where it lies.
    """

    folder: Path

    @cached_property
    def manifest(self) -> Manifest:
        """Its manifest."""
        from colbuild.export.manifest import read_manifest

        return read_manifest(self.folder)

    @property
    def size(self) -> int:
        """The bytes of its files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"<Package {self.folder}, {self.manifest.profile.precision}, {format_bytes(self.size)}>"

    def _repr_html_(self) -> str:
        manifest = self.manifest
        facts = {
            "model": f"{format_count(manifest.model.parameters)} {manifest.model.architecture}",
            "precision": manifest.profile.precision,
            "context": f"{manifest.profile.context:,} tokens",
            "size": format_bytes(self.size),
            "agrees with PyTorch": f"{manifest.parity.top1_agreement:.1%} of tokens",
        }
        if manifest.quality is not None:
            facts["perplexity"] = f"{manifest.quality.perplexity:.2f} ({manifest.quality.increase:+.1%})"
        return html_facts(str(self.folder), facts)


@python_hints()
def export(
    model: StrPath,
    profile: StrPath,
    *,
    to: StrPath,
    text: Texts = None,
    heldout: Texts = None,
    tokens: int | str = TOKENS,
    seed: int = 0,
    progress: Shown = False,
) -> Package:
    """Packages a model for a device, and compares the package with the PyTorch model.

    Args:
        model: A Hugging Face folder, a GGUF file, a checkpoint, or a model of a family.
        profile: A device profile's file, such as exports/phone-int8.yaml.
        to: The package's folder, which does not exist yet or is empty.
        text: Text that the rounding to 4 bits is fitted on; by default text that the model writes.
        heldout: Text to measure the package on; by default it is not measured.
        tokens: How many tokens the model writes where it needs text.
        seed: Of the text that it writes.
        progress: True shows what is done; a function is told events.

    Raises:
        ColbuildError: The model or the profile cannot be read, or the package breaks a limit of the profile.
    """
    device, target = load_profile(existing(profile, "the profile")), new_folder(to)
    wanted, seed = whole(tokens, "tokens"), whole(seed, "seed", least=0)
    with listening(progress) as listener:
        scratch = Scratch(listener)
        from colbuild.plan.planning import export_versions

        inputs = {"model": scratch.model(model, "the model")}
        asked = {"versions": export_versions(), "heldout_split": SPLIT, "split": SPLIT}
        if device.fitted:
            trained = 0 if device.recover is None else device.recover.tokens
            enough = max(wanted, device.calibration, trained)
            inputs["corpus"] = corpus = scratch.corpus(text, inputs["model"], enough, seed)
            device = device.model_copy(update={"calibration": tokens_in(corpus, device.calibration)})
        if device.recover is not None:
            inputs["rounded"] = _rounded(device, scratch, inputs)
            del inputs["corpus"]
        if heldout is not None:
            inputs["heldout"] = scratch.corpus(heldout, inputs["model"], wanted, seed, "the held-out text")
        params = {"profile": own_params(device), **asked}
        copy_to(scratch.run("export", inputs, params), target)
    return Package(target)


def _rounded(device: Profile, scratch: Scratch, inputs: Mapping[str, Path]) -> Path:
    """The model, trained for a while with its weights rounded."""
    from colbuild.plan.drawing.draft import Draft
    from colbuild.plan.steps.quantise import draw

    draft = Draft()
    step = draft.steps[draw(draft, device.name, device, "model", "corpus", (), SPLIT)]
    return scratch.run("quantise", inputs, step.params, step.settings)


def verify(package: StrPath) -> Verified:
    """Checks a package: its files' digests, its manifest, and a generation that must match the manifest's.

    Args:
        package: A package, its folder, or the file that it was packed into.

    Raises:
        ColbuildError: It is no package, or its manifest is damaged.
    """
    from colbuild.export.package.locate import find_package
    from colbuild.export.package.verify import verify_package

    return verify_package(find_package(existing(package, "the package")))


@overload
def generate(
    package: StrPath,
    prompt: str,
    *,
    max_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    threads: int | None = None,
    chat: bool = True,
    stream: Literal[False] = False,
) -> str: ...


@overload
def generate(
    package: StrPath,
    prompt: str,
    *,
    max_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    threads: int | None = None,
    chat: bool = True,
    stream: Literal[True],
) -> Iterator[str]: ...


def generate(
    package: StrPath,
    prompt: str,
    *,
    max_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    threads: int | None = None,
    chat: bool = True,
    stream: bool = False,
) -> str | Iterator[str]:
    """Answers a prompt with a package, in a process of its own.

    Args:
        package: A package or its folder.
        prompt: The user's message; or text to continue, where the package has no chat template or `chat` is False.
        max_tokens: The most tokens to generate.
        temperature: 0 takes the most likely token each time; above, tokens are drawn at random.
        seed: Decides what is drawn.
        threads: Threads to compute with; all cores when None.
        chat: Whether to use the package's chat template, if it has one.
        stream: Whether to return the text piece by piece, as it comes.

    Raises:
        ColbuildError: It is no package, it is damaged, or an argument is wrong.
    """
    folder = existing(package, "the package")
    words([prompt], "the prompt")
    switches(chat=chat, stream=stream)
    most, count = whole(max_tokens, "max_tokens"), None if threads is None else whole(threads, "threads")
    drawn = whole(seed, "seed", least=0)
    given = answer(folder, prompt, max_tokens=most, temperature=temperature, seed=drawn, threads=count, chat=chat)
    return given.pieces if stream else "".join(given.pieces)


def _is_warm(temperature: object) -> bool:
    """Whether a temperature is a finite number from 0 on."""
    try:
        return (
            isinstance(temperature, int | float) and not isinstance(temperature, bool) and 0 <= float(temperature) < inf
        )
    except OverflowError:
        return False


def answer(
    package: Path,
    prompt: str,
    *,
    max_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    threads: int | None = None,
    chat: bool = True,
) -> Generation:
    """Answers a prompt in a process of its own, token by token; see `colbuild.export.runtime.guard`.

    Raises:
        BuildError: It is no package, it is damaged, or the prompt is no text or does not fit.
    """
    from colbuild.export.manifest import check_files, read_manifest
    from colbuild.export.package.locate import find_package
    from colbuild.export.runtime.guard import answer_package

    if not _is_warm(temperature):
        raise BuildError(
            f"temperature is {temperature!r:.60}", hint="give a number from 0 on; 0 takes the most likely token"
        )
    cores = machine().cores
    if threads is not None and threads > _THREADS * cores:
        raise BuildError(
            f"threads is {threads:,}, and this machine has {cores} cores",
            hint=f"give at most {_THREADS * cores} threads",
        )
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise BuildError("the prompt is not UTF-8 text", hint="write it in UTF-8") from None
    folder = find_package(package)
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    asked = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed, "chat": chat}
    return answer_package(folder, manifest, prompt, threads=threads, **asked)
