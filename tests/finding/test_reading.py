"""What is read out of a finding, whatever stands in its fields."""

import contextlib
import json
import random
from functools import partial
from pathlib import Path

import pytest
import yaml
from c7n.config import Config
from c7n.exceptions import PolicyExecutionError
from c7n.loader import PolicyLoader

from custom_actions import finding
from custom_actions.finding_file import read_finding
from custom_actions.headline import credential_headline, remediation_headline

ROOT = Path(__file__).parent.parent.parent
FINDINGS = sorted((ROOT / "tests" / "findings").glob("*.json"))
# Attack sequences are long: these two have every kind of resource.
SEQUENCES = ("ec2-sequence-instance-group", "ecs-sequence-cluster")
SHAPES = [path for path in FINDINGS if "-sequence-" not in path.stem or path.stem in SEQUENCES]
ACCOUNT = "111122223333"
REAL = "i-0abc1234def567890"
RESOURCE = {"InstanceId": REAL, "account_id": ACCOUNT, "UserName": "build"}
OUTCOME = {"step": "s", "status": "done", "detail": "d", "error": None, "facts": []}


LOADER = PolicyLoader(Config.empty(account_id=ACCOUNT, region="us-west-2"))
(NOTIFY,) = LOADER.load_data(
    yaml.safe_load((ROOT / "policies/finding-notify.yml").read_text()), "finding-notify.yml"
)


def responding():
    """The policies that act on findings, as they are deployed; finding-notify only mails."""
    for path in sorted((ROOT / "policies").rglob("*.yml")):
        for policy in LOADER.load_data(yaml.safe_load(path.read_text()), str(path)):
            if policy.execution_mode == "guard-duty" and policy.name != "finding-notify":
                policy.validate()
                yield policy


RESPONDING = list(responding())


def takes(policy, event):
    return bool(policy.resource_manager.filter_resources([dict(RESOURCE)], event))


def mailed_as_sample(event):
    NOTIFY.resource_manager.actions[0].process([], event)
    notice = event.pop("c7n:notice")
    assert notice["headline"].startswith("[SAMPLE] ") is notice["sample"]
    return notice["sample"]


# Any field may be missing, null or of another type

JUNK = [
    *(None, True, False, 0, -1.5, 10**400, "", "true", "[SAMPLE]", "\x00 {{ 1 }}\r\n", "\ud800"),
    *([], {}, [None], [[{}]], {"a": None}, {"sample": [{"value": 1}]}, ["i-99999999"]),
]


def places(node, path=()):
    """Every (parent, key) below a node, the node's own keys first."""
    keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key
        yield from places(node[key])


def read(event):
    """Everything that reads a finding before something is done with it."""
    for flag in (finding.is_sample, finding.is_archived, finding.is_actor, finding.is_target):
        assert flag(event) in (True, False)
    assert finding.direction(event) in ("OUTBOUND", "INBOUND", "UNKNOWN")
    assert isinstance(finding.finding_type(event), str)
    assert all(isinstance(address, str) for address in finding.remote_addresses(event))
    if finding.is_sequence(event):
        assert all(isinstance(t, str) for named in finding.named_instances(event) for t in named)
    with contextlib.suppress(PolicyExecutionError):
        assert finding.FINDING_ID.fullmatch(finding.finding_id(event))
    with contextlib.suppress(PolicyExecutionError):
        session = finding.role_session(event, ACCOUNT)
        assert finding.ROLE_ID.fullmatch(session.role_id)
        assert finding.ENTITY_NAME.fullmatch(session.role_name)
    with contextlib.suppress(PolicyExecutionError):
        key = finding.user_key(event, ACCOUNT)
        assert finding.USER_KEY_ID.fullmatch(key.key_id)
        assert finding.ENTITY_NAME.fullmatch(key.user_name)
    acted_on = [policy.name for policy in RESPONDING if takes(policy, event)]
    if isinstance(event, dict):
        assert not (mailed_as_sample(event) and acted_on)
    detail = finding.mapping(event, "detail")
    assert remediation_headline(detail, REAL, [OUTCOME])
    assert credential_headline(detail, [OUTCOME])


def fields(node, path=()):
    """The names of the fields below a node; of a list all entries are one."""
    if isinstance(node, list):
        return set().union(*(fields(value, path) for value in node))
    if not isinstance(node, dict):
        return set()
    inner = (fields(value, (*path, key)) for key, value in node.items())
    return {(*path, key) for key in node}.union(*inner)


def by_shape(paths):
    """The findings as parameters; one that has no field, resource or threat of its own is slow."""
    known = set()
    for path in paths:
        detail = read_finding(path)["detail"]
        resource = detail["resource"]
        new = fields(detail) | {resource["resourceType"], detail["type"].partition("/")[0]}
        marks = [pytest.mark.slow] if new <= known else []
        known |= new
        yield pytest.param(path, marks=marks, id=path.stem)


@pytest.mark.parametrize("path", by_shape(SHAPES))
def test_any_field_may_be_missing_or_of_another_type(path):
    event, rng = read_finding(path), random.Random(path.stem)
    for parent, key in list(places({"detail": event["detail"]})):
        value = parent[key]
        for parent[key] in rng.sample(JUNK, 1):
            read(event)
        if isinstance(parent, dict):
            del parent[key]
            read(event)
        parent[key] = value


@pytest.mark.parametrize("event", [None, {}, [], "", {"detail": None}, {"detail": [1]}], ids=str)
def test_there_may_be_no_finding(event):
    read(event)
    with pytest.raises(PolicyExecutionError, match="is not the id of a finding"):
        finding.finding_id(event)
    with pytest.raises(PolicyExecutionError, match="the finding is of account None"):
        finding.role_session(event, ACCOUNT)
    with pytest.raises(PolicyExecutionError, match="the finding is of account None"):
        finding.user_key(event, ACCOUNT)


@pytest.mark.parametrize(
    "found, sentence",
    {
        "OUTBOUND": "is communicating outbound with",
        "INBOUND": "received an inbound connection from",
        "UNKNOWN": "is communicating (who began it is not known) with",
        None: "is communicating (who began it is not known) with",
    }.items(),
)
def test_the_remediation_mail_says_who_began_the_connection(found, sentence):
    detail = read_finding(ROOT / "tests" / "findings" / "ec2-malicious-ip-caller.json")["detail"]
    detail["service"]["action"]["networkConnectionAction"]["connectionDirection"] = found

    line = remediation_headline(detail, REAL, [OUTCOME | {"isolated": True}])

    about = f"GuardDuty discovered an EC2 instance (Instance ID: {REAL}) that"
    assert f"{about} {sentence} an IP Address on a threat list that you uploaded. All" in line


# One definition of a sample


def with_info(info):
    event = read_finding(ROOT / "tests" / "findings" / "ec2-malicious-ip-caller.json")
    event["detail"]["service"]["additionalInfo"] = info
    return event


@pytest.mark.parametrize(
    "info",
    [
        {"sample": '"true"'},
        {"SAMPLE": "TRUE"},
        {"value": '{"a":{"sample":true}}'},
        {"value": '[{"sample":true}]'},
        {"value": '{"sample":true} and more'},
        {"value": '{\n "a": 1,\n "Sample" : "True"\n}'},
        {"value": '{"sample":true,"a":"cut o'},
        {"value": 'text before {"sample": true}'},
        {"value": '{"sample": true, "sample": false}'},
        {"value": r'{"\u0073ample": "tru\u0065"}'},
        {"value": [{"a": {"sample": "true"}}]},
    ],
    ids=lambda info: str(info)[:60],
)
def test_a_sample(info):
    assert finding.is_sample(with_info(info))


def with_title_and_instance(title, instance_id):
    event = with_info({})
    event["detail"]["title"] = title
    event["detail"]["resource"]["instanceDetails"]["instanceId"] = instance_id
    return event


@pytest.mark.parametrize(
    "title, instance_id, sample",
    [
        ("[SAMPLE] EC2 instance", REAL, True),
        (" [sample] EC2 instance", REAL, True),
        ("EC2 instance", "i-99999999", True),
        ("EC2 instance [SAMPLE]", REAL, False),
        (["[SAMPLE]"], REAL, False),
        ("EC2 instance", "i-999999999", False),
        ("EC2 instance i-99999999", None, False),
    ],
    ids=str,
)
def test_the_title_and_the_instance_mark_a_sample_too(title, instance_id, sample):
    assert finding.is_sample(with_title_and_instance(title, instance_id)) is sample


WORDS = '{"sample": true}'


@pytest.mark.parametrize(
    "info",
    [
        None,
        "sample",
        WORDS,
        {"sample": False, "value": '{"sample": false}'},
        {"sample": "no", "value": '{"sample": null}'},
        {"name": WORDS},
        {"value": [WORDS]},
        {"value": {"name": WORDS}},
        {"value": json.dumps(WORDS)},
        {"value": json.dumps({"name": WORDS})},
        {"value": json.dumps({"name": f"a{WORDS[:-1]},"})},
        {"value": json.dumps({"name": WORDS})[:-4]},
        {"value": json.dumps({"name": WORDS}) + " and more"},
        {"value": json.dumps({WORDS: True})},
        {"value": json.dumps({"name": '\\",{"sample": true'})},
        {"value": json.dumps({"samples": True, "is-sample": True, "portsScannedSample": [1]})},
        {"value": "9" * 5000},
    ],
    ids=lambda info: str(info)[:60],
)
def test_no_sample_whatever_an_attacker_writes_into_a_string(info):
    assert not finding.is_sample(with_info(info))


def test_depth_breaks_nothing():
    """An event holds up to 256 KB; that deep, Python's JSON gives up."""
    deep = {"sample": True}
    for _ in range(50_000):
        deep = [deep]

    assert finding.is_sample(with_info({"value": deep}))
    assert finding.is_sample(with_info({"value": "[" * 100_000 + '{"sample":true}'}))
    assert not finding.is_sample(with_info({"value": "[" * 100_000}))


def markings(rng, depth=0):
    """Made-up contents of `additionalInfo` and other fields that can mark a sample."""
    kind = rng.random()
    if depth > 3 or kind < 0.4:
        return rng.choice([True, "True", '"true"', False, None, 1, "x", WORDS, "[SAMPLE]", {}, []])
    if kind < 0.8:
        keys = rng.choices(["sample", "Sample", "value", "a", 'x,"sample'], k=2)
        return {key: markings(rng, depth + 1) for key in keys}
    return [markings(rng, depth + 1) for _ in range(2)]


def spelt(rng, value):
    """JSON text of a value; some of it is cut off or goes on."""
    text = json.dumps(value)
    return rng.choice([text, text, text + " and more", text[: len(text) // 2], "text " + text])


def real(policy):
    """The first finding of its folder that the policy acts on."""
    folder = ROOT / "tests" / policy.name / "positive"
    return next(filter(partial(takes, policy), map(read_finding, sorted(folder.glob("*.json")))))


def test_whatever_the_mail_calls_a_sample_no_policy_acts_on_and_the_rest_each_does():
    rng, seen = random.Random(7), {True: 0, False: 0}
    for policy in RESPONDING:
        event = real(policy)
        for _ in range(300):
            value = markings(rng)
            info = rng.choice([value, {"sample": value}, {"value": value}])
            if rng.random() < 0.5:
                info = {"type": "default", "value": spelt(rng, value)}
            event["detail"]["service"]["additionalInfo"] = info
            event["detail"]["title"] = rng.choice(["[SAMPLE] x", "x", "x", "x [SAMPLE]", None])
            sample = mailed_as_sample(event)
            assert takes(policy, event) is not sample, (policy.name, event["detail"])
            seen[sample] += 1
    assert min(seen.values()) > 200


def of_a_sequence(name):
    return read_finding(ROOT / "tests" / "findings" / f"{name}.json")


def test_the_instances_and_addresses_of_an_attack_sequence():
    """By id or by ARN, each once; no member of a group that is no resource by itself."""
    event = of_a_sequence("ec2-sequence-instance-group")
    named = finding.named_instances(event)
    assert len({n.instance_id for n in named}) == len(named) == 3
    assert {n[1:] for n in named} == {(ACCOUNT, "us-west-2")}
    (node,) = finding.named_instances(of_a_sequence("eks-sequence-cluster"))
    listed = event["detail"]["service"]["detection"]["sequence"]["resources"]
    listed[0] |= {"uid": f"arn:aws:ec2:eu-west-1:444455556666:instance/{REAL}"}
    del listed[0]["accountId"], listed[0]["region"]
    assert finding.named_instances(event)[0] == (REAL, "444455556666", "eu-west-1")
    assert finding.signals_of_addresses(event) == {
        "203.0.113.7": {"CryptoCurrency:Runtime/BitcoinTool.B"},
        "198.51.100.77": {"Backdoor:EC2/C&CActivity.B"},
        "192.0.2.200": {"UnauthorizedAccess:EC2/SSHBruteForce"},
        "10.0.0.11": set(),
    }
    # the resource type decides, not what stands in the finding besides
    event["detail"]["resource"]["resourceType"] = "Instance"
    assert finding.named_instances(event) == []


def test_every_way_in_which_a_sequence_is_a_sample():
    for mark in (
        {"title": "[SAMPLE] Potential EC2 instance group compromise"},
        {"additionalInfo": {"sample": True}},
        {"additionalInfo": {"value": '{"sample":true}'}},
        {"uid": finding.SAMPLE_INSTANCE},
        {"uid": f"arn:aws:ec2:us-west-2:{ACCOUNT}:instance/{finding.SAMPLE_INSTANCE}"},
    ):
        event = of_a_sequence("ec2-sequence-instance-group")
        assert not finding.is_sample(event)
        event["detail"] |= {"title": mark.get("title", "")}
        service = event["detail"]["service"]
        service["additionalInfo"] = mark.get("additionalInfo", {})
        last = service["detection"]["sequence"]["resources"][-1]
        last["uid"] = mark.get("uid", last["uid"])
        assert finding.is_sample(event), mark
