"""The commands for packages: verify, pack, push, run, bench."""

from __future__ import annotations

import sys
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Annotated, Any, Final

import typer

import colbuild
from colbuild.cli.common import AsJson, open_console, print_error, print_warning, showing_progress, warn_of_threads
from colbuild.errors import EXIT_FAILED
from colbuild.report.screen.printed import write_json, write_text

HOT: Final = 5.0
"""Nobody draws at a higher temperature; see `colbuild.spec.project.plausible`."""

Package = Annotated[
    Path,
    typer.Argument(
        metavar="PACKAGE",
        help="A package's folder, such as out/smol-edge/phone/phone-int8, or a folder with a single package.",
    ),
]
BENCH_FORMAT = "colbuild.bench.v1"
PUSH_FORMAT = "colbuild.push.v1"


def verify(
    package: Annotated[
        Path, typer.Argument(metavar="PACKAGE", help="A package's folder, or a file from 'colbuild pack'.")
    ],
    as_json: AsJson = False,
) -> None:
    """Check a package: its files' digests, its manifest, and a generated sample."""
    from colbuild.report.screen.package_view import print_verified, verified_to_json

    found = colbuild.verify_package(_found(package))
    if as_json:
        write_json(verified_to_json(found))
    else:
        for place, problem in enumerate(found.problems, 1):
            print_error(problem, "copy or build the package again" if place == len(found.problems) else None)
        print_verified(found, open_console())
    if found.problems:
        raise typer.Exit(EXIT_FAILED)


def pack(
    package: Package,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file; PACKAGE.tar.zst beside the folder by default."),
    ] = None,
) -> None:
    """Write a package into one file, PACKAGE.tar.zst: the same bytes every time."""
    from colbuild.units import format_bytes

    folder = _found(package).resolve()
    file = output or folder.with_name(f"{folder.name}.tar.zst")
    digest = colbuild.pack(folder, file)
    size = format_bytes(file.stat().st_size)
    open_console().print(f"Packed {package} into {file}: {size}, sha256 {digest}.", soft_wrap=True, highlight=False)


def push(
    package: Package,
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="The destination host/name:tag, such as ghcr.io/acme/phone:1.0.")
    ],
    as_json: AsJson = False,
) -> None:
    """Send a package to an OCI registry, each file a layer; 'oras pull REFERENCE' brings it back."""
    from colbuild.units import format_bytes

    package = _found(package)
    with showing_progress("push", quiet=as_json) as report:
        pushed = colbuild.push_package(package, reference, report)
    if as_json:
        write_json({"format": PUSH_FORMAT, "package": str(package), **asdict(pushed)})
        return
    told = f"Pushed {package} to {reference}: {pushed.files} files, {format_bytes(pushed.size)}, {pushed.digest}."
    open_console().print(told, soft_wrap=True, highlight=False)


def run(
    package: Package,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="The prompt.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="The largest number of tokens to generate.")] = 128,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 takes the most likely token; above 0 tokens are random.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="The seed of random tokens.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of threads; all cores by default.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the prompt as text, without the chat template.")] = False,
) -> None:
    """Answer a prompt with a package, in onnxruntime; prints tokens as they are generated."""
    warn_of_threads([threads])
    if HOT < temperature < inf:
        print_warning(f"--temperature {temperature:g}: above {HOT:g}, tokens are drawn almost at random")
    generation = colbuild.answer(
        _found(package),
        prompt,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        threads=threads,
        chat=not raw,
    )
    console = open_console(stderr=True)
    if not (raw or generation.chat):
        told = "The package's tokenizer has no chat template: the prompt is continued as text, as with --raw."
        console.print(told, style="dim", soft_wrap=True, highlight=False)
    for piece in generation.pieces:
        write_text(piece)
        sys.stdout.flush()
    write_text("\n")
    sys.stdout.flush()
    console.print(generation.summary(), style="dim", highlight=False)


def bench(
    package: Package,
    threads: Annotated[
        list[int] | None,
        typer.Option("--threads", "-t", min=1, help="Number of threads; repeatable."),
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Number of tokens in the prompt.")] = 256,
    new_tokens: Annotated[int, typer.Option(min=1, help="Number of tokens to generate.")] = 64,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file for the figures; PACKAGE.bench.json beside the package by default.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a package on this machine: load time, tokens per second, peak memory, by number of threads."""
    from colbuild.report.screen.package_view import print_speeds

    folder = _found(package).resolve()
    warn_of_threads(threads or ())
    found = colbuild.bench_package(folder, threads or _usual_threads(), prompt_tokens, new_tokens)
    told = {"format": BENCH_FORMAT, "package": folder.name, **_machine(), "rows": [asdict(one) for one in found]}
    written = output or folder.with_name(f"{folder.name}.bench.json")
    _write(written, told)
    if as_json:
        write_json(told)
        return
    print_speeds(found, open_console())
    open_console().print(f"Written to {written}.", style="dim", soft_wrap=True, highlight=False)


def _found(given: Path) -> Path:
    """The package that a user means, told where that is another folder than the one given."""
    package = colbuild.find_package(given)
    if package != given:
        open_console(stderr=True).print(f"Using {package}.", style="dim", soft_wrap=True, highlight=False)
    return package


def _write(path: Path, told: dict[str, Any]) -> None:
    import json

    from colbuild.errors import BuildError

    try:
        path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise BuildError(
            f"{path} cannot be written: {error.strerror}", hint="name another file with --output"
        ) from None


def _usual_threads() -> list[int]:
    """One thread, and as many as this process may use."""
    return sorted({1, colbuild.machine().cores})


def _machine() -> dict[str, Any]:
    import importlib.metadata
    import platform

    return {
        "processor": platform.processor() or platform.machine(),
        "onnxruntime": importlib.metadata.version("onnxruntime"),
    }
