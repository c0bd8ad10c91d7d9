"""docs/policies.md: whole, true, not stale, and Markdown that leads somewhere."""

import copy
import re
from pathlib import Path

import pytest
import yaml
from c7n.config import Config
from c7n.loader import PolicyLoader
from click.testing import CliRunner
from markdown_it import MarkdownIt

from custom_actions.response import Step
from deployment.errors import Refused
from infra import permissions
from review import catalogue, prose, steps

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "policies.md"
POLICIES = sorted((ROOT / "policies").rglob("*.yml"))


@pytest.fixture(scope="module")
def page():
    return PAGE.read_text()


def sections(text, level):
    """{heading: what stands below it, as far as the next one of its level or above}"""
    parts = re.split(rf"^{'#' * level} (.*)$", text, flags=re.MULTILINE)[1:]
    above = re.compile(rf"^#{{1,{level}}} ", re.MULTILINE)
    return {
        heading: above.split(below)[0]
        for heading, below in zip(parts[::2], parts[1::2], strict=True)
    }


def rows(text):
    """The rows of the tables of Markdown, as cells; a pipe that is escaped belongs to its cell."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_catalogue_is_not_stale_and_says_so_when_it_is(tmp_path, monkeypatch, page):
    run = CliRunner().invoke

    fresh = run(catalogue.catalogue, ["--check"])
    assert (fresh.exit_code, fresh.output) == (0, ""), fresh.output
    monkeypatch.setattr(catalogue, "PAGE", tmp_path / "policies.md")
    catalogue.PAGE.write_text(page.replace("max-per-hour: 5", "max-per-hour: 50"))
    stale = run(catalogue.catalogue, ["--check"])
    assert (stale.exit_code, stale.output) == (1, "docs/policies.md is stale: make catalogue\n")
    assert "max-per-hour: 50" in catalogue.PAGE.read_text()
    assert run(catalogue.catalogue).exit_code == 0
    assert catalogue.PAGE.read_text() == page


def test_every_policy_and_every_step_of_the_pack_is_in_it(page):
    told = sections(page, 2)
    overview = " ".join(row[0] for row in rows(page.partition("\n## ")[0]))
    for path in POLICIES:
        (policy,) = yaml.safe_load(path.read_text())["policies"]
        name, section = policy["name"], told[policy["name"]]
        assert f"[{name}](#{name})" in overview
        assert policy["metadata"]["title"] in section
        listed = [row for row in rows(section) if row[0].isdigit()]
        wanted = [a if isinstance(a, str) else a["type"] for a in policy["actions"]]
        assert [re.search(r"`([^`]+)`", row[1])[1] for row in listed] == wanted
        assert all(row[2] and row[3] for row in listed), f"{name}: what a step does, what undoes it"
        mode = policy.get("mode", {})
        asked = mode.get("pattern", {}).get("detail", {}).get("type", [])
        asked = asked + [call["event"].partition("20")[0] for call in mode.get("events", [])]
        for entry in asked:
            assert f"`{entry if isinstance(entry, str) else entry['prefix'] + '...'}`" in section
        for finding in (ROOT / "tests" / name).glob("*/*.json"):
            assert f"(../{finding.relative_to(ROOT)})" in section

    registered = {step.title for step in steps.steps().values() if step.is_of_the_pack}
    assert {
        "isolate-instance",
        "restore-role-sessions (ec2)",
        "notify-once (iam-user)",
    } < registered
    assert registered <= set(sections(page, 3))


def test_what_triggers_a_policy_is_counted(page):
    trigger = {row[0].partition("]")[0][1:]: row[1] for row in rows(page.partition("\n## ")[0])}
    (policy,) = yaml.safe_load((ROOT / "policies/ec2-isolate.yml").read_text())["policies"]
    types = policy["mode"]["pattern"]["detail"]["type"]
    prefixes = sum(isinstance(entry, dict) for entry in types)
    counted = f"{len(types) - prefixes} finding types and {prefixes} prefixes"
    assert trigger["ec2-isolate"] == counted and prefixes
    assert trigger["iam-user-deactivate-access-key"] == "1 finding type"


def test_how_a_policy_is_undone(page):
    undo = {row[0].partition("]")[0][1:]: row[3] for row in rows(page.partition("\n## ")[0])}
    scanned, stays = "[`scan-for-malware`](#scan-for-malware)", "[`write-case`](#write-case)"
    assert undo["isolation-guard"] == "`make release`"
    assert undo["ec2-isolate"] == f"`make release`, but not {scanned}, {stays}"
    archived = "[`archive-finding`](#archive-finding)"
    assert undo["ec2-release"] == f"`make isolate`, but not {archived}, {stays}"
    assert undo["iam-role-revoke-sessions"] == "`make restore-sessions`"
    assert undo["iam-user-deactivate-access-key"] == "`make reactivate-key`"
    assert undo["finding-notify"] == undo["guardduty-guard"] == "nothing to undo"
    assert undo["response-guard"] == "no revert, see the step"

    isolate = sections(page, 2)["ec2-isolate"]
    assert "- Undo: `make release INSTANCE=i-... REGION=..." in isolate
    undone = {row[1]: row[3] for row in rows(isolate) if row[0].isdigit()}
    assert {name: by for name, by in undone.items() if "release-" in by} == {
        "[`isolate-instance`](#isolate-instance)": "[`release-instance`](#release-instance)"
    }
    revoke = undone["[`revoke-role-sessions`](#revoke-role-sessions-ec2)"]
    assert revoke == "[`restore-role-sessions`](#restore-role-sessions-ec2)"
    assert undone["[`fail-unless-complete`](#fail-unless-complete)"] == "nothing to undo"
    empty = sections(page, 3)["empty-forensic-group"]
    assert "- Undo: no revert: nobody but an attacker wants a rule of this group back" in empty


def test_a_reader_learns_why_a_finding_isolates_and_which_do_not(page):
    told = sections(page, 2)
    isolate = told["ec2-isolate"]
    why = {row[0]: row[1] for row in rows(isolate) if row[0].startswith("`")}
    tor = "`UnauthorizedAccess:EC2/TorClient`<br>`UnauthorizedAccess:EC2/TorRelay`"
    assert why[tor].startswith("reaches the Tor network")
    left_out = isolate.partition("Left out:")[2].partition("| step |")[0]
    for words in ("- samples", "- archived findings", "`UnauthorizedAccess:EC2/SSHBruteForce`"):
        assert words in left_out
    assert "when the remote side began the connection" in left_out
    assert "an intruder who is left alone is worse" in left_out  # the comment's reason
    assert "a GuardDuty finding of any type" in told["finding-notify"]
    assert "- severity below 4, where the finding has one\n" in told["finding-notify"]
    assert "No filter leaves out samples or archived findings." in told["finding-notify"]
    assert "a person: `make isolate INSTANCE=i-..." in told["ec2-isolate-by-hand"]
    revoke = told["iam-role-revoke-sessions"]
    assert "- `resource.accessKeyDetails.userType` is `AssumedRole`. An IAM user has" in revoke
    guard = told["guardduty-guard"]
    assert "**Not:**\n  - `requestParameters.action` is `NOOP`" in guard


def test_the_limits_and_permissions_of_a_step_stand_with_it(page):
    told = sections(page, 3)
    assert (
        "- Limits: traffic inside one subnet does not cross an ACL." in told["block-remote-address"]
    )
    assert "- Price: with stop protection nobody can stop" in told["preserve-evidence"]
    assert "`iam:PutRolePolicy`" in told["revoke-role-sessions (account)"].partition("- Writes:")[2]
    assert "- Writes: nothing\n" in told["verify-record"]


def test_it_is_markdown_and_its_links_lead_somewhere(page):
    width = None
    for line in page.splitlines():
        cells = len(rows(line)[0]) if line.startswith("|") else None
        assert width is None or cells in (None, width), f"a pipe too many: {line}"
        width = cells
    tokens = MarkdownIt().parse(page)
    inline = [child for token in tokens for child in token.children or ()]
    links = {child.attrs["href"] for child in inline if child.type == "link_open"}
    assert len(links) > 100
    for link in links:
        target, _, place = link.partition("#")
        if target.startswith("https://"):
            assert re.fullmatch(r"https://attack.mitre.org/techniques/T\d{4}(/\d{3})?/", target)
            continue
        file = (PAGE.parent / target).resolve() if target else PAGE
        assert file.is_file(), link
        if place:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert [prose.anchor(one) for one in headings].count(place) == 1, link
    # what a docstring has between < and > would be lost as a tag
    assert {child.content for child in inline if child.type == "html_inline"} == {"<br>"}


def test_text_stays_text_in_markdown():
    said = "a | b <word> `x | <y>` iam:Re*,\n  iam:Put* **all**, see infra/account.yml"
    assert prose.markdown(said) == (
        "a | b &lt;word> `x | <y>` iam:Re\\*, iam:Put\\* **all**, "
        "see [infra/account.yml](../infra/account.yml)"
    )
    assert prose.cell("a | `b | c`\nd") == "a \\| `b \\| c` d"


class Vanish(Step):
    """Vanishes an instance. There is more."""


class Fade(Step):
    """Fades an instance.

    There is no revert: it comes
    back by itself. Limits there are.
    """


def test_a_step_that_does_not_say_how_it_is_undone_is_refused():
    assert steps.Step(Fade, "fade").no_revert == "it comes back by itself."
    step = steps.Step(type("Vanish", (Vanish,), {"__module__": "custom_actions.steps.x"}), "v")
    with pytest.raises(Refused) as refused:
        steps.undone(step)
    assert str(refused.value) == (
        "custom_actions/steps/x.py: Vanish changes something, has no revert in its module, and its "
        "docstring does not say why: add a Revert, or a sentence `There is no revert: ...`."
    )


@pytest.mark.parametrize(
    "name, change, words",
    [
        ("finding-notify", lambda p: p.pop("metadata"), "has no metadata.title, metadata.severity"),
        ("ec2-isolate", lambda p: p.pop("mode"), "has no mode, and no target of the Makefile"),
        (
            "ec2-isolate",
            lambda p: p["metadata"].update(runbook="docs/runbook.md#nowhere"),
            "its runbook, docs/runbook.md#nowhere, leads nowhere",
        ),
    ],
)
def test_a_policy_that_lacks_what_is_shown_is_refused(name, change, words):
    data = copy.deepcopy(permissions.load()[name].data)
    change(data)
    (policy,) = PolicyLoader(Config.empty()).load_data({"policies": [data]}, "memory://")
    with pytest.raises(Refused, match=re.escape(f"policies/{name}.yml")) as refused:
        assert catalogue.Entry(policy, ROOT / "policies" / f"{name}.yml").runbook
    assert words in str(refused.value)
