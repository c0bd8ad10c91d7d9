"""What did not go well stands first in the subject; what AWS said of it is in the mail alone."""

import pytest

from custom_actions import headline

FINDING = {"id": "f1", "type": headline.THREAT_LIST, "title": "t"}
LONG = "AccessDenied: " + "x" * 700


def step(status="done", error=None, name="isolate-instance", **more):
    return {"step": name, "status": status, "detail": "d.", "error": error, "facts": []} | more


ISOLATED = step(isolated=True)
FAILED = step("failed", LONG, "preserve-evidence")


@pytest.mark.parametrize(
    "line, verdict",
    [
        (headline.remediation_headline(FINDING, "i-1", [ISOLATED]), None),
        (headline.remediation_headline(FINDING, "i-1", [ISOLATED, FAILED]), "NOT COMPLETE"),
        (
            headline.remediation_headline(FINDING, "i-1", [step("failed", LONG, isolated=False)]),
            "NOT ISOLATED",
        ),
        (
            headline.remediation_headline(FINDING, "i-1", [step("exempt", isolated=False)]),
            "NOT ISOLATED",
        ),
        (headline.sequence_headline(FINDING, {"i-1": [ISOLATED], "i-2": [ISOLATED]}), None),
        (
            headline.sequence_headline(FINDING, {"i-1": [ISOLATED, FAILED], "i-2": [ISOLATED]}),
            "NOT COMPLETE",
        ),
        (
            headline.sequence_headline(
                FINDING, {"i-1": [ISOLATED], "i-2": [step("failed", LONG, isolated=False)]}
            ),
            "1 OF 2 NOT ISOLATED",
        ),
        (headline.credential_headline(FINDING, [step(revoked=True)]), None),
        (headline.credential_headline(FINDING, [step("failed", LONG)]), "NOT REVOKED"),
        (headline.credential_headline(FINDING, [step(revoked=True), FAILED]), "NOT COMPLETE"),
        (headline.guard_headline({"eventName": "x"}, "i-1", [step()]), None),
        (headline.guard_headline({"eventName": "x"}, "i-1", [FAILED]), "NOT PUT RIGHT"),
        (headline.guard_headline({"eventName": "x"}, "i-1", [step("skipped")]), "NOT PUT RIGHT"),
        (headline.guard_headline({"eventName": "x"}, "i-1", [step("planned")]), "OBSERVE ONLY"),
        (headline.release_headline("i-1", "me", [step()]), None),
        (headline.release_headline("i-1", "me", [FAILED]), "NOT COMPLETE"),
    ],
)
def test_what_did_not_go_well_stands_first(line, verdict):
    begin, _, rest = line.partition(" | ")
    assert begin == verdict or verdict is None, line
    assert begin.startswith("GuardDuty") == (verdict is None), line
    if verdict:
        assert rest.startswith("GuardDuty "), line
    assert len(line) < 340 and "xxx" not in line
