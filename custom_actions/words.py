"""Text of others as one line that is safe to read, and what a finding is about, in words."""

import re

import jmespath

from custom_actions.finding import instance_ids, mapping, text

OF_S3 = re.compile(r"(?<!\S)s3\[:\]//")
LONGEST = 900  # characters; mail servers refuse header lines of more than 998


def one_line(text, longest=LONGEST):
    """Text that an attacker may have written, fit for a header and safe to read.

    No line break and no control character; web addresses are spelt so that mail programs do not
    make links of them. Of an address in S3 they make none, and a person copies it.
    """
    text = OF_S3.sub("s3://", str(text or "").replace("://", "[:]//").replace("www.", "www[.]"))
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


# What a finding is about: its resourceType, that in words, and where its names stand.
# https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_findings-summary.html
# The resourceType of the findings of Malware Protection for Backup is not documented: what is not
# here by its type is known by the first of these that the finding has the names of.
RESOURCES = {
    "Instance": ("EC2 instance", "resource.instanceDetails.instanceId"),
    "S3Object": ("S3 object", "resource.s3BucketDetails[].s3ObjectDetails[].[objectArn || key][]"),
    "S3Bucket": ("S3 bucket", "resource.s3BucketDetails[].name"),
    "EKSCluster": ("EKS cluster", "resource.eksClusterDetails.name"),
    "ECSCluster": ("ECS cluster", "resource.ecsClusterDetails.name"),
    "Lambda": ("Lambda function", "resource.lambdaDetails.functionName"),
    "RDSDBInstance": ("RDS database", "resource.rdsDbInstanceDetails.dbInstanceIdentifier"),
    "RDSLimitlessDB": (
        "RDS Limitless database",
        "resource.rdsLimitlessDbDetails.dbShardGroupIdentifier",
    ),
    "Container": ("container", "resource.containerDetails.name"),
    "EBSSnapshot": ("EBS snapshot", "resource.ebsSnapshotDetails.snapshotArn"),
    "EC2Image": ("machine image", "resource.ec2ImageDetails.imageArn"),
    "RecoveryPoint": ("recovery point", "resource.recoveryPointDetails.recoveryPointArn"),
    "BedrockGuardrail": ("Bedrock guardrail", "resource.bedrockGuardrailDetails.guardrailArn"),
}
# Where something lies and nobody acts: it holds what GuardDuty found, and is not compromised by it.
STORED = ("S3 object", "EBS snapshot", "machine image", "recovery point")
# The same for the resources of an attack sequence: the first of these kinds that it names is what
# it is about. https://docs.aws.amazon.com/guardduty/latest/APIReference/API_ResourceV2.html
OF_A_SEQUENCE = {
    "EC2_INSTANCE": "EC2 instance",
    "EKS_CLUSTER": "EKS cluster",
    "ECS_CLUSTER": "ECS cluster",
    "S3_BUCKET": "S3 bucket",
    "ACCESS_KEY": "access key",
}
NAMED = 3  # of several, those that a headline names


def subject(finding):
    """What the finding is about, in words."""
    kind = text(mapping(finding, "resource"), "resourceType")
    access = mapping(finding, "resource", "accessKeyDetails")
    if access and kind in ("AccessKey", ""):
        return _identity(finding, access)
    if kind == "AttackSequence":
        return _of_a_sequence(finding)
    found = {one: jmespath.search(path, finding) for one, (_, path) in RESOURCES.items()}
    if kind not in RESOURCES:
        kind = next((one for one, names in found.items() if names), kind)
    instance = found["Instance"]
    if kind not in RESOURCES:
        return f"resource of type {one_line(kind, 64)}" if kind else "resource (not named)"
    words = _named(RESOURCES[kind][0], found[kind])
    if kind != "Instance" and isinstance(instance, str) and instance:
        words += f" (EC2 instance {one_line(instance, 40)})"
    return words


def _named(words, names):
    """Words for things of a kind, with the names of the first few."""
    names = names if isinstance(names, list) else [names]
    names = [one_line(name, 128) for name in names if isinstance(name, str) and name]
    if len(names) < 2:
        return f"{words} {names[0] if names else '(not named)'}"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{words}s {', '.join(names[:NAMED])}{more}"


def _identity(finding, access):
    name = one_line(access.get("userName") or access.get("principalId"), 128) or "(not named)"
    kinds = {"IAMUser": "IAM user", "AssumedRole": "IAM role", "Role": "IAM role"}
    if access.get("userType") == "Root":
        return f"root user of account {one_line(finding.get('accountId'), 12)}"
    return f"{kinds.get(str(access.get('userType')), 'identity')} {name}"


def _of_a_sequence(finding):
    instances = instance_ids({"detail": finding})
    if instances:
        return _named("EC2 instance", instances)
    names = jmespath.search(
        "service.detection.sequence.resources[].[resourceType, name || uid]", finding
    )
    for kind, words in OF_A_SEQUENCE.items():
        found = [name for one, name in names or () if one == kind]
        if found:
            return _named(words, found)
    return f"account {one_line(finding.get('accountId'), 12) or '(not named)'}"
