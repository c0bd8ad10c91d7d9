"""Slack, Splunk, SNS and records: each by itself, and none for another's failure."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jsonschema
import pytest

from mailer.accounts import Accounts
from mailer.message import Message
from mailer.render import Templates
from mailer.transports.record import document

ACCOUNT, REGION = "111122223333", "us-west-2"
ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "response-record.schema.json").read_text())
TOKEN = "t0ken-of-the-service"
KNOWN = ["slack://#security", "slack://webhook/#security", "slack://#x",
         "splunkhec://security", "splunkhec://x"]  # fmt: skip


@pytest.fixture
def web():
    """A server on loopback. got: (path, headers, body) of each request. answer: status and body;
    a list gives one answer after the other."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            server.got.append((self.path, dict(self.headers), body))
            status, text = server.answers.pop(0) if server.answers else server.answer
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.answers, server.answer = [], [], (200, "{}")
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def slack(web, monkeypatch):
    monkeypatch.setattr("mailer.transports.slack.API", web.url + "/chat.postMessage")
    monkeypatch.setenv("SLACK", TOKEN)
    web.answer = (200, '{"ok": true}')
    return {"slack_token": "env:SLACK", "recipients": KNOWN}


@pytest.fixture
def splunk(web, monkeypatch):
    monkeypatch.setenv("SPLUNK", TOKEN)
    web.answer = (200, '{"text": "Success", "code": 0}')
    url = web.url + "/services/collector"
    return {"splunk_hec_url": url, "splunk_hec_token": "env:SPLUNK", "recipients": KNOWN}


def kept(loop):
    return "".join(loop.kept.values())


def test_slack(post, sink, web, slack):
    post.send(to=["slack://#security"])
    post.loop(sink, **slack).once()
    ((path, headers, body),) = web.got
    assert (path, json.loads(body)) == ("/chat.postMessage", {"text": "f-1"})
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    assert post.count() == (0, 0)


@pytest.mark.parametrize(
    ("answer", "reason", "permanent"),
    [
        ((200, '{"ok": false, "error": "channel_not_found"}'), "channel_not_found", True),
        ((200, '{"ok": false, "error": "invalid_auth"}'), "invalid_auth", False),
        ((200, "<html>"), "not Slack's", False),
        ((429, ""), "HTTP 429", False),
        ((500, "oops"), "HTTP 500 oops", False),
        ((302, ""), "HTTP 302", False),
    ],
)
def test_slack_refuses(post, sink, web, slack, answer, reason, permanent):
    web.answer = answer
    post.send(to=["slack://#security"])
    loop = post.loop(sink, **slack)
    loop.once(passes=1)
    assert reason in kept(loop) and TOKEN not in kept(loop)
    assert post.dead == permanent


def test_a_slack_webhook_whose_address_is_a_secret(post, sink, web, monkeypatch):
    monkeypatch.setenv("HOOK", web.url + "/services/T0/B0/secret-path")
    web.answers = [(500, "no")]
    web.answer = (200, "ok")
    post.send(to=["slack://webhook/#security"])
    loop = post.loop(sink, slack_webhook="env:HOOK", recipients=KNOWN)
    loop.once(passes=1)
    assert "HTTP 500" in kept(loop) and "secret-path" not in kept(loop)
    loop.once()
    assert [path for path, _, _ in web.got] == ["/services/T0/B0/secret-path"] * 2
    assert (kept(loop), post.count()) == ("", (0, 0))


@pytest.mark.parametrize(
    ("channel", "reached"),
    [("#security", True), ("security", True), ("#general", False), ("v@evil.example", False)],
)
def test_a_channel_that_a_tag_names_is_one_that_we_list(post, sink, web, slack, channel, reached):
    target = "slack://tag/Channel"
    post.send(to=[target], tags={"Channel": channel})
    loop = post.loop(sink, **slack | {"recipients": [*KNOWN, target]})
    loop.once()
    assert (len(web.got), post.dead) == ((1, 0) if reached else (0, 1))
    assert reached or f"no channel, person or webhook among {target}" in kept(loop)


@pytest.mark.parametrize(
    "target",
    ["slack://#general", "slack://webhook/#general", "splunkhec://main",
     "https://hooks.slack.com/services/T0/B0/secret-path"],
)  # fmt: skip
def test_a_target_that_mailer_yml_does_not_list(post, sink, web, slack, splunk, target):
    post.send(to=[target, "security@example.com"])
    loop = post.loop(sink, **slack | splunk)
    loop.once()
    assert "neither account_emails nor `recipients` of mailer.yml has it" in kept(loop)
    assert "secret-path" not in kept(loop)
    assert (web.got, len(sink.mails), post.dead) == ([], 1, 1)


def test_the_slack_template_of_the_pack(post, sink, web, slack):
    data = post.message(headline='a "quoted" <https://evil.example|headline> & more')
    templates = Templates(ROOT / "mailer" / "templates", Accounts({}, None), {})
    text = templates.render("slack", data, data["resources"], "security")
    made = json.loads(text)
    assert made["channel"] == "security"
    assert made["text"] == ('a "quoted" &lt;https[:]//evil.example|headline&gt; &amp; more')


def test_splunk(post, sink, web, splunk):
    post.send(to=["splunkhec://security"])
    post.loop(sink, **splunk).once()
    ((path, headers, body),) = web.got
    event = json.loads(body)
    assert headers["Authorization"] == f"Splunk {TOKEN}"
    assert event["index"] == "security"
    assert event["event"]["event"]["detail"]["id"] == "f-1"
    assert 1e9 < event["time"] < 1e11, "not in seconds"
    assert post.count() == (0, 0)


@pytest.mark.parametrize(
    ("answer", "permanent"),
    [
        ((200, '{"text": "Incorrect index", "code": 7}'), True),
        ((200, '{"text": "Server is busy", "code": 9}'), False),
        ((403, '{"text": "Invalid token", "code": 4}'), False),
        ((503, ""), False),
    ],
)
def test_splunk_refuses(post, sink, web, splunk, answer, permanent):
    web.answer = answer
    post.send(to=["splunkhec://security"])
    loop = post.loop(sink, **splunk)
    loop.once(passes=1)
    assert "splunkhec://security" in kept(loop) and TOKEN not in kept(loop)
    assert post.dead == permanent


@pytest.fixture
def topic(cloud):
    """A topic and a queue that hears what is published to it; a function gives that."""
    sns, sqs = cloud.client("sns", ACCOUNT, REGION), cloud.client("sqs", ACCOUNT, REGION)
    arn = sns.create_topic(Name="records")["TopicArn"]
    allow = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": "*"}
    policy = json.dumps({"Statement": [allow]})
    url = sqs.create_queue(QueueName="ears", Attributes={"Policy": policy})["QueueUrl"]
    sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=f"arn:aws:sqs:{REGION}:{ACCOUNT}:ears")

    def heard():
        got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(one["Body"]) for one in got]

    heard.arn = arn
    return heard


def test_a_topic_in_a_policy_gets_the_text_of_the_mail(post, sink, topic):
    post.send(to=[topic.arn], headline="Ünusual " + "x" * 200)
    post.loop(sink, recipients=[topic.arn]).once()
    (got,) = topic()
    assert got["Message"].startswith("Ünusual xxx")
    assert got["Subject"].startswith("?nusual xxx") and len(got["Subject"]) == 100
    assert sink.mails == []


def test_a_topic_that_is_gone_is_no_reason_to_try_for_ever(post, sink, topic):
    post.send(to=[topic.arn + "-gone"])
    loop = post.loop(sink, recipients=[topic.arn + "-gone"])
    loop.once()
    assert "NotFound" in kept(loop) and post.dead == 1


def test_no_topic_from_a_tag(post, sink, topic):
    post.send(to=["resource-owner", "account-emails"], tags={"OwnerEmail": topic.arn})
    post.loop(sink).once()
    assert (len(sink.mails), topic()) == (1, [])


def test_records_to_a_topic_and_a_webhook(post, sink, web, topic, monkeypatch):
    monkeypatch.setenv("SIEM", f"Bearer {TOKEN}")
    places = [
        {"topic": topic.arn},
        {"webhook": web.url + "/collect", "authorization": "env:SIEM"},
    ]
    post.send()
    post.loop(sink, response_records=places).once()
    (published,) = topic()
    ((path, headers, posted),) = web.got
    record = json.loads(posted)
    assert json.loads(published["Message"]) == record
    assert published["MessageAttributes"]["schema"]["Value"] == "guardduty-response/record/1"
    assert (path, headers["Authorization"]) == ("/collect", f"Bearer {TOKEN}")
    assert headers["Idempotency-Key"] == record["id"]
    jsonschema.Draft202012Validator(SCHEMA).validate(record)
    assert record["finding"]["id"] == "f-1"
    assert len(sink.mails) == 1 and post.count() == (0, 0)


def test_a_record_of_a_response_follows_its_schema():
    outcome = {"step": "isolate-instance", "status": "done", "detail": "d", "error": None,
               "isolated": True, "interfaces": []}  # fmt: skip
    message = Message("id", "id", "r", "", 1, 1_700_000_000_000)
    message.__dict__["_opened"] = {
        "account_id": ACCOUNT,
        "region": REGION,
        "policy": {"name": "ec2-isolate", "resource": "ec2"},
        "action": {"to": []},
        "event": {
            "detail": {"id": "f", "type": "t"},
            "c7n:notice": {"headline": "h", "isolated": True, "observe_only": False},
        },
        "resources": [{"InstanceId": "i-1", "Tags": [], "c7n:response": [outcome]}],
    }
    record = document(message)
    jsonschema.Draft202012Validator(SCHEMA).validate(record)
    assert record["resources"][0]["response"] == [outcome]
    assert record["sent_at"] == "2023-11-14T22:13:20+00:00"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(record | {"schema": "another/2"})


def test_one_transport_that_fails_does_not_stop_the_others_and_all_is_made_up_for(
    post, sink, web, splunk
):
    sink.down()
    web.answers = [(503, "")]
    places = [{"webhook": web.url + "/collect"}]
    post.send(to=["splunkhec://security", "security@example.com"])
    loop = post.loop(sink, response_records=places, **splunk)
    loop.once(passes=1)  # Splunk is refused, mail is down, the record is taken
    assert "splunkhec" in kept(loop) and "security@example.com" in kept(loop)
    assert "record" not in kept(loop)
    sink.up()
    post.loop(sink, response_records=places, **splunk).once()  # another process
    assert [path for path, _, _ in web.got] == ["/services/collector", "/collect"] + [
        "/services/collector"
    ]
    assert (len(sink.mails), post.count(), post.dead) == (1, (0, 0), 0)


@pytest.mark.parametrize(
    ("to", "missing"),
    [("slack://#x", "slack_token"), ("splunkhec://x", "splunk_hec_url and splunk_hec_token")],
)
def test_a_target_without_its_configuration_is_named(post, sink, to, missing):
    post.send(to=[to, "security@example.com"])
    loop = post.loop(sink, recipients=KNOWN)
    loop.once()
    assert missing in kept(loop)
    assert len(sink.mails) == 1 and post.dead == 1


def test_a_webhook_in_a_policy_is_not_told_to_the_log(post, sink):
    """Its path is its secret; not even when it is the mail that finds nobody."""
    post.send(to=["resource-owner", "https://hooks.slack.com/services/T0/B0/secret-path"])
    loop = post.loop(sink)
    loop.once()
    assert "no valid recipient among resource-owner;" in kept(loop)
    assert "secret-path" not in kept(loop)


def test_a_lone_surrogate_is_escaped_in_a_record(post, sink, web, topic):
    post.send(headline="broken \ud800 Ünusual", to=["slack://#nobody"])
    post.loop(sink, response_records=[{"webhook": web.url}, {"topic": topic.arn}]).once(passes=1)
    ((_, _, body),) = web.got
    assert "Ünusual" in body
    (published,) = topic()
    assert json.loads(body)["headline"] == "broken \ud800 Ünusual"
    assert json.loads(published["Message"]) == json.loads(body)
