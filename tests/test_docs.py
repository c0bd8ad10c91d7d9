"""Each command of make in the documents and the mails is a target, with variables that it reads;
each link of the documents leads somewhere."""

import re
from pathlib import Path

import pytest

from custom_actions import headline
from review import prose

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text().replace("\\\n", " ")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEMPLATES = sorted((ROOT / "mailer" / "templates").glob("*.j2"))
EVERYWHERE = {"VERBOSE", "CUSTODIAN", "PYTHON"}
NAME = re.compile(r"(?<![\w=])([A-Z][A-Z_]*)=")

macros = dict(re.findall(r"^([A-Z_]+) *[:?]?= *(.*)", MAKEFILE, re.MULTILINE))
recipes = {
    target: header + body
    for target, header, body in re.findall(
        r"^([a-z][a-z-]*):(.*)((?:\n\t.*)*)", MAKEFILE, re.MULTILINE
    )
}


def variables(text):
    """What the text of a target reads, by the macros in it too."""
    found = set(re.findall(r"\b[A-Z][A-Z_]+\b", text.partition("##")[0] + text.partition("\n")[2]))
    return found.union(*(variables(macros[name]) for name in found & set(macros)))


def in_code(page):
    """The commands that stand in a page as code: between backticks, or in lines of their own.
    What is between quotes is a value."""
    text = page.read_text()
    lines = [line.partition(" #")[0] for line in re.findall(r"^ {4,}(make .*)", text, re.MULTILINE)]
    spans = re.findall(r"`([^`]*)`", text.replace("```", ""))
    found = [*lines, *(span for span in spans if span.startswith("make "))]
    return [re.sub(r"=(\"[^\"]*\"|'[^']*')", "=...", one) for one in found]


def commands(snippets):
    """(target, variables) of each command in these."""
    for snippet in snippets:
        for command in re.split(r"\bmake (?=[a-z])", " ".join(snippet.split()))[1:]:
            yield re.match(r"[a-z-]*", command)[0], set(NAME.findall(command))


@pytest.mark.parametrize("page", [*PAGES, *TEMPLATES], ids=lambda page: page.name)
def test_make_knows_each_target_and_each_target_its_variables(page):
    if page in PAGES:
        found = list(commands(in_code(page)))
    else:  # jinja's expressions stand for values, and words between them are English
        text = re.sub(r"\{#.*?#\}", "", page.read_text(), flags=re.DOTALL)
        found = [one for one in commands(text.splitlines()) if one[1]]
    unknown = [
        (target, names - known)
        for target, names in found
        for known in [EVERYWHERE | variables(recipes.get(target, ""))]
        if target not in recipes or names - known
    ]
    assert not unknown


# of docs/policies.md: tests/review/test_catalogue.py
WRITTEN = [ROOT / "CHANGELOG.md", *(page for page in PAGES if page.name != "policies.md")]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_links_lead_to_a_file_and_its_section(page):
    """For those that policies name see tests/test_contract.py."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http", "mailto")):
            continue
        path, _, place = link.partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), link
        headings = re.findall(r"^#+ (.*)", there.read_text(), re.MULTILINE) if place else ()
        assert not place or place in map(prose.anchor, headings), link


def test_the_runbook_has_at_once_what_each_subject_begins_with():
    """One that is missing is taken for another: who isolates by hand on a release that is not
    complete undoes it."""
    _, _, page = (ROOT / "docs" / "runbook.md").read_text().partition("## In a minute")
    begun = [*headline.HELD.values(), headline.undone("a command"), headline.undone(None)]
    begun += [headline.NOT_ISOLATED, headline.NOT_COMPLETE, headline.NOT_PUT_RIGHT]
    begun += ["NOT REVOKED", "NOT DEACTIVATED"]
    assert [word for word in begun if f"`{word}" not in page.partition("## ")[0]] == []


def test_what_python_runs_is_named_with_its_environment():
    """Python by itself, or another environment's, has none of the modules."""
    for page in PAGES[1:]:
        code = re.findall(r"`([^`]*)`|^ {4,}(.*)", page.read_text(), re.MULTILINE)
        assert not [c for c in map("".join, code) if re.match(r"python\b", c)]


def test_it_finds_what_is_wrong():
    assert {"MODE", "POLICY", "REGION", "PRUNE"} <= variables(recipes["deploy"])
    assert not {"MODE", "WHO"} & variables(recipes["isolated"])
    told = dict(commands(["make infra REGION=x PARAMETERS=...; make isolte FINDNG={{ x }}"]))
    assert told == {"infra": {"REGION", "PARAMETERS"}, "isolte": {"FINDNG"}}
    assert ("isolate", {"INSTANCE", "REGION", "FINDING"}) in commands(in_code(PAGES[-1]))
