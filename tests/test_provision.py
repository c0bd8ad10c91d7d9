"""What a deploy sets besides Custodian, so that no event is lost on its way to a function."""

import pytest

from simulation import deploy

ACCOUNT, SMALL, REGION = "111122223333", "444455556666", "us-west-2"
POLICY, FUNCTION = "policies/ec2-isolate.yml", "custodian-ec2-isolate"


def target(cloud, account=ACCOUNT):
    events = cloud.client("events", account, REGION)
    (found,) = events.list_targets_by_rule(Rule=FUNCTION)["Targets"]
    return found


def concurrency(cloud, account=ACCOUNT):
    function = cloud.client("lambda", account, REGION).get_function(FunctionName=FUNCTION)
    return function.get("Concurrency", {}).get("ReservedConcurrentExecutions")


def test_what_eventbridge_cannot_deliver_is_kept_and_the_next_deploy_keeps_that(pack):
    cloud = pack.cloud
    shipped = target(cloud)
    assert shipped["DeadLetterConfig"] == {
        "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:guardduty-response-dlq"
    }
    assert shipped["RetryPolicy"] == {
        "MaximumRetryAttempts": 185,
        "MaximumEventAgeInSeconds": 86400,
    }
    assert concurrency(cloud) == 20

    cloud.call_log.clear()
    deploy.deploy(cloud, [POLICY], ACCOUNT, REGION)
    writes = [
        call.operation
        for call in cloud.calls
        if call.error_code is None
        and not call.operation.startswith(("Get", "List", "Describe", "Assume"))
    ]
    # Custodian's own, which Lambda refuses when it is there already, and moto does not
    assert writes == ["AddPermission"]

    # as Custodian left it, with less than Custodian's, and silenced
    events = cloud.client("events", ACCOUNT, REGION)
    changed = {"Id": shipped["Id"], "Arn": shipped["Arn"]}
    events.put_targets(
        Rule=FUNCTION, Targets=[changed | {"RetryPolicy": {"MaximumRetryAttempts": 0}}]
    )
    functions = cloud.client("lambda", ACCOUNT, REGION)
    functions.put_function_concurrency(FunctionName=FUNCTION, ReservedConcurrentExecutions=0)
    deploy.deploy(cloud, [POLICY], ACCOUNT, REGION)
    assert target(cloud) == shipped
    assert concurrency(cloud) == 20


def test_a_quota_that_is_too_small_costs_the_reservation_alone(cloud, monkeypatch):
    mailer = deploy.mailer_stack(cloud, SMALL, REGION)
    deploy.account_stack(cloud, SMALL, REGION, mailer["MailQueueArn"])
    monkeypatch.setenv("MOTO_LAMBDA_CONCURRENCY_QUOTA", "10")
    for _ in ("new", "deployed"):
        with pytest.raises(RuntimeError) as failed:
            deploy.deploy(cloud, [POLICY], SMALL, REGION)
        said = str(failed.value)
        assert "custodian-ec2-isolate is deployed with its rule" in said
        assert "below its minimum value of [100]" in said and "L-B99A9384" in said
        assert target(cloud, SMALL)["DeadLetterConfig"]["Arn"].endswith("guardduty-response-dlq")
        assert concurrency(cloud, SMALL) is None

    monkeypatch.setenv("MOTO_LAMBDA_CONCURRENCY_QUOTA", "120")
    deploy.deploy(cloud, [POLICY], SMALL, REGION)
    assert concurrency(cloud, SMALL) == 20
