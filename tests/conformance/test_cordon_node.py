"""What cordon-node and uncordon-node alone do: which cluster is asked, and what it answers."""

import json
import logging

import pytest
import stages
from moto.ecs.models import ecs_backends
from moto.eks.models import eks_backends
from stages import EcsNode
from wire import Wire

from custom_actions import deadline, kubernetes, timeline
from custom_actions.steps.cordon_node import clusters_named
from simulation import ecs
from simulation.kubernetes import Cluster, certified

WORD = "forensic:node"


def node_of(one):
    """The one node of EKS, its API and its name."""
    (name,) = [n for n in one.stage.api.nodes if n.endswith("-1")]
    return one.stage.api, name


def answering(one, fault):
    """The outcome of the step while the API server answers so."""
    one.stage.api.fault = fault
    try:
        return one.step()
    finally:
        one.stage.api.fault = None


def shown(one):
    """What moto's DescribeCluster shows of the stage's EKS cluster."""
    return eks_backends[stages.ACCOUNT][stages.REGION].clusters[one.stage.api.name]


def test_an_instance_that_is_no_node_costs_two_calls_and_one_for_each_ecs_cluster(play):
    one = play(EcsNode)
    one.stage.instance = one.stage.launch()

    report = one.step()

    assert report["status"] == "unchanged" and "no container instance" in report["detail"]
    assert sorted(one.calls) == [
        "ec2:DescribeInstances",
        "ecs:ListClusters",
        *["ecs:ListContainerInstances"] * 2,
    ]


def test_what_was_so_before_the_isolation_stays_so_after_the_release(play):
    one = play(EcsNode, eks=True)
    api, name = node_of(one)
    api.nodes[name]["spec"]["unschedulable"] = True
    ecs.put_into("DRAINING", "batch", region=stages.REGION, account_id=stages.ACCOUNT)

    report, back = one.step(), one.revert()

    assert report["status"] == "unchanged" and back["status"] == "unchanged", (report, back)
    assert one.writes == [] and not api.is_schedulable(name)
    assert one.state()["containers"] == ["DRAINING", "DRAINING"]


def test_every_page_of_clusters_and_of_nodes_is_read(play, monkeypatch):
    monkeypatch.setattr(ecs, "PAGE", 1)
    monkeypatch.setattr(kubernetes, "PAGE", 1)
    one = play(EcsNode, eks=True)  # the node is called otherwise than its instance, and the second

    one.step()

    assert one.state()["containers"] == ["DRAINING", "ACTIVE"]
    assert one.state()["nodes"] == {"node-0": True, "node-1": False}


def test_a_node_called_as_its_instance_is_asked_for_alone(play, caplog):
    """Which takes no right to list; and nobody is told the token."""
    for name in (None, "urllib3"):
        caplog.set_level(logging.DEBUG, logger=name)
    one = play(EcsNode, eks=True)
    api, dns = one.stage.api, one.stage.resource()["PrivateDnsName"]
    api.nodes = {}
    api.add_node(dns, one.stage.instance)
    api.entries["testing"] = {"get", "patch"}

    timeline.begin()
    report = one.step()

    assert report["nodes"] == [{"cluster": api.name, "node": dns, "guess": False, "cordoned": True}]
    methods = [(method, path.rpartition("/")[2]) for method, path in api.requests]
    assert methods == [("GET", dns), ("PATCH", dns), ("GET", dns)]
    kept = [c for c in timeline.of(one.stage.instance) if c["service"] == "kubernetes"]
    assert [(c["step"], c["operation"], c["result"]) for c in kept] == [
        ("cordon-node", method, "ok") for method, _ in methods
    ]
    assert {c["parameters"]["path"] for c in kept} == {f"/api/v1/nodes/{dns}"}
    assert "k8s-aws-v1" not in json.dumps(kept)
    assert f"/api/v1/nodes/{dns}" in caplog.text  # urllib3 logs there
    assert "k8s-aws-v1" not in caplog.text + json.dumps(report)


def test_a_node_that_is_another_instance_is_left_alone_whatever_it_is_called(play):
    one = play(EcsNode, eks=True)
    api, dns = one.stage.api, one.stage.resource()["PrivateDnsName"]
    api.nodes = {}
    api.add_node(dns, one.stage.neighbour)

    report = one.step()

    assert api.is_schedulable(dns) and report["nodes"] == []
    assert "no node with its id" in report["detail"] and report["error"] is None


def test_where_the_cluster_refuses_for_good_it_is_told_and_fails_nothing(play):
    """No access entry, no right, a token for another cluster; then a private endpoint, and none."""
    one = play(EcsNode, eks=True)
    api = one.stage.api
    told = []
    for spoil in (
        lambda: api.entries.pop("testing"),
        lambda: api.entries.update(testing={"get", "list"}),
        lambda: setattr(api, "name", "another"),
        lambda: shown(one).resources_vpc_config.update(endpointPublicAccess=False),
    ):
        known = (dict(api.entries), api.name)
        cluster = api.name
        spoil()
        asked = len(api.requests)
        report = one.step()
        api.entries, api.name = known
        assert report["error"] is None and f"eks/{cluster}:excused" in report["facts"], report
        told.append((report["detail"].partition("EKS cluster ")[2], len(api.requests) - asked))
        (row,) = report["nodes"]
        assert row["cluster"] == cluster and not row["cordoned"]
    (no_entry, _), (no_right, _), (wrong, _), (private, asked) = told
    assert "give it an access entry" in no_entry and "give it an access entry" in wrong
    assert "may not get, list and patch" in no_right
    assert "its own VPC alone" in private and asked == 0
    assert all(one.stage.api.is_schedulable(name) for name in api.nodes)

    shown(one).resources_vpc_config.update(endpointPublicAccess=True)
    one.stage.serving.__exit__(None, None, None)
    one.stage.api, api = None, one.stage.api
    report = one.step()
    assert "does not answer from here" in report["detail"] and report["error"] is None
    assert report["nodes"][0]["node"] == one.stage.resource()["PrivateDnsName"]
    assert report["nodes"][0]["guess"]


@pytest.mark.parametrize(
    "fault, error",
    [
        ((500, {}), "status 500"),
        ((302, {}), "status 302"),
        ((200, "text"), "something else than an object"),
        ((200, {"metadata": {}, "items": [{}]}), "not as documented"),
    ],
)
def test_what_may_pass_is_a_failure_with_the_cluster_and_the_rest_is_done(play, fault, error):
    one = play(EcsNode, eks=True)

    report = answering(one, lambda *_: fault)

    assert report["status"] == "failed" and error in report["error"], report
    assert f"EKS cluster {one.stage.api.name}" in report["error"]
    assert report["nodes"][0]["guess"] and one.state()["containers"][0] == "DRAINING"
    assert one.step()["status"] == "done" and not node_of(one)[0].is_schedulable("node-1")


def test_a_patch_that_is_answered_and_not_done_is_not_called_cordoned(play):
    one = play(EcsNode, eks=True)
    lie = lambda method, _: Cluster.WITHOUT_DOING if method == "PATCH" else None  # noqa: E731

    report = answering(one, lie)

    assert report["status"] == "failed" and "still shows it as schedulable" in report["error"]
    assert not report["nodes"][0]["cordoned"]


def test_only_the_clusters_own_authority_is_believed(play):
    one = play(EcsNode, eks=True)
    own = shown(one).certificate_authority
    stranger, _ = certified()
    shown(one).certificate_authority = {"data": kubernetes.base64.b64encode(stranger).decode()}

    report = one.step()

    assert report["status"] == "failed" and "not signed by its certificate" in report["error"]
    assert one.stage.api.requests == []  # nobody has seen the token
    shown(one).certificate_authority = {"data": "none"}
    assert "no certificate authority" in one.step()["error"]
    shown(one).certificate_authority = own
    assert one.step()["status"] == "done"


def test_a_tag_chooses_among_the_clusters_of_the_account_and_no_more():
    kubernetes_io = {"kubernetes.io/cluster/b": "owned", "kubernetes.io/cluster/a": "shared"}
    of_finding = {"detail": {"resource": {"eksClusterDetails": {"name": "f"}}}}
    many = {f"kubernetes.io/cluster/{n}": "owned" for n in range(50)}
    spoilt = {"eks:cluster-name": "x;id", "kubernetes.io/cluster/": "", "eks:eks-cluster-name": "-"}

    assert clusters_named({"aws:eks:cluster-name": "own"} | many, of_finding) == ["own"]
    assert clusters_named({"eks:cluster-name": "b"} | kubernetes_io, None) == ["b", "a"]
    assert clusters_named(kubernetes_io, of_finding) == ["f", "a", "b"]
    assert len(clusters_named(many, None)) == 3
    for odd in (None, [], {"eksClusterDetails": ["a"]}, {"eksClusterDetails": {"name": ["a"]}}):
        assert clusters_named(spoilt, {"detail": {"resource": odd}}) == []


def test_a_cluster_that_is_not_there_is_told(play):
    one = play(EcsNode)
    tag = {"Key": "eks:cluster-name", "Value": "forged"}
    one.stage.ec2.create_tags(Resources=[one.stage.instance], Tags=[tag])

    report = one.step()

    assert report["error"] is None and "There is no EKS cluster forged." in report["detail"]


def test_a_refusal_of_ecs_is_named_and_the_node_of_eks_is_cordoned(play):
    one = play(EcsNode, eks=True)
    denied = "AccessDeniedException"

    report = one.step(fault=lambda _, call: denied if call == "ecs:ListClusters" else None)

    assert report["status"] == "failed" and f"the ECS clusters: {denied}" in report["error"]
    assert one.state()["nodes"]["node-1"] is False
    assert one.step()["status"] == "done"


def test_what_is_not_yet_active_is_drained_by_the_next_try(play):
    one = play(EcsNode)
    at = {"region": stages.REGION, "account_id": stages.ACCOUNT}
    ecs.put_into("REGISTERING", "batch", **at)

    report = one.step()

    assert report["status"] == "failed" and "REGISTERING" in report["error"]
    ecs.put_into("ACTIVE", "batch", **at)
    assert one.step()["status"] == "done"
    ecs.put_into("ACTIVE", "batch", **at)


def test_what_ecs_does_not_change_is_a_failure_with_its_reason(play):
    """It answers with success, and says in the answer which it did not change."""
    one = play(EcsNode)
    update = "UpdateContainerInstancesState"
    refused = {"failures": [{"arn": "x", "reason": "MISSING"}]}
    one.wire.edit = lambda operation, answer: operation == update and answer.update(refused)
    try:
        report = one.step(fault=lambda _, call: Wire.SWALLOW if call.endswith(update) else None)
    finally:
        one.wire.edit = None

    assert report["status"] == "failed" and "ECS refuses: MISSING" in report["error"]


def test_a_node_that_cannot_be_uncordoned_is_a_failure_of_the_release(play):
    one = play(EcsNode, eks=True)
    one.step()
    entries = one.stage.api.entries["testing"]
    for verbs in ({"get", "list"}, set()):
        one.stage.api.entries["testing"] = verbs

        report = one.revert()

        assert report["status"] == "failed" and "kubectl uncordon" in report["error"]
        assert one.state()["recorded"] == ["ecs", "eks"]
    one.stage.api.entries["testing"] = entries
    assert one.revert()["status"] == "done" and one.state() == one.began


def test_what_is_gone_or_malformed_is_named_and_stops_no_release(play):
    one = play(EcsNode, eks=True)
    one.step()
    api, name = node_of(one)
    del api.nodes[name]
    own = ecs_backends[stages.ACCOUNT][stages.REGION].container_instances["batch"]
    for key in [k for k, c in own.items() if c.ec2_instance_id == one.stage.instance]:
        del own[key]
    words = one.stage.tags(one.stage.instance)[WORD]
    tag = {"Key": WORD, "Value": f"{words} eks/../../x ecs/1"}
    one.stage.ec2.create_tags(Resources=[one.stage.instance], Tags=[tag])

    report = one.revert()

    assert report["status"] == "failed" and report["error"].count("no longer exists") == 2
    assert report["error"].count("left out") == 2
    assert WORD not in one.stage.tags(one.stage.instance)


def test_no_request_is_sent_when_the_functions_time_is_over(play, monkeypatch):
    one = play(EcsNode, eks=True)
    eks = one.stage.client("eks").describe_cluster(name=one.stage.api.name)["cluster"]
    monkeypatch.setattr(deadline, "_remaining", lambda: 1000)

    with deadline.enforced(), pytest.raises(deadline.OutOfTime):
        kubernetes.Cluster(eks, one.wire.factory).get("node-1")

    assert one.stage.api.requests == []


def test_a_container_instance_of_another_instance_is_left_alone_whatever_ecs_lists(play):
    one = play(EcsNode)
    every = one.stage.ecs.list_container_instances(cluster="batch")["containerInstanceArns"]

    def unfiltered(operation, answer):
        if operation == "ListContainerInstances" and answer["containerInstanceArns"]:
            answer["containerInstanceArns"] = every

    one.wire.edit = unfiltered
    try:
        one.step()
    finally:
        one.wire.edit = None

    assert one.state()["containers"] == ["DRAINING", "ACTIVE"]
