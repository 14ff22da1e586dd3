from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import requests

from colbuild.errors import SourceUnavailableError
from colbuild.fetch.index import pip_settings
from colbuild.fetch.index.index_session import open_session, read_address
from colbuild.fetch.index.pip_settings import PipSettings, read_pip_settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment whose files are all below `tmp_path`."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(pip_settings, "_ETC", tmp_path / "none")
    return {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "etc"), "XDG_CONFIG_HOME": str(tmp_path / "user")}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_later_files_replace_values_and_the_environment_wins(home: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "etc/pip/pip.conf", "[global]\nindex-url = https://machine/\nretries = 1\ncert = /machine.pem\n")
    write(
        tmp_path / "user/pip/pip.conf",
        "[global]\nindex-url = https://user/\nextra-index-url =\n  https://a/\n  https://b/\n",
    )
    write(tmp_path / "venv/pip.conf", "[global]\nretries = 3\n[download]\nindex-url = https://download/\n")
    found = read_pip_settings(home)
    assert (found.index_url, found.retries, found.cert) == ("https://download/", 3, "/machine.pem")
    assert found.extra_index_urls == ("https://a/", "https://b/")
    found = read_pip_settings({**home, "PIP_INDEX_URL": "https://env/", "PIP_EXTRA_INDEX_URL": "https://c/"})
    assert (found.index_url, found.extra_index_urls) == ("https://env/", ("https://c/",))


def test_a_named_file_replaces_the_users_and_wins_over_the_others(home: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "user/pip/pip.conf", "[global]\nproxy = http://user:1\n")
    write(tmp_path / "venv/pip.conf", "[global]\nindex_url = https://venv/\n")
    write(tmp_path / "named.conf", "[global]\nindex-url = https://named/\nno-index = yes\ntrusted-host = a b:8\n")
    found = read_pip_settings({**home, "PIP_CONFIG_FILE": str(tmp_path / "named.conf")})
    assert (found.index_url, found.proxy, found.no_index) == ("https://named/", None, True)
    assert found.trusted_hosts == ("a", "b:8")


def test_no_file_is_read_when_the_null_device_is_named(home: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "venv/pip.conf", "[global]\nindex-url = https://venv/\n")
    found = read_pip_settings({**home, "PIP_CONFIG_FILE": os.devnull, "PIP_TIMEOUT": "2.5"})
    assert (found.index_url, found.timeout) == (None, 2.5)


def test_empty_values_count_as_absent(home: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "venv/pip.conf", "[global]\nindex-url = https://venv/\n")
    assert read_pip_settings({**home, "PIP_INDEX_URL": ""}).index_url == "https://venv/"


def test_a_broken_file_is_told_without_quoting_it(home: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "venv/pip.conf", "index-url = https://me:secret@venv/\n")
    with pytest.raises(SourceUnavailableError, match=r"pip\.conf cannot be read") as caught:
        read_pip_settings(home)
    assert "secret" not in str(caught.value)
    with pytest.raises(SourceUnavailableError, match="'retries' is 'many'"):
        read_pip_settings({"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "many"})


def test_each_index_of_a_host_gets_its_own_credentials_and_no_other_host_any() -> None:
    urls = ("https://one:1@host/team-a/simple/", "https://two:2@host/team-b/simple/", "https://host:99/")
    with open_session(PipSettings(), tuple(map(read_address, urls))) as session:
        logins = {}
        for url in ("https://host/team-a/x.whl", "https://host/team-b/x.whl", "https://other/x.whl", "http://host/x"):
            request = session.prepare_request(requests.Request("GET", url))
            logins[url] = request.headers.get("Authorization")
    assert logins == {
        "https://host/team-a/x.whl": "Basic b25lOjE=",
        "https://host/team-b/x.whl": "Basic dHdvOjI=",
        "https://other/x.whl": None,
        "http://host/x": None,
    }


def test_only_trusted_hosts_go_without_certificates() -> None:
    settings = PipSettings(cert="/bundle.pem", trusted_hosts=("lax", "loose:8443"))
    with open_session(settings, ()) as session:
        verified = {
            url: session.get_adapter(url)._verify  # type: ignore[attr-defined]
            for url in (
                "https://lax/x",
                "https://lax:1/x",
                "https://loose:8443/x",
                "https://loose/x",
                "https://lax.evil/x",
            )
        }
    assert verified == {
        "https://lax/x": False,
        "https://lax:1/x": False,
        "https://loose:8443/x": False,
        "https://loose/x": "/bundle.pem",
        "https://lax.evil/x": "/bundle.pem",
    }
