"""`plan --since` in a repository whose configuration names programs to run: none runs, and what is missing is told."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from colbuild.errors import EXIT_FAILED
from tests.cli.test_since import SPEC, git, since
from tests.helpers.project import replace_in

HOOKS = ("post-index-change", "fsmonitor-watchman", "query-watchman", "reference-transaction", "post-checkout")


@pytest.fixture
def canary(tmp_path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def hostile(project, colbuild, canary):
    """A repository that names a program wherever git's configuration may name one."""
    program = project / ".git-program"
    program.write_text(f'#!/bin/sh\necho "$0 $*" >> {canary}\ncat 2>/dev/null\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    git(project, "init", "-q", "-b", "main")
    (project / ".gitattributes").write_text("* filter=a.b=c diff=d\n")
    git(project, "add", "-f", ".gitattributes", ".tiny/corpus.txt", "specs", "recipes", "exports")
    git(project, "commit", "-q", "-m", "the family")
    run = str(program)
    named = {
        "core.fsmonitor": run, "core.hooksPath": str(project / "hooks"), "core.pager": run, "core.sshCommand": run,
        "core.askPass": run, "core.editor": run, "core.gitProxy": run, "core.alternateRefsCommand": run, "diff.external": run,
        "filter.a.b=c.clean": run, "filter.a.b=c.smudge": run, "filter.a.b=c.process": run, "filter.a.b=c.required": "true",
        "diff.d.textconv": run, "diff.d.command": run, "diff.d.cachetextconv": "true", "credential.helper": run,
        "extensions.partialClone": "origin", "core.repositoryFormatVersion": "1", "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::{run} %S", "remote.origin.uploadpack": run, "protocol.ext.allow": "always",
        "uploadpack.packObjectsHook": run, "gpg.program": run, "interactive.diffFilter": run,
    }  # fmt: skip
    for key, value in named.items():
        subprocess.run(["git", "-C", project, "config", key, value], check=True)
    (project / "hooks").mkdir()
    for hook in HOOKS:
        for folder in (project / "hooks", project / ".git/hooks"):
            folder.mkdir(exist_ok=True)
            (folder / hook).symlink_to(program)
    return colbuild


def test_nothing_that_a_repository_names_is_run(hostile, project, canary):
    # Changed and written anew: git has to read it, where a filter would run.
    replace_in(project / "recipes/distill.yaml", "temperature: 1.0", "temperature: 2.0")
    corpus = project / ".tiny/corpus.txt"
    corpus.write_text(corpus.read_text().upper())
    told = {step["id"]: step for step in since(hostile)["steps"]}
    assert told["corpus train"]["reasons"] == ["the content of ./.tiny/corpus.txt changed"]
    assert told["distill large"]["state"] == "changed"
    assert hostile("plan", SPEC, "--since", "HEAD~0").code == 0
    assert not canary.exists(), canary.read_text()


def test_a_missing_object_is_told_and_not_fetched(hostile, project, canary):
    blob = subprocess.run(
        ["git", "-C", project, "-c", "core.fsmonitor=false", "rev-parse", f"main:{SPEC}"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    canary.unlink(missing_ok=True)
    (project / ".git/objects" / blob[:2] / blob[2:]).unlink()
    ran = hostile("plan", SPEC, "--since", "main")
    assert ran.code == EXIT_FAILED
    assert ran.err.startswith("error: git cannot read main (")
    assert "missing" in ran.err
    assert "git fetch" in ran.err
    assert not canary.exists(), canary.read_text()


def test_a_replaced_object_is_not_read(hostile, project):
    text = (project / SPEC).read_text()
    replace_in(project / SPEC, "tokens: 4k", "tokens: 3k")
    subprocess.run(["git", "-C", project, "hash-object", "-w", "--no-filters", SPEC], check=True, capture_output=True)
    (project / SPEC).write_text(text)
    ids = [
        subprocess.run(
            ["git", "-C", project, "-c", "core.fsmonitor=false", *words], capture_output=True, text=True, check=True,
            input=given,
        ).stdout.strip()
        for words, given in (
            (("rev-parse", f"main:{SPEC}"), None),
            (("hash-object", "-w", "--stdin"), text.replace("tokens: 4k", "tokens: 3k")),
        )
    ]  # fmt: skip
    subprocess.run(["git", "-C", project, "-c", "core.hooksPath=/dev/null", "replace", *ids], check=True)
    assert since(hostile)["steps"] == []


def test_a_tree_made_by_hand_writes_nothing_outside(project, colbuild, tmp_path):
    """git itself never makes a tree whose entries have such names."""
    git(project, "init", "-q", "-b", "main")
    blob = subprocess.run(
        ["git", "-C", project, "hash-object", "-w", "--stdin"], input=b"a: 1\n", capture_output=True, check=True
    ).stdout.decode().strip()  # fmt: skip
    outside = tmp_path / "outside.yaml"
    names = [str(outside), "../../outside.yaml", "a//b.yaml", "x.yaml", "x.yaml/y.yaml"]
    tree = b"".join(f"100644 {name}\0".encode() + bytes.fromhex(blob) for name in names)
    made = subprocess.run(
        ["git", "-C", project, "hash-object", "-w", "-t", "tree", "--literally", "--stdin"],
        input=tree, capture_output=True, check=True,
    ).stdout.decode().strip()  # fmt: skip
    identity = {f"GIT_{role}_{what}": "t" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    commit = subprocess.run(
        ["git", "-C", project, "commit-tree", made, "-m", "x"],
        env={**os.environ, **identity}, capture_output=True, check=True,
    ).stdout.decode().strip()  # fmt: skip
    ran = colbuild("plan", SPEC, "--since", commit)
    assert ran.code != 0
    assert "Traceback" not in ran.err
    assert not outside.exists()


def test_the_reason_of_git_is_told_and_not_its_hints(project, hostile):
    subprocess.run(["git", "-C", project, "config", "diff.orderFile", "absent"], check=True)
    (project / ".tiny/corpus.txt").write_text("Another text. " * 2000)
    ran = hostile("plan", SPEC, "--since", "HEAD")
    assert ran.code == EXIT_FAILED
    assert "orderfile 'absent'" in ran.err
    assert "grafts" not in ran.err
