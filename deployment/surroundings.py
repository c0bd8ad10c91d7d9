"""What the functions of an account and region need around them: stack, topic, queues, GuardDuty,
a trail.

IAM: what `guardduty-response-status` of infra/operators.yml allows.
"""

import json
import shlex
from datetime import UTC, datetime, timedelta

from deployment import roles
from deployment.checks import infra, there, unless
from deployment.targets import ROOT

STACK = "guardduty-response"
TEMPLATE = ROOT / "infra" / "account.yml"
DEAD_LETTERS = "guardduty-response-dlq"
MAILER = "guardduty-response-mailer"
QUEUE_ABSENT = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
FREQUENCY = "FIFTEEN_MINUTES"
# CloudFormation's word for stacks that came up as they were asked to
COMPLETE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE")


def surroundings(checks, target, session, kinds):
    """Everything but the functions. kinds: of the modes of the policies, as cloudtrail.

    Returns the ARN of the mail queue that the topic is subscribed to, or None.
    """
    queue = None
    with checks.reading("stack"):
        queue = stack(checks, target, session)
    with checks.reading("topic"):
        queue = topic(checks, target, session.client("sns"), queue)
    with checks.reading("dead letters"):
        mend = f"make dlq REGION={target.region}{there(target)}"
        dead_letters(checks, target, session, DEAD_LETTERS, mend)
    if "guard-duty" in kinds:
        with checks.reading("guardduty"):
            guardduty(checks, target, session.client("guardduty"))
    if "cloudtrail" in kinds:
        with checks.reading("trail"):
            trail(checks, target, session)
    return queue


def stack(checks, target, session):
    """The stack of infra/account.yml, and its roles where it has them; its parameter MailQueueArn.

    In accounts of a StackSet it has another name: then CloudFormation is asked whose the topic is.
    https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeStackResources.html
    """
    client = session.client("cloudformation")
    name, absent = STACK, ("ValidationError",)
    found = unless(absent, client.describe_stacks, StackName=name)
    if found is None:
        made = unless(
            absent,
            client.describe_stack_resources,
            PhysicalResourceId=target.arn("sns", STACK),
        )
        if not made or not made["StackResources"]:
            found = f"{STACK} is not there: no role, no topic, no dead-letter queue"
            checks.say("stack", False, found, f"{infra(target)}, or make stackset")
            return None
        name = made["StackResources"][0]["StackName"]
        found = client.describe_stacks(StackName=name)
    (shown,) = found["Stacks"]
    given = {p["ParameterKey"]: p["ParameterValue"] for p in shown.get("Parameters", ())}
    body = client.get_template(StackName=name, TemplateStage="Original")["TemplateBody"]
    body = body if isinstance(body, str) else json.dumps(body)  # botocore reads one in JSON
    said = " ".join(f"{key}={value}" for key, value in sorted(given.items()) if value)
    if shown["StackStatus"] not in COMPLETE:
        why = shown.get("StackStatusReason", "")
        checks.say(
            "stack", False, f"{name} is {shown['StackStatus']} {why}".strip(), infra(target, name)
        )
    elif lines(body) != lines(TEMPLATE.read_text()):
        checks.say("stack", False, f"{name} is of another version ({said})", infra(target, name))
    else:
        checks.say("stack", True, f"{name}, {said}")
    if given.get("RoleRegion", "") in ("", target.region):
        with checks.reading("roles"):
            roles.compare(checks, target, session.client("iam"), name, body, given)
    else:
        checks.say("roles", True, "the stack of another region of this account has them")
    return given.get("MailQueueArn")


def lines(template):
    """What counts of a template's text."""
    return [line.rstrip() for line in template.strip().splitlines()]


def topic(checks, target, client, mail_queue):
    """The topic and its subscription of the mail queue, confirmed; the queue's ARN.

    mail_queue: the ARN that the stack was given, or None.
    """
    topic_arn = target.arn("sns", STACK)
    pages = client.get_paginator("list_subscriptions_by_topic")
    found = unless(
        ("NotFound", "NotFoundException"), pages.paginate(TopicArn=topic_arn).build_full_result
    )
    if found is None:
        checks.say("topic", False, f"{STACK} is not there: no mail", infra(target))
        return None
    checks.say("topic", True, topic_arn)
    queues = [s for s in found.get("Subscriptions", ()) if s["Protocol"] == "sqs"]
    queues.sort(key=lambda s: s["Endpoint"] != mail_queue)
    confirmed = [s for s in queues if s["SubscriptionArn"].startswith("arn:")]
    if confirmed:
        with checks.reading("subscription"):
            subscription(checks, target, client, confirmed[0])
        return confirmed[0]["Endpoint"]
    queue = queues[0]["Endpoint"] if queues else mail_queue
    found = f"of {queue} is pending, not confirmed" if queues else "no queue is subscribed"
    # A stack that is as it was mends nothing: of a subscription that SNS has deleted, since nobody
    # confirmed it within two days, or that somebody ended, CloudFormation does not know.
    redrive = json.dumps({"RedrivePolicy": redrive_policy(target)})
    checks.say(
        "subscription",
        False,
        f"{found}: no mail",
        "Is the mailer deployed, and does it know the account (docs/mailer.md)? Then: aws sns "
        f"subscribe --region {target.region} --topic-arn {topic_arn} --protocol sqs "
        f"--notification-endpoint {queue or '<MailQueueArn>'} --attributes {shlex.quote(redrive)}"
        f"{there(target)}",
    )
    return queue


def redrive_policy(target):
    """As infra/account.yml has it."""
    queue = target.arn("sqs", DEAD_LETTERS)
    return json.dumps({"deadLetterTargetArn": queue}, separators=(",", ":"))


def subscription(checks, target, client, confirmed):
    """That a confirmed subscription delivers everything, with SNS's envelope, and loses nothing.

    Without the envelope the mailer does not know the topic; a filter policy keeps mails back.
    https://docs.aws.amazon.com/sns/latest/api/API_GetSubscriptionAttributes.html
    """
    found = client.get_subscription_attributes(SubscriptionArn=confirmed["SubscriptionArn"])
    has, redrive = found["Attributes"], redrive_policy(target)
    wrong = {}
    if has.get("RawMessageDelivery", "false") != "false":
        wrong["RawMessageDelivery"] = ("delivers without SNS's envelope", "false")
    if has.get("FilterPolicy", "{}") != "{}":
        wrong["FilterPolicy"] = ("a filter policy keeps mails back", "{}")
    if json.loads(has.get("RedrivePolicy", "{}")) != json.loads(redrive):
        wrong["RedrivePolicy"] = (f"what cannot be delivered is not in {DEAD_LETTERS}", redrive)
    mend = "; ".join(
        f"aws sns set-subscription-attributes --region {target.region} --subscription-arn "
        f"{confirmed['SubscriptionArn']} --attribute-name {name} "
        f"--attribute-value {shlex.quote(value)}"
        for name, (_, value) in wrong.items()
    )
    how = ", ".join(what for what, _ in wrong.values()) or "confirmed"
    checks.say(
        "subscription", not wrong, f"{confirmed['Endpoint']}, {how}", f"{mend}{there(target)}"
    )


def dead_letters(checks, target, session, queue, mend):
    """A dead-letter queue is there and empty; how old what is in it is says CloudWatch."""
    client = session.client("sqs")
    found = unless(QUEUE_ABSENT, client.get_queue_url, QueueName=queue)
    if found is None:
        checks.say("dead letters", False, f"{queue} is not there", infra(target))
        return
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    shown = client.get_queue_attributes(QueueUrl=found["QueueUrl"], AttributeNames=names)
    number = sum(int(shown["Attributes"][name]) for name in names)
    if not number:
        checks.say("dead letters", True, f"{queue} is empty")
        return
    checks.say("dead letters", False, f"{number} in {queue}{age(session, queue)}", mend)


def age(session, queue):
    """How old the oldest message is, as text; "" where CloudWatch does not say."""
    now = datetime.now(UTC)
    points = session.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SQS",
        MetricName="ApproximateAgeOfOldestMessage",
        Dimensions=[{"Name": "QueueName", "Value": queue}],
        StartTime=now - timedelta(minutes=15),
        EndTime=now,
        Period=900,
        Statistics=["Maximum"],
    )["Datapoints"]
    if not points:
        return ""
    return f", the oldest for {timedelta(seconds=int(max(p['Maximum'] for p in points)))}"


def guardduty(checks, target, client):
    """GuardDuty is on and sends updates of findings soon; who administers it; the threat lists."""
    region = f"--region {target.region}"
    ids = client.list_detectors()["DetectorIds"]
    if not ids:
        create = f"aws guardduty create-detector {region} --enable"
        mend = f"{create} --finding-publishing-frequency {FREQUENCY}"
        checks.say("guardduty", False, "off: no findings", mend + there(target))
        return
    named = f"{region} --detector-id {ids[0]}"
    shown = client.get_detector(DetectorId=ids[0])
    update = f"aws guardduty update-detector {named}"
    on = shown["Status"] == "ENABLED"
    found = "on" if on else "suspended: no findings"
    checks.say("guardduty", on, found, f"{update} --enable{there(target)}")
    of = client.get_administrator_account(DetectorId=ids[0]).get("Administrator") or {}
    administrator = of.get("AccountId")
    checks.say("administrator", True, administrator or "none, or this account itself")
    often = shown.get("FindingPublishingFrequency", "SIX_HOURS")
    # An isolation that failed, or was undone, is tried again with the next update of its finding.
    # A member's frequency is its administrator's to set.
    # https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_findings_eventbridge.html
    mend = f"{update} --finding-publishing-frequency {FREQUENCY}{there(target)}"
    if administrator:
        mend = f"the same command for the detector of the administrator account {administrator}"
    checks.say(
        "frequency",
        often == FREQUENCY,
        often if often == FREQUENCY else f"{often}: a finding that goes on is sent again so late",
        mend,
    )
    if administrator:
        checks.say(
            "threat lists", True, f"those of {administrator}, which cannot be seen from here"
        )
    else:
        threat_lists(checks, named, client, ids[0])


def threat_lists(checks, named, client, detector):
    """Those that the finding types ending in .Custom come from."""
    active, others = [], []
    for kind in ("intel", "entity"):
        listed = getattr(client, f"list_threat_{kind}_sets")(DetectorId=detector)
        for one in listed[f"Threat{kind.title()}SetIds"]:
            key = f"Threat{kind.title()}SetId"
            show = getattr(client, f"get_threat_{kind}_set")
            shown = show(DetectorId=detector, **{key: one})
            if shown["Status"] == "ACTIVE":
                active.append(shown["Name"])
            else:
                command = f"aws guardduty update-threat-{kind}-set {named} --activate"
                others.append((shown, f"{command} --threat-{kind}-set-id {one}"))
    for shown, command in others:
        checks.say("threat lists", False, f"{shown['Name']} is {shown['Status']}", command)
    if not others:
        none = "none: the finding types that end in .Custom never come"
        checks.say("threat lists", True, ", ".join(active) or none)


def trail(checks, target, session):
    """A trail that logs management events here, or no guard of CloudTrail mode ever runs.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-service-event-cloudtrail.html
    """
    client = session.client("cloudtrail")
    silent = []
    for one in client.describe_trails(includeShadowTrails=True)["trailList"]:
        name, home = one["TrailARN"], one.get("HomeRegion", target.region)
        if not client.get_trail_status(Name=name)["IsLogging"]:
            silent.append(f"{one['Name']} does not log")
            continue
        there = client if home == target.region else session.client("cloudtrail", region_name=home)
        if not management(there.get_event_selectors(TrailName=name)):
            silent.append(f"{one['Name']} has no management events that write")
            continue
        checks.say("trail", True, name)
        return
    found = "; ".join(silent) or "there is none"
    checks.say(
        "trail",
        False,
        f"{found}: the guards never run",
        "a CloudTrail trail with management events for this region (docs/deploy.md, the guards)",
    )


def management(selectors):
    """Whether a trail has the management events that write; without selectors it has all.

    https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_GetEventSelectors.html
    """
    basic = selectors.get("EventSelectors") or []
    advanced = selectors.get("AdvancedEventSelectors") or []
    if not basic and not advanced:
        return True
    return any(
        one.get("IncludeManagementEvents") and one.get("ReadWriteType", "All") != "ReadOnly"
        for one in basic
    ) or any(
        field["Field"] == "eventCategory" and "Management" in field.get("Equals", ())
        for one in advanced
        for field in one["FieldSelectors"]
        if not any(
            of["Field"] == "readOnly" and of.get("Equals") == ["true"]
            for of in one["FieldSelectors"]
        )
    )


def mail(checks, target, session, queue_arn):
    """The central mail queue, the function that empties it, and its dead-letter queue."""
    queue = queue_arn.rpartition(":")[2]
    client = session.client("sqs")
    with checks.reading("mail queue"):
        found = unless(QUEUE_ABSENT, client.get_queue_url, QueueName=queue)
        if found is None:
            checks.say("mail queue", False, f"{queue_arn} is not there: no mail", "make infra")
            return
        shown = client.get_queue_attributes(
            QueueUrl=found["QueueUrl"], AttributeNames=["ApproximateNumberOfMessages"]
        )["Attributes"]
        waiting = shown["ApproximateNumberOfMessages"]
        checks.say("mail queue", True, f"{queue_arn}, {waiting} waiting")
    with checks.reading("mailer"):
        feeding(checks, session.client("lambda"), queue_arn)
    with checks.reading("dead letters"):
        dead_letters(checks, target, session, f"{queue}-dlq", "make mail-dlq")


def feeding(checks, client, queue_arn):
    """The mailer's function is fed by the queue."""
    answer = client.list_event_source_mappings(EventSourceArn=queue_arn)
    fed = {one["FunctionArn"].split(":")[6]: one["State"] for one in answer["EventSourceMappings"]}
    state = fed.get(MAILER)
    function = unless(
        ("ResourceNotFoundException",), client.get_function_configuration, FunctionName=MAILER
    )
    if function is None:
        found = f"{MAILER} is not there: no mail, unless a mailer runs as a process"
    elif state is None:
        found = f"{queue_arn} does not feed {MAILER}"
    else:
        found = f"{MAILER}, its queue {state}"
    checks.say("mailer", function and state == "Enabled", found, "make deploy-mailer")
