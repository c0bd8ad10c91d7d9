"""What policies say twice, and what no run of them shows.

Found by `make mutate`: each is a break that no other test noticed. Messages say what to do.
"""

import re

import pytest

from custom_actions.steps.evidence import SETTINGS
from custom_actions.steps.isolate import JUDGES
from deployment.targets import ROOT
from review.mutate import sources
from review.steps import revert
from review.steps import steps as step_classes

POLICIES = {name: source.data for name, source in sources(ROOT / "policies").items()}
GUARDS = [n for n, p in POLICIES.items() if p.get("mode", {}).get("type") == "cloudtrail"]
ISOLATING = ("ec2-isolate", "ec2-isolate-by-hand", "isolation-guard")
# CloudTrail spells Lambda's calls with the version of the API behind them.
VERSION = re.compile(r"\d{8}(v\d+)?$")


def steps(policy):
    """The steps of a policy: {name: options}."""
    whole = [{"type": a} if isinstance(a, str) else a for a in POLICIES[policy]["actions"]]
    return {action["type"]: action for action in whole}


def mail(policy):
    return next((o for name, o in steps(policy).items() if name.startswith("notify")), None)


@pytest.mark.parametrize("policy", [name for name in POLICIES if mail(name)])
def test_a_mail_has_a_template_and_everybody_who_should_get_it(policy):
    template = ROOT / "mailer" / "templates" / f"{mail(policy).get('template')}.j2"
    assert template.exists(), f"{policy}: name a template of mailer/templates for its mail"
    # the owner too, but of what is nobody's in particular: the forensic group, GuardDuty, the pack
    owner = [] if policy in GUARDS and policy != "isolation-guard" else ["resource-owner"]
    assert mail(policy)["to"] == [*owner, "account-emails"], (
        f"{policy}: account-emails are told of everything, resource-owner of what is theirs"
    )


def test_the_stock_mailer_gets_the_subject_that_the_headline_is():
    names = [*steps("finding-notify")]
    assert names == ["finding-headline", "notify"], "the mail has no first line without the other"
    assert mail("finding-notify").get("subject") == '{{ event["c7n:notice"].headline }}'


@pytest.mark.parametrize("option", ["forensic-group", "exempt-tag"])
def test_whoever_isolates_means_the_same_group_and_spares_the_same_instances(option):
    said = {policy: steps(policy)["isolate-instance"].get(option) for policy in ISOLATING}
    assert None not in said.values() and len(set(said.values())) == 1, (
        f"{option} of isolate-instance differs: {said}"
    )


def test_a_release_undoes_each_step_of_an_isolation_the_last_first():
    """The groups before all, since the rest waits for them; the seal is lifted when all is done."""
    of = {step.name: step for step in step_classes().values() if "ec2" in step.kinds}
    isolate, *others = [name for name in steps("ec2-isolate") if revert(of[name])]
    others.remove("seal-record")
    back = [revert(of[name]).name for name in [isolate, *reversed(others), "seal-record"]]
    assert [*steps("ec2-release")] == [
        "verify-record", *back, "archive-finding",
        "write-case", "notify-release", "fail-unless-complete",
    ], "ec2-release: the revert of each step of ec2-isolate, in this order"  # fmt: skip


@pytest.mark.parametrize("policy", ["ec2-isolate-by-hand", "ec2-release"])
def test_what_is_done_by_hand_is_done_to_one_instance_whatever_ec2_answers(policy):
    assert POLICIES[policy].get("query") == [{"instance-id": "{instance}"}], "asks for all else"
    assert POLICIES[policy]["filters"][0] == {"InstanceId": "{instance}"}, (
        f"{policy}: the filter keeps out what the query should not have brought"
    )


def test_a_person_spares_the_same_instances_and_is_not_judged():
    (by_hand,) = [f for f in POLICIES["ec2-isolate-by-hand"]["filters"] if "type" in f]
    isolate = steps("ec2-isolate-by-hand")["isolate-instance"]
    assert by_hand.get("exempt-tag") == isolate["exempt-tag"]
    assert isolate.get("judge") == [], "a person has judged: nothing holds the isolation back"


def test_a_function_asks_all_judges_before_it_isolates():
    judges = steps("ec2-isolate")["isolate-instance"].get("judge", JUDGES)
    assert {*judges} == {*JUDGES}, (
        f"ec2-isolate: take `judge` off isolate-instance, or have it be {[*JUDGES]}: nobody has "
        "judged yet"
    )


def test_the_brake_holds_the_sixth_of_an_hour_as_the_readme_says():
    assert (
        "the sixth instance of the account and region within an hour"
        in (ROOT / "README.md").read_text()
    )
    assert steps("ec2-isolate")["isolate-instance"].get("max-per-hour") == 5


def test_what_is_kept_free_for_a_function_is_put_back_as_it_was():
    kept = {
        f"custodian-{name}": policy["mode"]["concurrency"]
        for name, policy in POLICIES.items()
        if "concurrency" in policy.get("mode", {})
    }
    assert steps("response-guard")["restore-response"].get("reserved") == kept, (
        "`reserved` of response-guard is the `concurrency` of the policies"
    )
    assert "custodian-ec2-isolate" in kept, "ec2-isolate can be starved: give it a concurrency"


def events(policy):
    return {VERSION.sub("", event["event"]) for event in POLICIES[policy]["mode"]["events"]}


def named_calls(filters):
    """The calls that filters ask for by name."""
    for one in filters:
        if not isinstance(one, dict):
            continue
        for block in ("or", "and", "not"):
            yield from named_calls(one.get(block, ()))
        if one.get("key") == "detail.eventName":
            value = one["value"]
            yield from value if isinstance(value, list) else [value]


@pytest.mark.parametrize("policy", GUARDS)
def test_a_guard_is_started_by_every_call_that_it_names(policy):
    told = {*steps(policy).get("explain-call", {}).get("calls", ())}
    missing = (told | {*named_calls(POLICIES[policy]["filters"])}) - events(policy)
    assert not missing, f"{policy}: {', '.join(sorted(missing))} never starts it: see its events"


@pytest.mark.parametrize("policy", GUARDS)
def test_nobody_but_aws_can_start_a_guard(policy):
    """Whoever has events:PutEvents may send any event, but not under a source of AWS."""
    mode = POLICIES[policy]["mode"]
    senders = {f"aws.{event['source'].partition('.')[0]}" for event in mode["events"]}
    said = mode.get("pattern", {}).get("source", [])
    assert {*said} == senders, f"{policy}: `pattern: {{source: {sorted(senders)}}}` in its mode"


def test_who_opens_a_forensic_group_is_stopped_whoever_it_is():
    """Tags are the pack's to write; rules are nobody's, not even with its credentials."""
    asked = {*named_calls(POLICIES["forensic-group-guard"]["filters"])}
    rules = events("forensic-group-guard") - {"CreateTags", "DeleteTags"}
    assert asked == rules, f"forensic-group-guard: ask for {sorted(rules)} by detail.eventName"


def roles_of(step):
    """Those of the functions for findings that have a step, in the account and in members."""
    having = [n for n in POLICIES if n not in GUARDS and "mode" in POLICIES[n] and step in steps(n)]
    return {f"guardduty-response-{where}{name}" for name in having for where in ("", "member-")}


def asked(filters, key):
    """What filters ask for under a key of the event, wherever they stand."""
    for one in filters:
        if not isinstance(one, dict):
            continue
        for block in ("or", "and", "not"):
            yield from asked(one.get(block, ()), key)
        if one.get("key", "").endswith(key):
            yield from one["value"] if isinstance(one["value"], list) else [one["value"]]


@pytest.mark.parametrize(
    "policy, step, guards",
    [
        ("isolation-guard", "isolate-instance", ["isolation-guard"]),
        ("forensic-group-guard", "isolate-instance", ["isolation-guard", "forensic-group-guard"]),
        ("response-guard", "revoke-role-sessions", ["response-guard"]),
    ],
)
def test_a_guard_knows_the_roles_of_the_pack_and_no_other(policy, step, guards):
    """One too few, and it takes the response for an intruder; one too many may do what it likes."""
    named = asked(POLICIES[policy]["filters"], "sessionIssuer.userName")
    known = {name for name in named if name.startswith("guardduty-response-")}
    wanted = roles_of(step) | {f"guardduty-response-{guard}" for guard in guards}
    assert known == wanted, f"{policy}: leave out calls of {sorted(wanted)}"


def test_the_isolation_guard_looks_at_each_protection_that_it_puts_back():
    told = str(POLICIES["isolation-guard"]["filters"])
    # `attribute`: the older form of the call, which names one
    more = ["blockDeviceMapping", "attribute"]
    for attribute in [*(setting.attribute for setting in SETTINGS), *more]:
        assert f"detail.requestParameters.{attribute}'" in told, (
            f"isolation-guard: nobody is told when {attribute} is changed: add it to its filters"
        )


@pytest.mark.parametrize("policy", GUARDS)
def test_a_guard_puts_right_before_it_explains_and_mails(policy):
    """An intruder who opens a group is faster than any mail."""
    names = [*steps(policy)]
    assert names[-1] == "fail-unless-complete", f"{policy}: else what fails is tried no more"
    explained = [name for name in names[:-1] if name == "explain-call" or name.startswith("notify")]
    assert explained[0] == "explain-call", f"{policy}: the mail has what was explained before it"
    assert names[-1 - len(explained) : -1] == explained, (
        f"{policy}: {', '.join(explained)} behind all that puts something right"
    )


def test_the_isolation_guard_asks_for_each_call_by_its_name_or_by_what_it_changes():
    filters = POLICIES["isolation-guard"]["filters"]
    by_parameter = {"ModifyNetworkInterfaceAttribute", "ModifyInstanceAttribute", "CreateTags"}
    unnamed = events("isolation-guard") - {*named_calls(filters)}
    assert unnamed == by_parameter, f"isolation-guard: ask for {sorted(unnamed - by_parameter)}"


@pytest.mark.parametrize("policy", ["isolation-guard", "forensic-group-guard"])
def test_a_call_that_takes_all_tags_off_is_seen(policy):
    """DeleteTags without keys."""
    told = [*asked(POLICIES[policy]["filters"], "detail.requestParameters.tagSet.items")]
    assert "absent" in told, f"{policy}: ask for `tagSet.items` that is absent"


@pytest.mark.parametrize("policy", ISOLATING)
def test_the_groups_come_first(policy):
    assert [*steps(policy)][0] == "isolate-instance", f"{policy}: every call before it is time"
