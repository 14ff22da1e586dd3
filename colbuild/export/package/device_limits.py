"""Checks a package against its device's limits: one message for each broken limit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from colbuild.errors import BuildError
from colbuild.export.manifest import Manifest, Quality
from colbuild.export.runtime.bench import Speed, bench_package
from colbuild.plan.steps.export import MANIFEST
from colbuild.spec.model.device import Device, Limits
from colbuild.spec.model.precision import stored_bytes
from colbuild.units import format_bytes


def broken_limits(manifest: Manifest, package: Path) -> tuple[str, ...]:
    """The limits that a whole package does not keep, where its profile only warns.

    Raises:
        BuildError: There are any, and it does not only warn.
    """
    profile, limits = manifest.profile, manifest.profile.limits
    size = sum(file.size for file in manifest.files) + (package / MANIFEST).stat().st_size
    found = [size_limit(size, limits), quality_limit(manifest.quality, limits)]
    found.append(bandwidth_limit(read_for_a_token(manifest), profile))
    if profile.bandwidth is not None:
        limits = limits.model_copy(update={"min_decode_tps": None})
    # Speeds differ from run to run, so that they may stop a build but are not in what it makes.
    if limits.max_memory is not None or limits.min_decode_tps is not None:
        [speed] = bench_package(package, [profile.threads])
        judge(speed_limits(speed, limits), profile)
    return judge([one for one in found if one is not None], profile)


def read_for_a_token(manifest: Manifest) -> int:
    """Bytes of weights that each token reads: all but an embedding of its own, of which it looks up a row."""
    model, profile = manifest.model, manifest.profile
    graph = sum(file.size for file in manifest.files if file.path.startswith(manifest.graph.file))
    if model.tied:
        return graph
    table = (model.shape["vocab"], model.shape["hidden"])
    return graph - stored_bytes(profile.table_bits, table, profile.table_block)


def size_limit(size: int, limits: Limits) -> str | None:
    """Returns a message if a package of so many bytes is too large; else None."""
    if limits.max_package is None or size <= limits.max_package:
        return None
    return (
        f"the package has {format_bytes(size)} ({size:,} bytes), {format_bytes(size - limits.max_package)} more than its limit "
        f"max_package: {format_bytes(limits.max_package)}"
    )


def quality_limit(quality: Quality | None, limits: Limits) -> str | None:
    """Returns a message if its perplexity is too high; else None."""
    most = limits.max_perplexity_increase
    if most is None or quality is None or quality.increase <= most:
        return None
    return (
        f"the package's perplexity on held-out text is {quality.perplexity:.4g}, {quality.increase:.1%} above the model's "
        f"{quality.reference:.4g}; its limit max_perplexity_increase allows {most:.1%}"
    )


def bandwidth_limit(weights: int, profile: Device) -> str | None:
    """Whether a device of a bandwidth could generate fast enough at all: each token reads so many bytes of weights once."""
    least = profile.limits.min_decode_tps
    if least is None or profile.bandwidth is None or profile.bandwidth >= least * weights:
        return None
    return (
        f"the device can generate no more than {profile.bandwidth / weights:.1f} tokens/s, below its limit min_decode_tps: "
        f"{least:g}; each token reads {format_bytes(weights)} of weights, and its bandwidth of "
        f"{format_bytes(profile.bandwidth)} a second allows {format_bytes(int(profile.bandwidth / least))}"
    )


def speed_limits(speed: Speed, limits: Limits) -> list[str]:
    """Returns a message for each: too much memory, too slow."""
    found = []
    if limits.max_memory is not None and speed.peak_memory > limits.max_memory:
        more = format_bytes(speed.peak_memory - limits.max_memory)
        found.append(
            f"running the package takes {format_bytes(speed.peak_memory)} of memory, {more} more than its limit max_memory: "
            f"{format_bytes(limits.max_memory)}"
        )
    least = limits.min_decode_tps
    if least is not None and speed.decode_tps < least:
        threads = (
            "all threads" if speed.threads is None else f"{speed.threads} thread{'s' if speed.threads > 1 else ''}"
        )
        found.append(
            f"the package generates {speed.decode_tps:.1f} tokens/s here with {threads}, {1 - speed.decode_tps / least:.0%} "
            f"less than its limit min_decode_tps: {least:g}"
        )
    return found


def judge(broken: Sequence[str], profile: Device) -> tuple[str, ...]:
    """Returns a message for each broken limit.

    Raises:
        BuildError: There are any, and the profile does not only warn.
    """
    if broken and profile.limits.when_broken == "fail":
        smaller = "a smaller DesNet"
        if profile.stored.smaller is not None:
            smaller = f"precision: {profile.stored.smaller}, or {smaller}"
        elif profile.has_large_embedding:
            smaller = f"embedding_bits: 4, or {smaller}"
        if any("perplexity" in one for one in broken):
            smaller = profile.stored.finer
            if profile.embedding_bits == 4:
                smaller = f"embedding_bits: 8, {smaller}"
        elif profile.limits.max_package is not None and any("max_package" in one for one in broken):
            most = format_bytes(profile.limits.max_package).replace(" ", "")
            smaller += f" (given max_package: {most} instead of params or shape, it is the largest that fits)"
        raise BuildError("; ".join(broken), hint=f"try {smaller}; or write when_broken: warn")
    return tuple(broken)
