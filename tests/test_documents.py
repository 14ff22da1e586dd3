import os

import pytest

from colbuild.documents import MalformedError, parse_json, read_json_file


@pytest.mark.parametrize("content", [b"{", b"\xff", "[" * 100_000, "1" * 6000, b"", "\ufeff{}"])
def test_every_malformed_text_is_one_kind_of_error(content):
    with pytest.raises(MalformedError):
        parse_json(content)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MalformedError, match="no regular file"):
        read_json_file(tmp_path / "pipe")


def test_a_file_has_a_bound_which_is_told(tmp_path):
    (tmp_path / "large.json").write_text("[" + "1," * 600 + "1]")
    with pytest.raises(MalformedError, match=r"larger than 1\.0 kB"):
        read_json_file(tmp_path / "large.json", 1000)
    assert len(read_json_file(tmp_path / "large.json")) == 601
