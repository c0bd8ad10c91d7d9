"""The Markdown of a review as GitHub shows it: in a run's summary as it is, in a comment as
.github/post.py has it. What is read here is what a renderer of Markdown makes of it."""

import importlib.util
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from review.report import cell, code, fenced, markdown, words

RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
# What GitHub itself makes a link of, in text that is no code.
LINKS = re.compile(r"@\w|#\d|GH-\d|://|www\.", re.IGNORECASE)
EVIL = (
    "@everyone and security@example.com, org/repo#12, GH-12",
    "https://evil.example/login www.evil.example http:\\//evil.example www\\.evil.example GH\\-12",
    "&#x40;octocat &commat;octocat &num;12 &#64; &amp; R&D",
    "<img src=https://evil.example/x.png> <!-- and <b>no more</b> a<b>c <https://evil.example>",
    "![image](//evil.example/x.png) [Approve](/org/repo) [x]: //evil.example [^1]",
    r"a|b a\|b \\|c \@d \<e> ends with \\",
    "`code` ``more`` **bold** _it_ __b__ a_b_c ~~gone~~ ~~~ $x$ *",
    "# heading",
    "- item",
    "+ item",
    "> quoted",
    "\x1b[2Jcleared \u202ereversed\nsecond line\n\n# e",
)


@pytest.fixture(scope="module")
def harmless():
    """What .github/post.py does to a text."""
    file = Path(__file__).parents[2] / ".github/post.py"
    spec = importlib.util.spec_from_file_location("post_of_report", file)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.harmless


def tokens(text):
    """(kind, content) of everything in a text, in order."""
    for token in RENDERER.parse(text):
        for one in token.children if token.type == "inline" else [token]:
            yield one.type, one.content


def read(text):
    """The texts of a text, code as code; with all that would lead or call somewhere refused."""
    found = []
    for kind, content in tokens(text):
        assert not kind.startswith(("html", "link", "image", "hr", "s_", "em_")), (kind, content)
        assert kind != "text" or not LINKS.search(content), content
        if content:
            found.append((kind, content.replace("\u200b", "")))
    return found


def plain(text):
    return " ".join("".join(c if c.isprintable() or c == "\n" else "?" for c in text).split())


def test_words_read_as_they_were_written_and_are_no_markup(harmless):
    for text in EVIL:
        for where in ("- {}", "| head |\n|---|\n| {} |", "**so:** {}."):
            for shown in (where.format(words(text)), harmless(where.format(words(text)))):
                said = "".join(content for kind, content in read(shown) if kind == "text")
                before, after = where.rsplit("\n")[-1].strip("-| ").replace("*", "").split("{}")
                assert said.removeprefix("head") == f"{before}{plain(text)}{after}", shown


def test_code_reads_as_it_was_written(harmless):
    for text in EVIL:
        wanted = ("code_inline", plain(text).replace("`", "'"))
        table = f"| head |\n|---|\n| {cell(text)} |"
        for shown in (f"- {code(text)}", table):
            assert wanted in read(shown) and wanted in read(harmless(shown)), shown
    # a block cannot be ended from within
    (block,) = read(harmless(fenced("a <b> &amp; @c\n````\n# out\n```")))
    assert block == ("fence", "a <b> &amp; @c\n````\n# out\n```\n")


def found_of(text, diff="-a\n+b"):
    """What `compare.compared` finds, with the same text wherever a stranger may write one."""
    one = {"policy": text, "call": text, "findings": [text], "diff": diff}
    return {
        "verdict": [text],
        "played": 2,
        "findings": [
            {
                "finding": text,
                "isolates": 1,
                "mails": 0,
                "regrouped": [],
                "problem": None,
                "policies": [{"policy": text, "before": text, "after": text}],
            },
            {
                "finding": text,
                "isolates": 0,
                "mails": 0,
                "regrouped": [text],
                "problem": None,
                "policies": [],
            },
        ],
        "policies": [{"policy": text, "file": text, "what": "changed", "words": [text]}],
        "calls": [{"policy": text, "call": text, "before": 1, "after": 2}],
        "allowed": [{"policy": text, "more": [text], "less": [text]}],
        "parameters": [one],
        "permissions": [{"policy": text, "more": [text], "less": [text], "lacks": [text]}],
        "mails": [one],
        "reach": [{"account": text, "region": text, "mode": text, "policies": [text]}],
        "missing": [text],
        "unjudged": [text],
    }


def test_nothing_in_a_review_is_markup_of_a_stranger_and_its_own_stays(harmless):
    tame = [kind for kind, _ in tokens(markdown(found_of("tame", "-tame\n+tame")))]
    for text in EVIL:
        said = markdown(found_of(text, plain(text)))
        assert read(said) == read(harmless(said))
        spans = {content for kind, content in read(said) if kind == "code_inline"}
        assert spans == {plain(text).replace("`", "'")}
        # the same headings, tables, lists and blocks, of whatever words
        inner = {"text", "text_special", "code_inline"}
        for shown in (said, harmless(said)):
            kinds = [kind for kind, _ in tokens(shown)]
            assert [k for k in kinds if k not in inner] == [k for k in tame if k not in inner]


def test_what_is_too_long_is_cut_where_it_matters_least():
    long = "\n".join(f"-{'a' * 150} {n}" for n in range(100))
    found = found_of("x", long)
    found["parameters"] *= 10
    found["mails"] *= 50
    found["reach"] *= 45
    found["missing"] *= 45
    for one in found["findings"]:
        one["policies"] = [{"policy": "x", "before": "y " * 9999, "after": "z " * 9999}]
    found["findings"] *= 20

    text = markdown(found)

    blocks = [content for kind, content in tokens(text) if kind == "fence"]
    assert len(text) < 60_100 and 1 < len(blocks) < 10
    assert all(block.endswith("\n... and 40 lines more\n") for block in blocks)
    assert [*tokens(text)][-2] == ("text", "Cut here: it is longer than a comment may be.")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[-3:] == [
        "## What is missing",
        "## What this cannot judge",
        "## Calls with other parameters",
    ]
    assert text.count("| `x` | `x` | x | `x` |") == 40 and text.count("And 5 more.") == 2
    assert text.count("\n- x") == 40 + 1


def test_one_finding_is_one():
    none = {"verdict": [], "policies": [], "calls": [], "permissions": []}

    assert markdown(none | {"played": 1}).startswith("**Nothing changes:** the finding ends as")
    text = markdown(none | {"played": 3})
    assert text.startswith("**Nothing changes:** all 3 findings end as before")
    # what is missing is missing although no finding tells
    text = markdown(none | {"played": 3, "missing": ["a way back"]})
    assert text.startswith("**No finding ends in another way:** all 3 findings end as before")
    assert text.endswith("## What is missing\n\n- a way back")
    assert "1 finding was played" in markdown(found_of("x") | {"played": 1})
