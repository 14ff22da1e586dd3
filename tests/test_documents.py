import os

import pytest

from colbuild.documents import MalformedError, parse_json, read_json_file


@pytest.mark.parametrize("content", [b"{", b"\xff", "[" * 100_000, "1" * 6000, b"", "\ufeff{}"])
def test_every_malformed_text_is_one_kind_of_error(content):
    with pytest.raises(MalformedError):
        parse_json(content)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MalformedError, match="not a regular file"):
        read_json_file(tmp_path / "pipe")


def test_a_file_has_a_bound_which_is_told(tmp_path):
    (tmp_path / "large.json").write_text("[" + "1," * 600 + "1]")
    with pytest.raises(MalformedError, match=r"larger than 1\.0 kB"):
        read_json_file(tmp_path / "large.json", 1000)
    assert len(read_json_file(tmp_path / "large.json")) == 601


def test_values_are_counted_before_they_fill_the_memory():
    with pytest.raises(MalformedError, match=r"more than 8,000,000 values"):
        parse_json("[" + "1," * 8_000_000 + "1]")


@pytest.mark.parametrize("content", [r'["\ud800"]', r'{"\udfff": 1}', b'["\xed\xa0\x80"]'])
def test_half_a_surrogate_pair_is_no_text(content):
    with pytest.raises(MalformedError):
        parse_json(content)


def test_a_whole_surrogate_pair_is_a_character():
    assert parse_json(r'["\ud83d\ude00"]') == ["\U0001f600"]
