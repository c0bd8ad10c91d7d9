"""isolate-instance, where EC2 shows an instance as it is seldom seen."""

from stages import Isolate


def shown(one, **fields):
    """The stage, with these fields of the instance as Custodian hands it to the action."""
    resource = one.stage.resource() | fields
    one.stage.resource = lambda: resource
    return one


def test_a_running_instance_without_interfaces_is_asked_for_them(play):
    one = shown(play(Isolate), NetworkInterfaces=[])

    report = one.step()

    assert report["isolated"] and len(report["interfaces"]) == 2, report


def test_a_running_instance_that_has_none_at_all_is_a_failure(play):
    one = shown(play(Isolate), NetworkInterfaces=[])
    one.stage.ec2.terminate_instances(InstanceIds=[one.stage.instance])

    report = one.step()

    assert report["status"] == "failed" and not report.get("isolated")
    assert "running" in report["error"] and "no network interface" in report["error"]


def test_an_instance_that_a_service_operates_is_named_with_what_to_do(play):
    operator = {"Managed": True, "Principal": "eks.amazonaws.com"}
    one = shown(play(Isolate), Operator=operator)

    def refuse(_, call):
        return "OperationNotPermitted" if call.endswith("ModifyNetworkInterfaceAttribute") else None

    report = one.step(fault=refuse)

    assert report["status"] == "failed"
    assert "operated by eks.amazonaws.com" in report["error"] and "NodeClaim" in report["error"]


def test_the_group_of_another_account_in_a_shared_vpc_is_not_used(play):
    """It can be neither emptied nor tagged from here; the owner's groups may have the same name."""
    one = play(Isolate)
    resource = one.stage.resource()
    for interface in resource["NetworkInterfaces"]:
        interface["OwnerId"] = "999999999999"
    one.stage.resource = lambda: resource

    one.step()

    assert "ec2:CreateSecurityGroup" in one.calls


def test_what_ec2_answers_about_another_interface_is_not_changed(play):
    """The neighbour's interface in the answer about this instance, as a broken filter would."""
    one = play(Isolate)
    ec2 = one.stage.ec2
    (stranger,) = one.stage.interfaces(one.stage.neighbour)
    resource = one.stage.resource()
    neighbour = ec2.describe_instances(InstanceIds=[one.stage.neighbour])
    (foreign,) = neighbour["Reservations"][0]["Instances"][0]["NetworkInterfaces"]
    one.step()
    resource = one.stage.resource()
    resource["NetworkInterfaces"].append(foreign)
    one.stage.resource = lambda: resource

    report = one.step()

    assert foreign["NetworkInterfaceId"] not in [i["id"] for i in report["interfaces"]]
    assert one.stage.interfaces(one.stage.neighbour) == [stranger]


def refusing(operation, answered=0):
    """Refuses the calls of an operation but the first ones."""
    seen = []

    def fault(_, call):
        if not call.endswith(f":{operation}"):
            return None
        seen.append(call)
        return "UnauthorizedOperation" if len(seen) > answered else None

    return fault


def test_what_cannot_be_read_back_is_not_called_isolated(play):
    """It was isolated before, and DescribeInstances shows it; nobody has read it back now."""
    one = play(Isolate)
    one.step()

    report = one.step(fault=refusing("DescribeNetworkInterfaces"))

    assert report["status"] == "failed" and not report["isolated"]
    assert [row["status"] for row in report["interfaces"]] == ["failed", "failed"]
    assert report["detail"].startswith("Nothing could be changed. 0 of 2 interfaces")


def test_a_seal_that_cannot_be_read_is_not_overwritten(play):
    """Else what somebody wrote into the tags would be sealed, and the rest of the seal lost."""
    one = play(Isolate)
    one.step()
    ec2, key = one.stage.ec2, f"forensic:record:{one.stage.instance}"
    shown = ec2.describe_security_groups(Filters=[{"Name": "tag-key", "Values": [key]}])
    (group,) = [g["GroupId"] for g in shown["SecurityGroups"]]
    sealed = one.stage.tags(group)[key]
    interface = one.stage.resource()["NetworkInterfaces"][0]["NetworkInterfaceId"]
    poison = {"Key": f"forensic:original-groups:{interface}", "Value": "sg-0123456789abcdef0"}
    ec2.create_tags(Resources=[interface], Tags=[poison])

    report = one.step(fault=refusing("DescribeSecurityGroups", answered=1))

    assert report["status"] == "failed" and "could not be sealed" in report["error"]
    assert one.stage.tags(group)[key] == sealed
