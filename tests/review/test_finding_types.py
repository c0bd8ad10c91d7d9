"""docs/findings.md: whole, true, not stale; and what AWS has that the list has not."""

import re

import pytest
from click.testing import CliRunner

from custom_actions.finding import finding_type
from deployment import policies
from deployment.errors import Refused
from review import finding_types
from review.coverage import of_folder
from review.findings import findings, promised

TESTS = finding_types.ROOT / "tests"
run = CliRunner().invoke


@pytest.fixture(scope="module")
def rows():
    """{type: [severity, what the pack does, why]}"""
    lines = re.findall(r"^\| `([^`]+)` \| (.*) \|$", finding_types.PAGE.read_text(), re.MULTILINE)
    assert len(lines) == len(finding_types.active())
    return {name: rest.split(" | ") for name, rest in lines}


def test_the_page_is_not_stale_and_it_is_said_when_it_is(tmp_path, monkeypatch):
    fresh = run(finding_types.main, ["--check"])
    assert (fresh.exit_code, fresh.output) == (0, ""), fresh.output

    page = finding_types.PAGE.read_text()
    monkeypatch.setattr(finding_types, "PAGE", tmp_path / "findings.md")
    finding_types.PAGE.write_text(page.replace("**instance isolated**", "mailed", 1))
    stale = run(finding_types.main, ["--check"])
    assert (stale.exit_code, stale.output) == (1, "docs/findings.md is stale: make catalogue\n")
    assert run(finding_types.main).exit_code == 0 and finding_types.PAGE.read_text() == page


def test_it_says_what_becomes_of_the_findings_of_the_tests(rows):
    """For each of them the folders of the policies say what is expected, see review/findings.py."""
    for policy, words in (
        ("ec2-isolate", "**instance isolated**"),
        ("iam-role-revoke-sessions", "**sessions denied**"),
        ("iam-user-deactivate-access-key", "**access key deactivated**"),
    ):
        acted_on = {
            finding_type(findings(TESTS)[path])
            for path, kind in promised(TESTS, policy).items()
            if kind == "positive"
        }
        said = {name for name, (_, does, _) in rows.items() if words in does}
        assert acted_on & set(rows) <= said and acted_on


@pytest.mark.parametrize(
    "name, does",
    [
        ("UnauthorizedAccess:EC2/TorClient", "**instance isolated**; mailed"),
        (
            "UnauthorizedAccess:EC2/MaliciousIPCaller.Custom",
            "**instance isolated** unless the remote side began the connection; mailed",
        ),
        (
            "UnauthorizedAccess:EC2/SSHBruteForce",
            "**instance isolated** if the instance is the one that acts (`resourceRole`",
        ),
        (
            "CryptoCurrency:Runtime/BitcoinTool.B!DNS",
            "**instance isolated** where the finding names an instance; mailed",
        ),
        (
            "UnauthorizedAccess:IAMUser/ResourceCredentialExfiltration.InsideAWS",
            "**sessions denied** if the credentials are of a role; mailed",
        ),
        (
            "UnauthorizedAccess:IAMUser/MaliciousIPCaller.Custom",
            "**access key deactivated** if the credentials are of an IAM user, if the opt-in",
        ),
    ],
)
def test_under_which_condition(rows, name, does):
    assert rows[name][1].startswith(does)


def test_why_is_said_beside_the_type_in_the_policy_or_for_its_family(rows):
    assert rows["Execution:Runtime/ReverseShell"][2].startswith("hands a shell to an address")
    assert rows["Recon:EC2/PortProbeUnprotectedPort"][2].startswith("somebody knocks from outside")
    new = finding_types.FindingType("New:Quantum/Entangled", "Quantum", "New Protection", "High")
    with pytest.raises(Refused, match="FAMILIES has no reason for New:Quantum/Entangled"):
        finding_types.row(new)


def test_what_is_mailed_by_its_severity_is_asked_of_the_policy():
    (entry,) = (e for e in finding_types.entries() if e.name == "finding-notify")
    types = [{"prefix": "Execution:"}]
    data = of_folder(policies.FOLDER)["finding-notify"] | {
        "filters": [{"type": "guard-duty-finding", "types": types}]
    }
    detail = {"type": types, "severity": [{"numeric": [">=", 4]}]}
    data["mode"] = data["mode"] | {"pattern": {"detail": detail}}
    policy = finding_types.Policy(entry, data)

    def does(severity):
        return policy.does(finding_types.FindingType("Execution:X/Y", "X", "", severity))

    assert (does("Low"), does("Medium")) == ("", "mailed")
    assert does("Varies") == "mailed if its severity is Medium or High"


def test_what_botocore_knows_was_compared(monkeypatch):
    """With the newest botocore it runs every week (make test CUSTODIAN=newest)."""
    if new := list(finding_types.new_in_the_model()):
        pytest.fail("\n".join(new), pytrace=False)

    for name, one in (("Resource", "lambdaDetails"), ("DetectorFeatureResult", "AI_PROTECTION")):
        known = finding_types.KNOWN[name].replace(one, "")
        monkeypatch.setitem(finding_types.KNOWN, name, known)
        (sentence,) = finding_types.new_in_the_model()
        assert sentence.startswith(f"{one} is new in {name} of botocore's model of GuardDuty")
        monkeypatch.undo()


def test_a_saved_page_of_aws_is_compared(tmp_path):
    listed = [one.type for one in finding_types.active()]
    table, rules = tmp_path / "list.html", tmp_path / "rules.md"
    of_rules = [o.type for o in finding_types.active() if o.source == "Custom Detection Rules"]
    shown = [name for name in listed if name not in of_rules]
    table.write_text("".join(f"<td>{name.replace('&', '&amp;')}</td>" for name in shown))
    assert run(finding_types.main, ["--compare", table]).exit_code == 0

    rules.write_text("".join(f"| **{name}** |\n" for name in [*of_rules, "New:EC2/Type.B\\!DNS"]))
    table.write_text(table.read_text().replace("Recon:EC2/Portscan<", "<"))
    found = run(finding_types.main, ["--compare", table, "--compare", rules])
    assert found.exit_code == 1
    assert found.stdout.splitlines() == [
        "new: New:EC2/Type.B!DNS",
        "gone: Recon:EC2/Portscan (VPC flow logs)",
    ]

    table.write_text("https://docs.aws.amazon.com/guardduty/latest/ug/")
    refused = run(finding_types.main, ["--compare", table])
    assert isinstance(refused.exception, Refused) or "name no finding type" in refused.output
