"""A URL is understood or refused in plain words, and what is secret in it is never printed."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from colbuild.errors import BuildError
from colbuild.store.remote.remote_calls import Calls, in_thread, may_pass, shown
from colbuild.store.remote.remote_store import RemoteError, check, open_remote

SECRET = "wJalr/XUtn:FEMI@K7"  # not a key of anybody


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://bucket/folder", "s3://bucket/folder"),
        (f"s3://AKIA:{SECRET}@bucket/folder", "s3://***@bucket/folder"),
        ("sftp://token@host/folder", "sftp://***@host/folder"),
        (f"https://host/folder?X-Amz-Signature={SECRET}", "https://***@K7"),
        ("https://host/folder?sig=abc", "https://host/folder?***"),
        (f"user:{SECRET}@host", "***@host"),
        ("s3://bucket/\x1b[2J", "s3://bucket/?[2J"),
    ],
)
def test_url_is_shown_without_what_is_secret(url, name):
    assert shown(url)[0] == name


@pytest.mark.parametrize("url", [f"nonsense://AKIA:{SECRET}@host/x", f"AKIA:{SECRET}@host", f"://AKIA:{SECRET}@host/x"])
def test_error_and_representation_hold_no_credentials(url):
    with pytest.raises(BuildError) as caught:
        open_remote(url)
    told = f"{caught.value.message} {caught.value.hint} {caught.value!r}"
    assert "AKIA" not in told
    assert "XUtn" not in told
    remote = open_remote(f"memory://AKIA:{SECRET}@host/x")
    assert "AKIA" not in repr(remote)
    assert "XUtn" not in repr(remote)


def test_library_that_tells_the_credentials_is_cleaned():
    name, secrets = shown(f"s3://AKIA:{SECRET}@bucket/x")
    calls = Calls(name, 5, (), secrets)

    def fail():
        raise OSError(f"no bucket AKIA:{SECRET}@bucket at http://host/AKIA%3AwJalr%2FXUtn%3AFEMI%40K7%40bucket")

    with pytest.raises(RemoteError) as caught:
        calls.once("read x", lambda: in_thread(fail))
    for part in ("AKIA", "XUtn", "FEMI"):
        assert part not in caught.value.message


@pytest.mark.parametrize("url", ["", "bucket/folder", "/mnt/share", "s3:bucket/x", "://x", "a b://x"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(BuildError, match="is not a URL") as caught:
        open_remote(url)
    assert "file:///folder" in caught.value.hint


@pytest.mark.parametrize("url", ["memory://", "file:///", "memory:///"])
def test_url_of_no_place_is_refused(url):
    with pytest.raises(BuildError, match="has no bucket or folder"):
        open_remote(url)


def test_unknown_protocol_is_refused():
    with pytest.raises(BuildError, match="the protocol nonsense:// is unknown") as caught:
        open_remote("nonsense://host/folder")
    assert not isinstance(caught.value, RemoteError), "the user's mistake, not the network's"


@pytest.mark.parametrize(
    ("url", "module", "extra"), [("s3://bucket/x", "s3fs", "colbuild[s3]"), ("gs://bucket/x", "gcsfs", "colbuild[gcs]")]
)
def test_missing_package_names_the_extra_to_install(url, module, extra):
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from colbuild.errors import BuildError\n"
        "from colbuild.store.remote.remote_store import open_remote\n"
        f"try: open_remote({url!r})\n"
        "except BuildError as error: print(error.message, '|', error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "a package for" in done.stdout
    assert f"pip install '{extra}'" in done.stdout


def test_planning_with_the_remote_s_code_imports_no_fsspec():
    code = (
        "import sys, colbuild.run.sharing.sharing; print([n for n in ('fsspec', 's3fs', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("told", ["soon", "-1", "0", "nan", "inf"])
def test_timeout_that_is_no_number_of_seconds_is_refused(told, monkeypatch):
    monkeypatch.setenv("COLBUILD_REMOTE_TIMEOUT", told)
    with pytest.raises(BuildError, match=f"COLBUILD_REMOTE_TIMEOUT is '{told}'"):
        open_remote("memory://x")


def test_timeout_comes_from_the_environment_unless_one_is_given(monkeypatch):
    assert open_remote("memory://x").files.calls.timeout == 60
    monkeypatch.setenv("COLBUILD_REMOTE_TIMEOUT", "2.5")
    assert open_remote("memory://x").files.calls.timeout == 2.5
    assert open_remote("memory://x", timeout=7).files.calls.timeout == 7


def test_place_that_may_not_be_read_is_told_from_one_that_is_not_there(tmp_path):
    assert not check(open_remote((tmp_path / "absent").as_uri()))
    (tmp_path / "file").write_text("x")
    with pytest.raises(RemoteError, match="not a directory"):
        check(open_remote((tmp_path / "file").as_uri()))


def test_hung_call_does_not_keep_the_process_from_ending():
    code = (
        "import threading\n"
        "from colbuild.store.remote.remote_calls import Calls, RemoteError, in_thread\n"
        "try: Calls('x://y', 0.1, ()).once('wait', lambda: in_thread(threading.Event().wait))\n"
        "except RemoteError as error: print(error.message)\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "x://y: cannot wait: no data arrived for 0.1 seconds\n"
    assert time.monotonic() - began < 20


def test_what_another_attempt_cannot_change_is_told_from_what_passes():
    assert may_pass(ConnectionResetError())
    assert may_pass(TimeoutError())
    assert may_pass(OSError("broken"))
    for error in (
        None,
        PermissionError(),
        FileNotFoundError(),
        OSError(28, "full"),
        ValueError(),
        NotImplementedError(),
    ):
        assert not may_pass(error)
