"""MediaWiki dumps: which pages are read, and what happens to cut-off, damaged and hostile ones."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import signal

import pytest

from colbuild.errors import BuildError
from colbuild.fetch.texts.formats import mediawiki
from colbuild.fetch.texts.formats import wikitext_workers as workers
from colbuild.fetch.texts.formats.wikitext_workers import plain_texts
from colbuild.fetch.texts.reading import Reading
from tests.helpers.tiny import tiny_documents
from tests.ops.corpus.helpers import WIKI_START, build, failure, packed_texts, wiki, wiki_page

FILES = frozenset({"file"})


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def read(tmp_path, text, name="out"):
    return packed_texts(build(write(tmp_path / f"{name}.xml", text), tmp_path / name, format="mediawiki"))


def test_only_articles_are_read(tmp_path):
    dump = wiki(
        wiki_page("One", "first"),
        wiki_page("Old name", "#REDIRECT [[One]]"),
        wiki_page("Neuer Name", "#WEITERLEITUNG [[One]]", '<redirect title="One" />'),
        wiki_page("Talk:One", "not this", "<ns>1</ns>"),
        wiki_page("Talk:Two", "nor this"),
        wiki_page("Vorlage:Three", "nor this"),
        wiki_page("Alien: the film", "second"),
        wiki_page("Help", "third", "<ns>0</ns>"),
        wiki_page("Module", "nor this", "<ns>0</ns><model>json</model>"),
        wiki_page("Empty", ""),
    )
    assert read(tmp_path, dump) == ["first", "second", "third"]


def test_last_revision_of_a_page_is_read(tmp_path):
    page = "<page><title>A</title><revision><text>old</text></revision><revision><text>new</text></revision></page>"
    assert read(tmp_path, WIKI_START + page + "</mediawiki>") == ["new"]


def test_names_of_file_namespaces_come_from_the_dump(tmp_path):
    assert read(tmp_path, wiki(wiki_page("A", "a [[Datei:x.png|thumb|caption]]b [[Datum:x]]"))) == ["a b Datum:x"]


def test_dump_cut_off_anywhere_yields_its_whole_pages(tmp_path):
    pages = [wiki_page(f"P{i}", f"täxt {i} — ☃") for i in range(3)]
    data = (WIKI_START + "".join(pages)).encode()
    ends = [data.index(b"</page>", data.index(f"<title>P{i}<".encode())) + len(b"</page>") for i in range(3)]
    tail = data.index(b"P2")
    # Every byte of the last page: in a tag, an attribute, a character of several bytes, an entity.
    for cut in range(tail, ends[2]):
        raw = tmp_path / "cut.xml"
        raw.write_bytes(data[:cut])
        out = tmp_path / f"out{cut}"
        assert packed_texts(build(raw, out, format="mediawiki")) == ["täxt 0 — ☃", "täxt 1 — ☃"]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_cut_off_compressed_dump_yields_its_whole_pages(tmp_path, compress):
    # Random letters barely compress, so that every format delivers something before its end (bz2: blocks of 900 kB).
    pages = [wiki_page(f"P{i}", os.urandom(25_000).hex()) for i in range(40)]
    data = compress((WIKI_START + "".join(pages)).encode())
    raw = tmp_path / "dump"
    raw.write_bytes(data[: len(data) * 3 // 4])
    found = list(mediawiki.read(Reading((raw,), "text", tmp_path)))
    assert 10 < len(found) < 40
    assert all(text in page for text, page in zip(found, pages, strict=False))


def test_cut_off_before_the_first_page_is_an_empty_corpus(tmp_path):
    error = failure(
        write(tmp_path / "c.xml", WIKI_START + "<page><title>A</title>"), tmp_path / "out", format="mediawiki"
    )
    assert "empty" in error.message
    assert "main namespace" in error.hint


def test_damage_before_the_end_is_an_error_with_its_place(tmp_path):
    dump = wiki(wiki_page("A", "a")).replace("</page>", "</pag>\n<x>")
    error = failure(write(tmp_path / "c.xml", dump), tmp_path / "out", format="mediawiki")
    assert "damaged: mismatched tag at line 2" in error.message


def test_entity_bomb_is_refused_before_it_grows(tmp_path):
    entities = '<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    bomb = f"<!DOCTYPE bomb [{entities}]>" + WIKI_START + "<page><title>&a11;</title></page></mediawiki>"
    error = failure(write(tmp_path / "c.xml", bomb), tmp_path / "out", format="mediawiki")
    assert "document type 'bomb'" in error.message


def test_other_xml_is_no_dump(tmp_path):
    error = failure(write(tmp_path / "c.xml", "<html><page/></html>"), tmp_path / "out", format="mediawiki")
    assert "its first element is <html>" in error.message


# -- processes --------------------------------------------------------------------------------------------------------


def articles(count):
    return [f"== {i} ==\n'''{text}''' {{{{t}}}}" for i, text in enumerate(tiny_documents(count))]


@pytest.mark.parametrize("cores", [1, 3])
def test_processes_keep_the_order_and_change_nothing(monkeypatch, cores):
    alone = list(plain_texts(articles(200), FILES))
    monkeypatch.setattr(workers, "_BATCH", 500)
    monkeypatch.setattr(workers, "cores", lambda: cores)
    assert list(plain_texts(articles(200), FILES)) == alone
    assert len(alone) == 200


def children():
    me = str(os.getpid())
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8") as file:  # noqa: PTH123
                fields = file.read().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if fields[1] == me and fields[0] != "Z":
            found.append(int(entry))
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at /proc")  # noqa: PTH112
def test_stopping_early_leaves_no_process(monkeypatch):
    monkeypatch.setattr(workers, "_BATCH", 500)
    before = set(children())
    texts = plain_texts(articles(2000), FILES)
    taken = [next(texts) for _ in range(60)]
    assert set(children()) - before
    texts.close()
    assert set(children()) == before
    assert len(taken) == 60


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at /proc")  # noqa: PTH112
def test_process_that_dies_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(workers, "_BATCH", 500)
    before = set(children())
    texts = plain_texts(articles(2000), FILES)
    for _ in range(60):
        next(texts)
    for process in set(children()) - before:
        os.kill(process, signal.SIGKILL)
    with pytest.raises(BuildError, match="ended with exit code -9"):
        list(texts)
    assert set(children()) == before
