"""The API server of an EKS cluster: nodes over HTTPS on loopback, behind EKS's own authentication.

    with serving("prod", account_id=..., region=...) as cluster:      # a cluster of moto's EKS
        cluster.add_node("ip-10-0-0-7...", "i-...")
        cluster.entries[ROLE_ARN] = {"get", "list", "patch"}          # an access entry and its RBAC

moto's DescribeCluster makes up an endpoint and a certificate authority; here they are those of this
server. A token is believed as aws-iam-authenticator does it: a request to GetCallerIdentity, signed
with the credentials of a role that STS knows, with the cluster's name among what is signed, not
older than it says and than 15 minutes. Who asks has an access entry or is answered 401; without the
verb 403. Of a merge patch only spec is taken.

Like the authority of an old cluster this one names no key, so that a client whose Python insists on
that is refused here as there (https://github.com/kubernetes-client/python/issues/2394).
Sources: https://github.com/kubernetes-sigs/aws-iam-authenticator/blob/master/pkg/token/token.go;
https://kubernetes.io/docs/reference/using-api/api-concepts/. Nothing here was run against AWS.
"""

import base64
import contextlib
import ipaddress
import json
import ssl
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto.eks.models import eks_backends
from moto.sts.models import sts_backends

PREFIX = "k8s-aws-v1."
VERBS = {"GET": "get", "PATCH": "patch"}
PATH = "/api/v1/nodes"
OLDEST = timedelta(minutes=15)


class NotAuthenticated(Exception):
    """The token shows nobody."""


class Cluster:
    """What the API server of one cluster knows, and what was asked of it.

    entries: {ARN of a role, or access key of nobody's role: verbs on nodes}. secrets: {access key:
    secret} of those that are not STS's. requests: (method, path) of each. fault: a function of
    (method, path) that answers (status, body), or WITHOUT_DOING for a PATCH that changes nothing.
    """

    WITHOUT_DOING = object()

    def __init__(self, name: str):
        self.name = name
        self.nodes: dict[str, dict] = {}
        self.entries: dict[str, set[str]] = {}
        self.secrets: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        self.fault = None

    def add_node(self, name: str, instance_id: str, unschedulable: bool = False) -> dict:
        spec = {"providerID": f"aws:///us-west-2a/{instance_id}"}
        if unschedulable:
            spec["unschedulable"] = True
        self.nodes[name] = {"kind": "Node", "metadata": {"name": name}, "spec": spec}
        return self.nodes[name]

    def is_schedulable(self, name: str) -> bool:
        return not self.nodes[name]["spec"].get("unschedulable")

    def answer(self, method: str, target: str, headers, body: bytes) -> tuple[int, dict]:
        """The status and the object that are answered to a request."""
        address = urlsplit(target)
        self.requests.append((method, target))
        faulty = self.fault and self.fault(method, address.path)
        if faulty and faulty is not self.WITHOUT_DOING:
            return faulty
        try:
            verbs = self.entries[self.who(headers.get("Authorization", ""))]
        except (NotAuthenticated, KeyError):
            return 401, {"kind": "Status", "reason": "Unauthorized"}
        name = address.path.removeprefix(PATH).strip("/")
        verb = VERBS[method] if name else "list"
        if verb not in verbs:
            return 403, {"kind": "Status", "reason": "Forbidden"}
        if not name:
            return 200, self.page(parse_qs(address.query))
        if name not in self.nodes:
            return 404, {"kind": "Status", "reason": "NotFound"}
        if method == "PATCH" and headers.get("Content-Type") != "application/merge-patch+json":
            return 415, {"kind": "Status", "reason": "UnsupportedMediaType"}
        if method == "PATCH" and not faulty:
            spec = self.nodes[name]["spec"] | json.loads(body)["spec"]
            self.nodes[name]["spec"] = {k: v for k, v in spec.items() if v is not None}
        return 200, self.nodes[name]

    def page(self, query: dict) -> dict:
        names, begin = sorted(self.nodes), int(query.get("continue", ["0"])[0])
        end = begin + int(query.get("limit", ["500"])[0])
        more = {"continue": str(end)} if end < len(names) else {}
        items = [self.nodes[name] for name in names[begin:end]]
        return {"kind": "NodeList", "metadata": more, "items": items}

    def who(self, authorization: str) -> str:
        """The ARN of the role whose credentials signed the token, or raises."""
        token = authorization.removeprefix("Bearer ")
        if not token.startswith(PREFIX):
            raise NotAuthenticated
        encoded = token.removeprefix(PREFIX)
        url = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        query = {key: value for key, (value,) in parse_qs(urlsplit(url).query).items()}
        signed = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        lifetime = min(timedelta(seconds=int(query["X-Amz-Expires"])), OLDEST)
        if query["Action"] != "GetCallerIdentity" or datetime.now(UTC) > signed + lifetime:
            raise NotAuthenticated
        key, _, region, service, _ = query["X-Amz-Credential"].split("/")
        secret, principal = self.known(key)
        auth = SigV4QueryAuth(Credentials(key, secret), service, region)
        unsigned = url.replace(f"&X-Amz-Signature={query['X-Amz-Signature']}", "")
        request = AWSRequest("GET", unsigned, headers={"x-k8s-aws-id": self.name})
        request.context["timestamp"] = query["X-Amz-Date"]
        text = auth.string_to_sign(request, auth.canonical_request(request))
        if auth.signature(text, request) != query["X-Amz-Signature"]:
            raise NotAuthenticated
        return principal

    def known(self, key: str) -> tuple[str, str]:
        """The secret of an access key, and whose it is."""
        if key in self.secrets:
            return self.secrets[key], key
        for account in sts_backends.values():
            for backend in account.values():
                if role := backend.get_assumed_role_from_access_key(key):
                    return role.secret_access_key, role.role_arn
        raise NotAuthenticated


@contextlib.contextmanager
def serving(name: str, *, region: str, account_id: str) -> Iterator[Cluster]:
    """Have the API of a cluster that moto's EKS knows answered until the end of the block."""
    cluster = Cluster(name)

    class Handler(BaseHTTPRequestHandler):
        def respond(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = cluster.answer(self.command, self.path, self.headers, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PATCH = respond

        def log_message(self, *_):
            """Quiet: `requests` has them."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    authority, context = certified()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    shown = eks_backends[account_id][region].clusters[name]
    shown.endpoint = f"https://127.0.0.1:{server.server_port}"
    shown.certificate_authority = {"data": base64.b64encode(authority).decode()}
    shown.resources_vpc_config |= {"endpointPublicAccess": True}
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def certified() -> tuple[bytes, ssl.SSLContext]:
    """A certificate authority, and a TLS context with a certificate of it for 127.0.0.1."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = named("kubernetes")
    authority = (
        certificate(authority_name, authority_name, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    own = (
        certificate(named("kube-apiserver"), authority_name, key)
        .add_extension(address, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(own.public_bytes(pem))
        file.write(key.private_bytes(pem, form, serialization.NoEncryption()))
        file.flush()
        context.load_cert_chain(file.name)
    return authority.public_bytes(pem), context


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def certificate(subject: x509.Name, issuer: x509.Name, key) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
