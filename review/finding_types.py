"""docs/findings.md: GuardDuty's whole list of finding types, and what the pack does with each.

The list is AWS's (finding-types.csv). What the pack does is asked of the rules and filters of the
policies, with a made-up finding of each type and again with each thing about it that a policy may
ask for; why stands beside the type in the policy. For what is only mailed, FAMILIES has the reason.
"""

import csv
import html
import itertools
import re
from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import botocore.session
import click

from custom_actions.finding import is_among
from deployment import policies
from deployment.errors import Refused
from infra import generated
from review import filters
from review.catalogue import ROOT, Entry, entries, rendered
from review.coverage import functions_of, halves, of_folder

PAGE = ROOT / "docs" / "findings.md"
LIST = Path(__file__).parent / "finding-types.csv"
RETIRED = "retired"
TYPE = re.compile(r"\b[A-Z][A-Za-z]+:[A-Z][A-Za-z0-9]+/[A-Z][A-Za-z0-9&]*(?:[.!][A-Z][A-Za-z]*)*")

# Where AWS's page says a resource in words: the resourceType of such a finding. Of the others no
# policy asks for it.
RESOURCE_TYPES = {
    "Amazon EC2": ("Instance",),
    "IAM": ("AccessKey",),
    "Instance, EKS cluster, ECS cluster, or container": (
        "Instance",
        "EKSCluster",
        "ECSCluster",
        "Container",
    ),
    "Resources involved in attack sequence": ("AttackSequence",),
}
# A severity of each level, https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_findings-severity.html
LEVELS = {"Low": 2, "Medium": 5, "High": 8, "Critical": 9.5}
USERS = {"AssumedRole": "a role", "IAMUser": "an IAM user", "Root": "the root user"}

# What becomes of it, by the step that does it. A policy without such a step is named.
DONE = {
    "isolate-instance": "**instance isolated**",
    "revoke-role-sessions": "**sessions denied**",
    "deactivate-access-key": "**access key deactivated**",
}

# Why a type is mailed and nothing else, by the beginning of the type; the first that fits.
FAMILIES = {
    ("Recon:EC2/PortProbe",): "somebody knocks from outside; the instance does nothing",
    (
        "Behavior:EC2/",
        "DefenseEvasion:EC2/",
    ): "unusual for this instance, and often an administrator's or a deploy's work",
    (
        "Impact:EC2/AbusedDomainRequest",
        "Impact:EC2/SuspiciousDomainRequest",
        "Impact:Runtime/AbusedDomainRequest",
        "Impact:Runtime/SuspiciousDomainRequest",
    ): "a domain of low reputation, which is not known to be malicious",
    (
        "UnauthorizedAccess:EC2/MetadataDNSRebind",
        "UnauthorizedAccess:Runtime/MetadataDNSRebind",
    ): "somebody tries to make the instance give away its credentials; it does not act for him yet",
    (
        "Execution:EC2/",
        "Execution:ECS/",
        "Execution:Kubernetes/MaliciousFile",
        "Execution:Kubernetes/SuspiciousFile",
        "Execution:Container/",
        "Execution:S3/",
        "Object:S3/",
    ): "a file was found; that it ran is not said",
    (
        "DefenseEvasion:Runtime/",
        "Discovery:Runtime/",
        "Execution:Runtime/",
        "Persistence:Runtime/",
        "PrivilegeEscalation:Runtime/",
    ): "what administrators, deploys and debuggers do too; a person has to look",
    ("AttackSequence:",): "several findings in one; what they name is in it, and a person decides",
    (
        "Impact:IAMUser/AnomalousModelInvocation",
        "Impact:IAMUser/CostHarvesting",
        "Impact:IAMUser/PromptInjection",
    ): "unusual use of AI models, which may be its owners' work; a person decides",
    (
        "PenTest:IAMUser/",
        "Policy:IAMUser/",
        "Stealth:IAMUser/",
    ): "how the account is used, which may be its owners' work; a person decides",
    (":IAMUser/",): "the credentials may be in use by their owner; whom to stop a person decides",
    (":S3/",): "about a bucket: no instance and no session is named that could be held",
    (
        ":Kubernetes/",
    ): "about calls of a cluster's API: the pack holds instances, not pods or users",
    (":RDS/",): "about logins to a database: the pack holds instances, not databases",
    (":Lambda/",): "a function acts for somebody else: the pack holds instances, not functions",
}
# By the source of the finding, before its type.
OF_SOURCES = {
    "Custom Detection Rules": "an API call of a kind that the account asked to be told about",
}

# What botocore's model of GuardDuty had when this list was last looked at: a name that it has
# besides stands for findings that the list does not know yet (tests/review/test_finding_types.py).
KNOWN = {
    "Resource": """
        accessKeyDetails bedrockGuardrailDetails containerDetails ebsSnapshotDetails
        ebsVolumeDetails ec2ImageDetails ecsClusterDetails eksClusterDetails instanceDetails
        kubernetesDetails lambdaDetails modelDetails rdsDbInstanceDetails rdsDbUserDetails
        rdsLimitlessDbDetails recoveryPointDetails resourceType s3BucketDetails
    """,
    "Action": """
        actionType awsApiCallAction dnsRequestAction kubernetesApiCallAction
        kubernetesPermissionCheckedDetails kubernetesRoleBindingDetails kubernetesRoleDetails
        networkConnectionAction portProbeAction rdsLoginAttemptAction
    """,
    "FindingResourceType": """
        ACCESS_KEY AUTOSCALING_AUTO_SCALING_GROUP BEDROCK_APPLICATION_INFERENCE_PROFILE
        BEDROCK_CUSTOM_MODEL BEDROCK_CUSTOM_MODEL_DEPLOYMENT BEDROCK_GUARDRAIL
        BEDROCK_IMPORTED_MODEL BEDROCK_INFERENCE_PROFILE BEDROCK_PROMPT BEDROCK_PROMPT_ROUTER
        BEDROCK_PROVISIONED_MODEL CLOUDFORMATION_STACK CONTAINER EC2_IMAGE EC2_INSTANCE
        EC2_LAUNCH_TEMPLATE EC2_NETWORK_INTERFACE EC2_VPC ECS_CLUSTER ECS_TASK EKS_CLUSTER
        IAM_INSTANCE_PROFILE KUBERNETES_WORKLOAD S3_BUCKET S3_OBJECT SAGEMAKER_ENDPOINT
    """,
    "DetectorFeatureResult": """
        AI_ANALYST AI_PROTECTION CLOUD_TRAIL DNS_LOGS EBS_MALWARE_PROTECTION EKS_AUDIT_LOGS
        EKS_RUNTIME_MONITORING FLOW_LOGS LAMBDA_NETWORK_LOGS RDS_LOGIN_EVENTS RUNTIME_MONITORING
        S3_DATA_EVENTS
    """,
}


class FindingType(NamedTuple):
    """A row of AWS's list, in its words."""

    type: str
    resource: str
    source: str
    severity: str

    @property
    def resource_types(self) -> tuple[str, ...]:
        return RESOURCE_TYPES.get(self.resource, (self.resource,))

    @property
    def levels(self) -> list[str]:
        """The levels that its severity can have."""
        named = self.severity.removesuffix("*")
        return [named] if self.severity in LEVELS else ["Low", "Medium", "High"]

    def finding(
        self,
        resource_type,
        level,
        role="ACTOR",
        direction="OUTBOUND",
        user="AssumedRole",
        named=True,
    ) -> dict:
        """A finding of this type, with what rules and filters ask for. named: an instance."""
        instance = {"instanceDetails": {"instanceId": "i-0abc1234def567890"}} if named else {}
        key = {"userType": user, "userName": "name", "principalId": "AROAEXAMPLEEXAMPLE001:name"}
        sequence = [{"uid": "i-0abc1234def567890", "resourceType": "EC2_INSTANCE"}] if named else []
        return {
            "detail-type": "GuardDuty Finding",
            "source": "aws.guardduty",
            "account": "111122223333",
            "region": "us-west-2",
            "detail": {
                "accountId": "111122223333",
                "id": "0" * 32,
                "type": self.type,
                "severity": LEVELS[level],
                "title": "",
                "resource": {
                    "resourceType": resource_type,
                    **(instance if resource_type != "AttackSequence" else {}),
                    **({"accessKeyDetails": key} if resource_type == "AccessKey" else {}),
                },
                "service": {
                    "archived": False,
                    "resourceRole": role,
                    "action": {"networkConnectionAction": {"connectionDirection": direction}},
                    "detection": {"sequence": {"resources": sequence}},
                },
            },
        }


@cache
def finding_types() -> list[FindingType]:
    """AWS's list, as LIST has it, the retired ones too."""
    lines = (line for line in LIST.read_text().splitlines() if not line.startswith("#"))
    return [FindingType(**row) for row in csv.DictReader(lines)]


def active() -> list[FindingType]:
    return [one for one in finding_types() if one.severity != RETIRED]


class Policy:
    """A policy for findings, and what it makes of a type."""

    def __init__(self, entry: Entry, data: dict):
        self.entry = entry
        self.types = data["mode"].get("pattern", {}).get("detail", {}).get("type", [])
        self.of = functions_of(data)
        done = [DONE[a.type] for a in entry.actions if a.type in DONE]
        self.done = done[0] if done else f"`{entry.name}`" if entry.changing else "mailed"

    def acts(self, of: FindingType, **about) -> bool:
        """Whether it acts on a finding of the type, of whatever resource the type has."""
        kinds = of.resource_types
        if about.get("named") is False and len(kinds) > 1:
            kinds = [kind for kind in kinds if kind != "Instance"]
        made = (of.finding(kind, **about) for kind in kinds)
        return all(all(halves(self.of(event), event)) for event in made)

    def does(self, of: FindingType) -> str:
        """What it does with a finding of the type, and under which condition; "" for nothing."""
        asked = list(USERS) if of.resource_types == ("AccessKey",) else list(USERS)[:1]
        found = [
            (level, user)
            for level, user in itertools.product(of.levels, asked)
            if self.acts(of, level=level, user=user)
        ]
        if not found:
            return ""
        levels, users = (list(dict.fromkeys(values)) for values in zip(*found, strict=True))
        acts = partial(self.acts, of, level=levels[0], user=users[0])
        only = []
        if len(users) < len(asked):
            only.append(f"if the credentials are of {' or '.join(USERS[u] for u in users)}")
        if len(levels) < len(of.levels):
            only.append(f"if its severity is {' or '.join(levels)}")
        if not acts(role="TARGET"):
            only.append("if the instance is the one that acts (`resourceRole` is `ACTOR`)")
        elif not acts(role="TARGET", direction="INBOUND"):
            only.append("unless the remote side began the connection")
        # of a sequence the mode decides, not the filter: custom_actions/modes.py
        by_mode = self.entry.data["resource"] == "ec2" and of.type.startswith("AttackSequence:")
        if by_mode or not acts(named=False):
            only.append("where the finding names an instance")
        if self.entry.is_opt_in:
            only.append(f"if the opt-in policy [{self.entry.name}](policies.md#{self.entry.name}) "
                        "is deployed")  # fmt: skip
        return " ".join([self.done, ", ".join(only)]).strip()

    def why(self, of: FindingType) -> str:
        """The comment beside the type in the policy."""
        named = {filters.entry(wanted) for wanted in self.types if is_among([wanted], of.type)}
        return next((words for group, words in self.entry.types if named & set(group)), "")


class Row(NamedTuple):
    """A line of the page."""

    type: str
    severity: str
    does: str
    why: str


@cache
def acting() -> list[Policy]:
    """The policies for findings; those that change something first."""
    data = of_folder(policies.FOLDER)
    found = [Policy(entry, data[entry.name]) for entry in entries() if entry.name in data]
    return sorted(found, key=lambda one: (not one.entry.changing, one.entry.is_opt_in))


def row(of: FindingType) -> Row:
    """What the pack does with a type, and why. Raises Refused where nobody says why."""
    done = {policy: words for policy in acting() if (words := policy.does(of))}
    why = [policy.why(of) for policy in done if policy.entry.changing]
    said = next(filter(None, why), None) or family(of)
    if said is None:
        raise Refused(f"review/finding_types.py: FAMILIES has no reason for {of.type}.")
    does = "; ".join(done.values())
    if not does and any(policy.acts(of, level="Critical") for policy in acting()):
        does = f"not mailed: its severity is {' or '.join(of.levels)}"
    return Row(of.type, of.severity, does or "nothing", said)


def family(of: FindingType) -> str | None:
    """Why a type is mailed and nothing else."""
    if of.source in OF_SOURCES:
        return OF_SOURCES[of.source]
    return next(
        (
            words
            for beginnings, words in FAMILIES.items()
            if any(b in of.type if b[0] == ":" else of.type.startswith(b) for b in beginnings)
        ),
        None,
    )


def unlisted() -> list[str]:
    """The types that a policy names and AWS's list does not have."""
    known = [one.type for one in active()]
    return sorted(
        filters.entry(wanted)
        for wanted in {str(w): w for policy in acting() for w in policy.types}.values()
        if not any(is_among([wanted], one) for one in known)
    )


def heading(of: FindingType) -> str:
    return ": ".join(filter(None, (of.source, of.resource)))


@cache
def page() -> str:
    """docs/findings.md. Raises Refused where nobody says why."""
    groups = {
        source: [row(one) for one in types]
        for source, types in itertools.groupby(active(), heading)
    }
    return rendered(
        "findings.md.j2",
        groups=groups,
        retired=[one.type for one in finding_types() if one.severity == RETIRED],
        unlisted=unlisted(),
        number=len(active()),
    )


def new_in_the_model() -> Iterator[str]:
    """What botocore's model of GuardDuty has and KNOWN does not, a sentence each."""
    model = botocore.session.Session().get_service_model("guardduty")
    for name, known in KNOWN.items():
        shape = model.shape_for(name)
        if shape.type_name == "structure":
            found = {m.serialization.get("name", key) for key, m in shape.members.items()}
        else:
            found = set(shape.enum)
        for one in sorted(found - set(known.split())):
            yield (
                f"{one} is new in {name} of botocore's model of GuardDuty: compare AWS's list of "
                "finding types (docs/findings.md says how), then add it to KNOWN in "
                "review/finding_types.py."
            )


def differences(pages: Iterable[str]) -> Iterator[str]:
    """Where saved pages of AWS differ from the list, a sentence each.

    pages: their text, HTML or Markdown. What is gone is only said of the sources of which the pages
    have a type at all: a page of one family does not lack the others.
    """
    text = " ".join(html.unescape(one).replace("\\", "") for one in pages)
    published = set(TYPE.findall(text))
    if not published:
        raise Refused("The pages name no finding type: save the page of AWS, not a link to it.")
    listed = {one.type: one for one in finding_types()}
    for new in sorted(published - set(listed)):
        yield f"new: {new}"
    shown = {one.source for one in active() if one.type in published}
    for one in active():
        if one.source in shown and one.type not in published:
            yield f"gone: {one.type} ({one.source})"


@click.command("finding-types")
@generated.option
@click.option(
    "--compare",
    "saved",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A saved page of AWS's list: say what is new or gone, write nothing; repeatable.",
)
def main(check: bool, saved: tuple[Path, ...]) -> None:
    """Write docs/findings.md: GuardDuty's finding types and what the pack does with each."""
    if not saved:
        generated.write(PAGE, page(), "catalogue", check)
        return
    found = list(differences(path.read_text(errors="replace") for path in saved))
    for sentence in found:
        click.echo(sentence)
    if found:
        click.echo("Put it right in review/finding-types.csv, then: make catalogue", err=True)
        raise SystemExit(1)
