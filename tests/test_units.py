from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbuild.units import (
    BYTES_PATTERN,
    COUNT_PATTERN,
    DURATION_PATTERN,
    UnitError,
    duration_text,
    format_bytes,
    format_count,
    format_duration,
    parse_bytes,
    parse_count,
    parse_duration,
)


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("100M", 100_000_000),
        ("20k", 20_000),
        ("1.5B", 1_500_000_000),
        ("4096", 4096),
        (4096, 4096),
        (2e7, 20_000_000),
        ("100 M", 100_000_000),
        ("100_000", 100_000),
        ("0.5k", 500),
        ("1T", 10**12),
    ],
)
def test_counts_are_read(written, count):
    assert parse_count(written) == count


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("40MB", 40_000_000),
        ("40MiB", 40 * 2**20),
        ("512kB", 512_000),
        ("512KiB", 512 * 1024),
        ("1.5GB", 1_500_000_000),
        ("12B", 12),
        (12, 12),
    ],
)
def test_sizes_are_read(written, size):
    assert parse_bytes(written) == size


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("30m", "did you mean 30M?"),
        ("20K", "did you mean 20k?"),
        ("1b", "did you mean 1B?"),
        ("1.5G", "did you mean 1.5B?"),
        ("40MB", "did you mean 40M?"),
        ("20 million", "did you mean 20M?"),
        ("100,000", "did you mean 100_000?"),
        ("1,5M", "did you mean 1.5M?"),
        ("5x", "units are k, M, B, T"),
        ("many", "write it as in 100M, 20k or 4096"),
        ("-5M", "write it as in 100M, 20k or 4096"),
        ("1.5", "write it as in 100M, 20k or 4096"),
        (1.5, "write it as in 100M, 20k or 4096"),
        (True, "write it as in 100M, 20k or 4096"),
        (None, "write it as in 100M, 20k or 4096"),
        (float("inf"), "write it as in 100M, 20k or 4096"),
        ("9" * 18 + "T", "check the unit"),
        (10**30, "check the unit"),
    ],
)
def test_a_wrong_count_says_what_to_write(written, hint):
    with pytest.raises(UnitError) as error:
        parse_count(written)
    assert error.value.hint == hint
    assert hint in str(error.value)


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("40mb", "did you mean 40MB?"),
        ("40Mb", "did you mean 40MB?"),
        ("40M", "did you mean 40MB?"),
        ("40KB", "did you mean 40kB?"),
        ("40mib", "did you mean 40MiB?"),
        ("40Gi", "did you mean 40GiB?"),
        ("40 bytes", "did you mean 40B?"),
        ("40PB", "units are B, kB, MB, GB, TB, KiB, MiB, GiB, TiB"),
        ("0.5B", "write it as in 40MB, 40MiB or 512kB"),
    ],
)
def test_a_wrong_size_says_what_to_write(written, hint):
    with pytest.raises(UnitError) as error:
        parse_bytes(written)
    assert error.value.hint is not None
    assert error.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30s", 30.0),
        ("5min", 300.0),
        ("5 min", 300.0),
        ("2h", 7200.0),
        ("1.5h", 5400.0),
        ("1h30min", 5400.0),
        ("1 h 30 min", 5400.0),
        ("2d", 172800.0),
        ("0.25s", 0.25),
        ("0s", 0.0),
    ],
)
def test_durations_are_read(written, seconds):
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("5m", "did you mean 5min?"),
        ("5 minutes", "did you mean 5min?"),
        ("2hrs", "did you mean 2h?"),
        ("1H", "did you mean 1h?"),
        ("1hour 30m", "did you mean 1h30min?"),
        ("10sec", "did you mean 10s?"),
        ("300", "did you mean 300s?"),
        (300, "did you mean 300s?"),
        (0.5, "did you mean 0.5s?"),
        ("1,5h", "did you mean 1.5h?"),
        ("500ms", "units are d, h, min, s"),
        ("30min1h", "write it as in 30s, 5min or 1h30min"),
        ("1h1h", "write it as in 30s, 5min or 1h30min"),
        ("1h30", "write it as in 30s, 5min or 1h30min"),
        ("-5min", "write it as in 30s, 5min or 1h30min"),
        ("0.0001s", "write it as in 30s, 5min or 1h30min"),
        (-5, "write it as in 30s, 5min or 1h30min"),
        (float("inf"), "write it as in 30s, 5min or 1h30min"),
        (True, "write it as in 30s, 5min or 1h30min"),
        (None, "write it as in 30s, 5min or 1h30min"),
        ("9" * 20 + "d", "check the unit"),
    ],
)
def test_a_wrong_duration_says_what_to_write(written, hint):
    with pytest.raises(UnitError) as error:
        parse_duration(written)
    assert error.value.hint == hint


def test_bits_are_explained():
    with pytest.raises(ValueError, match="'b' would be bits"):
        parse_bytes("40Mb")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (4096, "4.1k"),
        (80_000, "80k"),
        (980_000, "980k"),
        (999_999, "1.0M"),
        (20_000_000, "20.0M"),
        (134_515_008, "134.5M"),
        (999_960_000, "1.0B"),
        (1_500_000_000, "1.5B"),
    ],
)
def test_counts_for_reading(number, text):
    assert format_count(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(512, "512 B"), (980_000, "980 kB"), (40_300_000, "40.3 MB"), (2_100_000_000, "2.1 GB"), (999_999_999, "1.0 GB")],
)
def test_sizes_for_reading(number, text):
    assert format_bytes(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.42, "0.4 s"),
        (0.97, "1 s"),
        (4, "4 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (150, "2 min 30 s"),
        (599.7, "10 min"),
        (720, "12 min"),
        (3599, "1 h"),
        (3900, "1 h 5 min"),
        (48 * 3600 + 3 * 3600, "2 d 3 h"),
    ],
)
def test_durations_for_reading(seconds, text):
    assert format_duration(seconds) == text


@given(st.integers(0, 10**6), st.sampled_from([("", 0), ("k", 3), ("M", 6), ("B", 9), ("T", 12)]))
def test_a_written_count_is_that_count(number, unit):
    assert parse_count(f"{number}{unit[0]}") == number * 10 ** unit[1]


@given(st.integers(0, 10**6), st.sampled_from([("B", 1), ("kB", 1000), ("MB", 10**6), ("KiB", 1024), ("GiB", 2**30)]))
def test_a_written_size_is_that_size(number, unit):
    assert parse_bytes(f"{number}{unit[0]}") == number * unit[1]


@given(st.integers(0, 10**12))
def test_a_duration_is_read_back_as_it_was(milliseconds):
    seconds = milliseconds / 1000
    assert parse_duration(duration_text(seconds)) == seconds


@given(st.text(alphabet="0123456789. dhmins", max_size=12))
def test_the_schema_takes_every_duration_that_the_parser_takes(text):
    try:
        parse_duration(text)
    except UnitError:
        return
    assert re.search(DURATION_PATTERN, text.strip())


@given(st.text(max_size=40) | st.floats() | st.integers() | st.none() | st.booleans())
def test_anything_is_a_duration_or_a_unit_error(value):
    try:
        assert parse_duration(value) >= 0.0
    except UnitError as error:
        assert error.message


@given(st.integers(0, 2**60))
def test_what_is_printed_can_be_written_again(number):
    for parse, text in ((parse_count, format_count(number)), (parse_bytes, format_bytes(number))):
        assert parse(text) == pytest.approx(number, rel=0.05)


@given(st.text(alphabet="0123456789._, kKmMbBGTi-", max_size=12))
def test_the_schema_takes_every_text_that_the_parser_takes(text):
    for parse, pattern in ((parse_count, COUNT_PATTERN), (parse_bytes, BYTES_PATTERN)):
        try:
            parse(text)
        except ValueError:
            continue
        assert re.search(pattern, text.strip())


@given(
    st.sampled_from([parse_count, parse_bytes]),
    st.text(max_size=40) | st.floats() | st.integers() | st.none() | st.booleans(),
)
def test_anything_is_a_number_or_a_unit_error(parse, value):
    try:
        assert 0 <= parse(value) < 2**63
    except UnitError as error:
        assert error.message
