"""Have nothing more scheduled on an isolated instance that is a node of ECS or EKS; and the way
back.

The record, on the instance: `forensic:node` holds a word for each thing that was changed, and for
nothing that was so before: `ecs/<container instance id>` for one that was ACTIVE, `eks/<cluster>`
where the node was schedulable. Whoever may tag the instance can write there too: what is put back
is looked for again by the instance's id, at ECS and in the cluster.
"""

import re
from functools import partial
from typing import NamedTuple

from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.utils import type_schema

from custom_actions import kubernetes
from custom_actions.finding import mapping
from custom_actions.instance import OfInstance
from custom_actions.record import NODE
from custom_actions.registry import register
from custom_actions.response import Change, Impossible, NothingToDo, Revert, Step, error_code

# https://docs.aws.amazon.com/eks/latest/APIReference/API_CreateCluster.html
CLUSTER = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}")
ECS_WORD = re.compile(r"ecs/([0-9a-f-]{32,36})")

OF_EKS = "aws:eks:cluster-name"  # which EKS writes and nobody else can
OF_ANYBODY = ("eks:cluster-name", "eks:eks-cluster-name")
OF_KUBERNETES = "kubernetes.io/cluster/"
MOST = 3  # clusters that are asked on the word of a tag that anybody may write

DESCRIBED_AT_ONCE = 100

# A container instance in one of these is on its way in; in the others but ACTIVE on its way out.
COMING = ("REGISTERING",)


class Container(NamedTuple):
    """The instance as a container instance of one ECS cluster."""

    arn: str
    cluster: str  # its ARN
    status: str
    tasks: int
    connected: bool

    @property
    def id(self):
        return self.arn.rpartition("/")[2]

    @property
    def name(self):
        return f"the ECS container instance {self.id} of cluster {self.cluster.rpartition('/')[2]}"


class Node(NamedTuple):
    """The instance as a node of one EKS cluster, or why that is not known."""

    cluster: str
    name: str | None = None
    unschedulable: bool = False
    why: str | None = None
    api: kubernetes.Cluster | None = None

    @property
    def told(self):
        return f"the node of EKS cluster {self.cluster}"


class View(NamedTuple):
    containers: list
    nodes: list


class OfNode(OfInstance):
    """What the step and its revert share: the instance, as ECS and Kubernetes show it."""

    def look_at(self, run, instance):
        if run.view is None:
            run.memory |= {"clusters": self.eks_clusters(run), "apis": {}, "closed": {}, "told": []}
        run.memory["guess"] = instance.get("PrivateDnsName") or None
        return View(self.containers(run), self.nodes(run, instance))

    def eks_clusters(self, run):
        """The names of the clusters to ask."""
        raise NotImplementedError

    # ECS

    def containers(self, run):
        """The container instances that the instance is; ECS is searched once."""
        memory, ecs = run.memory, self.client("ecs")
        if "found" not in memory:
            arns = run.read("the ECS clusters", self.ecs_clusters, default=())
            with self.executor_factory(max_workers=4) as workers:
                found = workers.map(partial(self.registered, run), arns)
                memory["found"] = {arn: ids for arn, ids in zip(arns, found, strict=True) if ids}
        shown = []
        for arn, ids in memory["found"].items():
            answer = run.read(
                f"ECS cluster {arn.rpartition('/')[2]}",
                ecs.describe_container_instances,
                cluster=arn,
                containerInstances=ids,
                default={"containerInstances": []},
            )
            shown += [
                Container(
                    c["containerInstanceArn"],
                    arn,
                    c["status"],
                    c.get("runningTasksCount", 0),
                    c.get("agentConnected", True),
                )
                for c in answer["containerInstances"]
                # by what is shown, not by what was asked for
                if c["ec2InstanceId"] == self.resource_id(run)
            ]
        return shown

    def ecs_clusters(self):
        pages = self.client("ecs").get_paginator("list_clusters").paginate()
        return [arn for page in pages for arn in page["clusterArns"]]

    def registered(self, run, cluster):
        """The ARNs of an ECS cluster's container instances that say that they are the instance."""
        told = f"ECS cluster {cluster.rpartition('/')[2]}"
        return run.read(told, self.container_instances, cluster, self.resource_id(run), default=())

    def container_instances(self, cluster, instance_id):
        pages = self.client("ecs").get_paginator("list_container_instances")
        try:
            found = [
                arn
                for page in pages.paginate(
                    cluster=cluster, filter=f"ec2InstanceId == {instance_id}"
                )
                for arn in page["containerInstanceArns"]
            ]
        except ClientError as error:
            if error_code(error) != "ClusterNotFoundException":  # deleted a moment ago
                raise
            return []
        return found[:DESCRIBED_AT_ONCE]

    def set_status(self, container, status):
        answer = self.client("ecs").update_container_instances_state(
            cluster=container.cluster, containerInstances=[container.arn], status=status
        )
        if failures := answer.get("failures"):
            raise PolicyExecutionError(f"ECS refuses: {failures[0].get('reason')}")

    # EKS

    def nodes(self, run, instance):
        """The instance in each of the clusters; one that does not have it is told of once."""
        asked = [
            run.read(f"EKS cluster {name}", self.node, run, name, instance)
            for name in [*run.memory["clusters"]]
        ]
        return [node for node in asked if node is not None]

    def node(self, run, name, instance):
        apis, closed = run.memory["apis"], run.memory["closed"]
        if name in closed:
            return closed[name]
        try:
            if name not in apis:
                apis[name] = self.api(name)
            found = apis[name].node(instance)
        except kubernetes.NotFound:
            return self.is_none_of(run, name, f"There is no EKS cluster {name}.")
        except Impossible as reason:
            closed[name] = Node(name, why=str(reason))  # nobody waits for it a second time
            return closed[name]
        if found is None:
            return self.is_none_of(run, name, f"EKS cluster {name} has no node with its id.")
        called = found["metadata"]["name"]
        if not kubernetes.NAME.fullmatch(called):
            raise PolicyExecutionError("the name of the node is none")
        unschedulable = found["spec"].get("unschedulable") is True
        return Node(name, called, unschedulable, api=apis[name])

    def api(self, name):
        try:
            shown = self.client("eks").describe_cluster(name=name)["cluster"]
        except ClientError as error:
            if error_code(error) != "ResourceNotFoundException":
                raise
            raise kubernetes.NotFound("EKS does not have it") from error
        return kubernetes.Cluster(shown, self.manager.session_factory)

    def is_none_of(self, run, name, why):
        run.memory["clusters"].remove(name)
        run.memory["told"].append(why)

    def rows(self, run):
        """What the mail shows of each node; the name of one that could not be asked is a guess."""
        known = {node.cluster: node for node in run.view.nodes}
        nodes = [known.get(name, Node(name)) for name in run.memory["clusters"]]
        return [
            {
                "cluster": node.cluster,
                "node": node.name or run.memory["guess"],
                "guess": node.name is None,
                "cordoned": node.unschedulable,
            }
            for node in nodes
        ]


class CordonNode(OfNode, Step):
    """Has ECS and Kubernetes schedule nothing more on the instance, and move what runs there.

    A node that is isolated reaches neither its control plane nor anybody else, and what runs on it
    answers nobody. ECS is asked for the container instance with this instance's id, in every
    cluster of the region, and that is set to DRAINING. The EKS clusters that the instance's tags,
    or the finding, name are asked for the node with this instance's id, and that is cordoned
    (`unschedulable`), by a signed request to the cluster's API. Both are read back. What was so
    before is left so by `uncordon-node` too.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-isolate-and-cordon-node
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response-ec2-isolate
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - isolate-instance
              - cordon-node
              - fail-unless-complete

    No arguments. The outcome has `nodes`, one for each EKS cluster that has the node or would not
    tell: `cluster`, `node`, `guess` (whether that is the private DNS name, which it usually has),
    and `cordoned`; the mail makes of it the commands `kubectl cordon` and `kubectl drain`. It is
    `failed`, with the cluster, when ECS or EKS refuses a call or an API server answers with an
    error; the rest is done all the same. It is `skipped` when all there is is a node that no
    further try could cordon: the role has no access entry (401) or may not patch nodes (403), the
    API has a private endpoint or admits other addresses (no answer within 2 s, or 5 s for the
    answer), or EKS does not run that cluster. An instance that is no node is `unchanged`.

    What then happens in ECS: tasks of a service that are PENDING stop at once, RUNNING ones are
    stopped and replaced elsewhere as far as the service's minimumHealthyPercent and maximumPercent
    and the capacity allow. Tasks of no service, and those are all jobs of AWS Batch, are not
    touched: they go on until they end or somebody stops them (`aws ecs stop-task`, `aws batch
    terminate-job`). To stop a task takes the agent on the instance. It is cut off like everything
    else, though a connection that was open when the groups were swapped may live on for a while
    (see `isolate-instance`): the state is kept by ECS, the replacements are started, and the old
    task may run on, alone. Whether ECS takes DRAINING for an instance whose agent is disconnected
    is not documented; the one documented condition is the status ACTIVE, which such an instance
    keeps.

    What then happens in Kubernetes: a cordoned node gets no new pods, and keeps those it has. When
    its kubelet has not been heard for some 50 seconds the node is NotReady, and pods are evicted
    300 seconds later unless they tolerate it otherwise, as those of a DaemonSet do. They are
    replaced elsewhere, those of a StatefulSet only when the old one is gone or deleted by force.
    `kubectl drain` does it at once.

    Price: a container that is stopped takes its memory along. Its files stay on the volume until
    the agent cleans up (3 hours by default in ECS), and so in the snapshots of `preserve-evidence`.

    Limits: ECS is asked cluster by cluster, four at a time: one call for the list, one for each
    cluster; nothing on an instance says honestly that it is in none. EKS is asked about one cluster
    when EKS itself has tagged the instance (`aws:eks:cluster-name`: managed node groups), else
    about three at most, from `eks:cluster-name`, `kubernetes.io/cluster/...` and the finding; a
    self-managed node without these tags is not found, and a node that claims another's providerID
    can be mistaken for it. What ECS answers for one of its Managed Instances, or a cluster for a
    node of EKS Auto Mode, was not tried; a refusal is reported. EKS node repair, Karpenter and
    Batch may replace what is not ready: that they cannot terminate it is up to `preserve-evidence`.
    Hybrid nodes and external instances are no EC2 instances.

    IAM: ecs:UpdateContainerInstancesState and DescribeContainerInstances on container instances,
    ecs:ListContainerInstances and eks:DescribeCluster on clusters, ecs:ListClusters and
    ec2:DescribeInstances on "*", ec2:CreateTags on instances. In each EKS cluster an access entry
    whose group may get, list and patch nodes: docs/examples/eks-access.yml.

    Sources:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/container-instance-draining.html
    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateContainerInstancesState.html
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cluster-query-language.html
    https://docs.aws.amazon.com/eks/latest/userguide/access-entries.html
    https://kubernetes.io/docs/concepts/architecture/nodes/
    https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
    """

    schema = type_schema("cordon-node")
    permissions = (
        "ec2:DescribeInstances",
        "ec2:CreateTags",
        "ecs:ListClusters",
        "ecs:ListContainerInstances",
        "ecs:DescribeContainerInstances",
        "ecs:UpdateContainerInstancesState",
        "eks:DescribeCluster",
    )
    nothing = {"nodes": []}

    def eks_clusters(self, run):
        return clusters_named(run.tags, run.event)

    def look_at(self, run, instance):
        view = super().look_at(run, instance)
        if not (view.containers or view.nodes or run.unread):
            raise NothingToDo(
                " ".join(
                    ["ECS has no container instance of it, no EKS cluster has it as a node."]
                    + run.memory["told"]
                )
            )
        return view

    def changes(self, run):
        for container in run.view.containers:
            yield Change(
                container.name,
                holds=container.status not in ("ACTIVE", *COMING),
                make=partial(self.set_status, container, "DRAINING"),
                key=NODE,
                words=(f"ecs/{container.id}",) if container.status == "ACTIVE" else (),
                error=PolicyExecutionError(
                    f"it is {container.status}, and only an ACTIVE one can be drained: the next "
                    "try does it"
                )
                if container.status in COMING
                else None,
                fact=f"ecs/{container.id}",
                end="draining",
                unseen=PolicyExecutionError("ECS still shows it as ACTIVE"),
            )
        for node in run.view.nodes:
            yield Change(
                node.told,
                holds=node.unschedulable,
                make=node.api and partial(node.api.cordon, node.name, unschedulable=True),
                key=NODE,
                words=() if node.unschedulable else (f"eks/{node.cluster}",),
                excused=node.why,
                fact=f"eks/{node.cluster}",
                end="cordoned",
                unseen=PolicyExecutionError("the cluster still shows it as schedulable"),
            )

    def plan(self, run):
        draining = [c.name for c in run.view.containers if c.status == "ACTIVE"]
        cordoned = [
            f"{n.told} ({n.name})" for n in run.view.nodes if not (n.unschedulable or n.why)
        ]
        return (
            f"Would set {', '.join(draining) or 'no ECS container instance'} to DRAINING and "
            f"cordon {', '.join(cordoned) or 'no node of EKS'}."
        )

    def tell(self, run):
        told = [
            f"{c.name} is {c.status}, with {c.tasks} running tasks"
            + ("." if c.connected else ", and its agent is disconnected.")
            for c in run.view.containers
        ]
        told += [
            f"{n.told}, {n.name}, is {'cordoned' if n.unschedulable else 'NOT cordoned'}."
            for n in run.view.nodes
            if n.name
        ]
        return " ".join(map(capitalised, [*told, *run.memory["told"]])) or "It is no node so far."

    def more(self, run):
        return {"nodes": self.rows(run)}


def clusters_named(tags, event):
    """The EKS clusters that the instance may belong to; a tag that EKS alone writes is enough."""
    if CLUSTER.fullmatch(tags.get(OF_EKS, "")):
        return [tags[OF_EKS]]
    named = [mapping(event, "detail", "resource", "eksClusterDetails").get("name")]
    named += [tags.get(key) for key in OF_ANYBODY]
    named += [k.removeprefix(OF_KUBERNETES) for k in sorted(tags) if k.startswith(OF_KUBERNETES)]
    valid = [name for name in named if isinstance(name, str) and CLUSTER.fullmatch(name)]
    return list(dict.fromkeys(valid))[:MOST]


def capitalised(sentence):
    return sentence[:1].upper() + sentence[1:]


class UncordonNode(OfNode, Revert):
    """Lets ECS and Kubernetes schedule on the instance again, where `cordon-node` stopped it.

    The container instance that was set to DRAINING is ACTIVE again, the node that was cordoned is
    schedulable again. What was so before the isolation stays so. Put it behind `release-instance`,
    or tasks are started where nothing is reached.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-uncordon-node
            resource: ec2
            filters:
              - InstanceId: i-0abc1234def567890
            actions:
              - release-instance
              - uncordon-node
              - fail-unless-complete

    No arguments. The outcome has `nodes`, as that of `cordon-node` has. A container instance or
    node that no longer exists is named, and the record goes. It is `failed`, and keeps the record,
    so that it can be run again, while ECS, EKS or the cluster refuses: that the role has no right
    in the cluster is a failure here, since nothing is scheduled there until somebody puts it right
    (`kubectl uncordon`).

    Whoever releases needs the access entry, not only the function: the request is signed with the
    person's credentials. Words in the record that mean nothing are left out and named.

    Limits: what was moved does not come back by itself. A node that somebody cordoned for a reason
    of their own while it was isolated is uncordoned.

    IAM: as `cordon-node`, and ec2:DeleteTags on instances.
    """

    schema = type_schema("uncordon-node")
    permissions = (
        "ec2:DescribeInstances",
        "ec2:DeleteTags",
        "ecs:ListClusters",
        "ecs:ListContainerInstances",
        "ecs:DescribeContainerInstances",
        "ecs:UpdateContainerInstancesState",
        "eks:DescribeCluster",
    )
    keys = (NODE,)
    unrecorded = "no node is recorded."
    nothing = {"nodes": []}

    def eks_clusters(self, run):
        """Those on record; what else is there is kept for `changes`."""
        words = dict.fromkeys(self.recorded(run)[NODE])
        ecs, eks, malformed = [], [], []
        for word in words:
            if found := ECS_WORD.fullmatch(word):
                ecs.append(found[1])
            elif word.startswith("eks/") and CLUSTER.fullmatch(word.removeprefix("eks/")):
                eks.append(word.removeprefix("eks/"))
            else:
                malformed.append(word)
        run.memory |= {"ecs": ecs, "malformed": malformed, "wanted": [*eks]}
        return eks

    def containers(self, run):
        return super().containers(run) if run.memory["ecs"] else []

    def changes(self, run):
        shown = {c.id: c for c in run.view.containers}
        read = not run.unread
        for container_id in run.memory["ecs"]:
            container = shown.get(container_id)
            if container is None:
                if read:
                    yield gone(f"the ECS container instance {container_id}")
                continue
            yield Change(
                container.name,
                holds=container.status != "DRAINING",
                make=partial(self.set_status, container, "ACTIVE"),
                end="active",
                unseen=PolicyExecutionError("ECS still shows it as DRAINING"),
            )
        nodes = {node.cluster: node for node in run.view.nodes}
        for cluster in run.memory["wanted"]:
            node = nodes.get(cluster)
            if node is None:
                if cluster not in run.memory["clusters"]:
                    yield gone(f"the node of EKS cluster {cluster}")
                continue
            yield Change(
                node.told,
                holds=bool(node.name) and not node.unschedulable,
                make=partial(self.uncordon, node),
                error=by_hand(node.why) if node.why else None,
                end="schedulable",
                unseen=PolicyExecutionError("the cluster still shows it as cordoned"),
            )
        for word in run.memory["malformed"]:
            yield Change(
                f"the word {word!r:.60}", holds=True, flaws={"malformed": "it is none: left out"}
            )

    def uncordon(self, node):
        try:
            node.api.cordon(node.name, unschedulable=False)
        except Impossible as reason:
            raise by_hand(reason) from reason

    def plan(self, run):
        names = [c.name for c in run.changes if not c.holds]
        return f"Would have scheduled again on {', '.join(names) or 'nothing'}."

    def tell(self, run):
        names = [c.name for c in run.holding if not c.flaws]
        if not names:
            return "Nothing was put back."
        return f"Scheduled on again, as read back: {', '.join(names)}."

    def more(self, run):
        return {"nodes": self.rows(run)}


def gone(name):
    """What the record names and is not there any more; no further run could put it back."""
    return Change(name, holds=True, flaws={"gone": "it no longer exists"})


def by_hand(why):
    """That the node stays cordoned is no excuse: nothing runs there until somebody acts."""
    return PolicyExecutionError(f"{why}. By hand: kubectl uncordon")


register("cordon-node", CordonNode, "ec2")
register("uncordon-node", UncordonNode, "ec2")
