"""What remains of wikitext."""

from __future__ import annotations

import time

import pytest

from colbuild.fetch.texts.formats.wikitext import plain_text

FILES = frozenset({"file", "image", "category"})


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("'''Bold''' and ''it'' and '''''both'''''.", "Bold and it and both."),
        (
            "a [[link]], a [[target|shown]], [[:File:x.png]], [[de:Datei]] [[:de:x]]",
            "a link, a shown, File:x.png, de:x",
        ),
        ("[[File:x.png|thumb|a [[nested]] caption]]text[[Category:Y]]", "text"),
        ("[[image:x.png|thumb]]text", "text"),
        ("see [http://x.org the site] or [http://y.org]!", "see the site or !"),
        ("a{{cite|{{nested|x}}}} b<ref name='x'>gone {{t}}</ref> c<ref name='x'/>.", "a b c."),
        ("Zürich ({{IPA|x}}) is (, ) a city", "Zürich is a city"),
        ("before\n{|class=x\n|-\n! head\n| cell\n|}\nafter", "before\n\nafter"),
        ("<table><tr><td>x</td></tr></table>y<gallery>\nz.png|q\n</gallery>", "y"),
        ("x<math>\\alpha</math> <!-- gone --> y &mdash; z&nbsp;w&#8;&#xD800;&#x27; &bogus;", "x y — z w' &bogus;"),
        ("one<br/>two<div>three</div>four <span>five</span>", "one\ntwo\nthree\nfour five"),
        ("* one\n* two\n# three\n: four", "one\ntwo\nthree\nfour"),
        ("__TOC__a\n\n\n\n\nb", "a\n\nb"),
        ("<nowiki>[[not a link]]</nowiki>", "[[not a link]]"),
        ("", ""),
    ],
)
def test_markup_becomes_plain_text(wikitext, text):
    if wikitext.startswith("<nowiki>"):
        wikitext = "x " + wikitext
        text = "x " + text
    assert plain_text(wikitext, FILES) == text


def test_headings_are_plain_lines_and_empty_sections_vanish():
    wikitext = (
        "intro\n== A ==\n=== A.1 ===\ntext\n=== A.2 ===\n{{t}}\n== B ==\n=== B.1 ===\n* [[fr:x]]\n"
        "== ''C'' ==\ntext\n== D ==\n[[Category:X]]"
    )
    assert plain_text(wikitext, FILES) == "intro\n\nA\n\nA.1\n\ntext\n\nC\n\ntext"


@pytest.mark.parametrize("broken", ["{{unclosed", "[[unclosed", "{|\n| unclosed", "'''''", "<ref>unclosed", "}}]]|}"])
def test_broken_markup_leaves_the_text_before_it(broken):
    assert plain_text(f"good text\n{broken}", FILES).startswith("good text")


@pytest.mark.parametrize(
    "hostile",
    ["<b>", "<ref>", "{{", "[[", "{|\n", "[http://x ", "<b>{{a|[[b|", "((", "<!--", ":;*#", "''", "<li>", "\n== x"],
)
def test_hostile_page_takes_bounded_time(hostile):
    start = time.process_time()
    plain_text(hostile * (100_000 // len(hostile)), FILES)
    assert time.process_time() - start < 20
