"""The API of an EKS cluster, as far as one node is looked at and cordoned there.

No Kubernetes client: a few HTTPS requests. Who asks is shown by a token that is a signed request
to STS (GetCallerIdentity, with the cluster's name signed too), made with the credentials of the
policy's session and good for a minute, at this cluster alone. It stands in no log and no error.

Where a request goes is EKS's own answer to DescribeCluster, which knows the clusters of this
account only, and the answer must prove itself by the cluster's own certificate authority. A tag or
a finding chooses no more than which of those clusters is asked.

Sources: https://docs.aws.amazon.com/eks/latest/userguide/cluster-auth.html;
https://github.com/kubernetes-sigs/aws-iam-authenticator#api-authorization-from-outside-a-cluster;
https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/node-v1/.
"""

import base64
import json
import re
import ssl
from functools import partial

import urllib3
from c7n.exceptions import PolicyExecutionError

from custom_actions import clients, deadline, timeline
from custom_actions.response import Impossible, UnexpectedAnswer

# Seconds to wait for a connection, and for an answer. What is not answered then is not asked again:
# an API server with a private endpoint never answers the function.
TIMEOUT = urllib3.Timeout(connect=2, read=5)
GOOD_FOR = 60  # seconds, of a token; as long as those of the AWS CLI
PAGE = 100  # nodes; one is some 20 kB long

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")

NOT_ALLOWED = {
    401: "it does not know the role of this policy: give it an access entry",
    403: "the role of this policy may not get, list and patch nodes there",
}


class NotFound(PolicyExecutionError):
    """The API server does not have it."""


class Cluster:
    """One cluster, as DescribeCluster shows it.

    Every method raises `Impossible` where the API cannot be reached from here or the role has no
    right there, which another try would not change, and PolicyExecutionError for the rest.
    """

    def __init__(self, shown, session_factory):
        self.name = shown["name"]
        self.session_factory = session_factory
        network = shown.get("resourcesVpcConfig") or {}
        if network.get("endpointPublicAccess") is False:
            raise Impossible("its API can be reached from its own VPC alone")
        self.endpoint = shown.get("endpoint") or ""
        if not self.endpoint.startswith("https://"):
            # one that is being made, or that runs elsewhere and is only shown by EKS
            raise Impossible(f"it has no API of EKS (it is {shown.get('status')})")
        try:
            authority = base64.b64decode(shown["certificateAuthority"]["data"]).decode()
            context = trusting(authority)
        except (ValueError, ssl.SSLError) as error:
            raise UnexpectedAnswer("EKS shows no certificate authority of it") from error
        self.pool = urllib3.PoolManager(ssl_context=context)

    def node(self, instance):
        """The node that an instance (as EC2 describes it) is, or None.

        By its providerID, whatever it is called. A node has the private DNS name of its instance,
        or its id, unless somebody names it otherwise: only then all are looked through.
        """
        instance_id = instance["InstanceId"]
        for name in (instance.get("PrivateDnsName") or "", instance_id):
            if NAME.fullmatch(name):
                try:
                    node = self.get(name)
                except NotFound:
                    continue
                if is_of(node, instance_id):
                    return node
        return next((node for node in self.nodes() if is_of(node, instance_id)), None)

    def nodes(self):
        more = ""
        while True:
            fields = {"limit": PAGE, **({"continue": more} if more else {})}
            page = self.request("GET", "/api/v1/nodes", fields=fields)
            yield from page["items"]
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return

    def get(self, name):
        return self.request("GET", f"/api/v1/nodes/{name}")

    def cordon(self, name, unschedulable):
        """Have nothing more scheduled on a node, or let it be so again."""
        patch = {"spec": {"unschedulable": unschedulable or None}}
        self.request(
            "PATCH",
            f"/api/v1/nodes/{name}",
            body=json.dumps(patch),
            headers={"Content-Type": "application/merge-patch+json"},
        )

    def request(self, method, path, headers=None, **options):
        deadline.end_calls()
        token = token_for(self.name, self.session_factory)
        call = timeline.begun("kubernetes", method, {"cluster": self.name, "path": path})
        try:
            answer = self.pool.request(
                method,
                self.endpoint.rstrip("/") + path,
                headers={"Authorization": f"Bearer {token}", **(headers or {})},
                timeout=TIMEOUT,
                retries=False,
                redirect=False,
                **options,
            )
        except urllib3.exceptions.SSLError as error:
            timeline.ended(call, type(error).__name__)
            raise PolicyExecutionError(
                "what answers as its API is not signed by its certificate authority"
            ) from error
        except urllib3.exceptions.HTTPError as error:
            timeline.ended(call, type(error).__name__)
            raise Impossible(
                f"its API does not answer from here ({type(error).__name__}): it admits the "
                "addresses of its VPC, or of a list"
            ) from error
        result = "ok" if answer.status == 200 else str(answer.status)
        timeline.ended(call, result, answer.headers.get("Audit-Id"))
        return parsed(answer.status, answer.data)


def parsed(status, data):
    """The object in an answer of the API server; raises what the status says."""
    if status in NOT_ALLOWED:
        raise Impossible(NOT_ALLOWED[status])
    if status == 404:
        raise NotFound("the API server does not have it")
    if status != 200:
        raise PolicyExecutionError(f"the API server answers with status {status}")
    try:
        found = json.loads(data)
    except ValueError as error:
        raise UnexpectedAnswer("the API server answers something else than JSON") from error
    if not isinstance(found, dict):
        raise UnexpectedAnswer("the API server answers something else than an object")
    return found


def is_of(node, instance_id):
    """Whether a node is an instance; a providerID ends in `/<zone>/<instance id>`."""
    provider_id = node["spec"].get("providerID") or ""
    return provider_id.startswith("aws://") and provider_id.rpartition("/")[2] == instance_id


def trusting(authority):
    """A TLS context that trusts one certificate authority and no other."""
    context = ssl.create_default_context(cadata=authority)
    # Which Python 3.13 sets, and which the authorities of older clusters do not stand: they name no
    # key (https://github.com/kubernetes-client/python/issues/2394). Chain and host are verified.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def token_for(cluster, session_factory):
    """The token by which the API server of a cluster learns who asks."""
    sts = clients.client(session_factory, "sts")
    sign_the_cluster = partial(_add_cluster, cluster)
    sts.meta.events.register("before-sign.sts.GetCallerIdentity", sign_the_cluster)
    try:
        url = sts.generate_presigned_url(
            "get_caller_identity", ExpiresIn=GOOD_FOR, HttpMethod="GET"
        )
    finally:
        sts.meta.events.unregister("before-sign.sts.GetCallerIdentity", sign_the_cluster)
    return f"k8s-aws-v1.{base64.urlsafe_b64encode(url.encode()).decode().rstrip('=')}"


def _add_cluster(cluster, request, **_):
    request.headers["x-k8s-aws-id"] = cluster
