"""The API server of a cluster lets in whom EKS would let in. What it answers them is seen in
tests/conformance/test_cordon_node.py."""

import base64

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from simulation.kubernetes import Cluster

NODE = "/api/v1/nodes/worker"


@pytest.fixture
def cluster():
    made = Cluster("prod")
    made.add_node("worker", "i-0abc1234def567890")
    made.secrets["key"] = "secret"
    made.entries["key"] = {"get"}
    return made


def token(secret="secret", cluster="prod", action="GetCallerIdentity", expires=60):
    """As `aws eks get-token` makes it."""
    auth = SigV4QueryAuth(Credentials("key", secret), "sts", "us-west-2", expires=expires)
    url = f"https://sts.us-west-2.amazonaws.com/?Action={action}&Version=2011-06-15"
    request = AWSRequest("GET", url, headers={"x-k8s-aws-id": cluster})
    auth.add_auth(request)
    return "k8s-aws-v1." + base64.urlsafe_b64encode(request.url.encode()).decode().rstrip("=")


def test_only_who_is_known_and_signed_for_this_cluster_is_let_in(cluster):
    tokens = {
        "good": token(),
        "forged": token(secret="another"),
        "of another cluster": token(cluster="test"),
        "of another call": token(action="GetSessionToken"),
        "old": token(expires=-1),
        "none": "",
    }

    statuses = {
        name: cluster.answer("GET", NODE, {"Authorization": f"Bearer {value}"}, b"")[0]
        for name, value in tokens.items()
    }

    assert statuses == dict.fromkeys(tokens, 401) | {"good": 200}


def test_an_entry_allows_its_verbs_alone(cluster):
    headers = {"Authorization": f"Bearer {token()}"}

    assert cluster.answer("GET", "/api/v1/nodes", headers, b"")[0] == 403
    patch = b'{"spec": {"unschedulable": true}}'
    assert cluster.answer("PATCH", NODE, headers, patch)[0] == 403
    assert cluster.is_schedulable("worker")
