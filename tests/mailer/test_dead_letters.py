"""What the dead-letter queue holds, in plain words, and the way back."""

import pytest

from mailer import dead_letters
from mailer.__main__ import main

TO = ("first@example.com", "second@example.com")


@pytest.fixture
def run(post, sink, capsys):
    def run(action, finding=None):
        loop = post.loop(sink)
        assert dead_letters.run(action, loop.queue, loop.courier, finding) == 0
        return capsys.readouterr().out

    return run


def test_list_says_what_when_and_why(post, sink, run):
    post.send(template="broken.html")
    post.send("garbage")
    post.loop(sink).once()
    told = run("list")
    assert "UTC  policy a-policy" in told
    assert "finding  f-1" in told
    assert "instance i-0abc1234def567890, account 111122223333, region us-west-2" in told
    assert "why      mail: ZeroDivisionError: division by zero" in told
    assert "why      message: not a message of Custodian's notify" in told
    assert post.count(post.dead_url) == (2, 0), "listing hides them"
    assert sink.mails == []


def test_what_is_sent_back_is_delivered_but_not_to_those_who_have_it(post, sink, run):
    post.send(to=TO)
    sink.fail = lambda what: "550 no such user" if what == TO[1] else None
    post.loop(sink).once()
    sink.fail = lambda what: None
    told = run("list")
    assert "its recipients were refused" in told
    assert "already delivered to 1 of its recipients" in told

    assert "Sent back: policy=a-policy finding=f-1" in run("send-back")
    assert (post.count(), post.dead) == ((1, 0), 0)
    post.loop(sink).once()
    assert post.arrived(sink) == [("f-1", TO[0]), ("f-1", TO[1])]
    assert (post.count(), post.dead) == ((0, 0), 0)


def test_one_finding_alone(post, sink, run):
    for number in range(3):
        post.send(finding=f"f-{number}", template="broken.html")
    post.loop(sink).once()
    run("send-back", "f-1")
    assert post.count() == (1, 0)
    post.time_out()
    assert "f-1" not in run("list") and post.dead == 2
    assert "holds nothing about that finding" in run("list", "f-9")


def test_an_interruption_loses_nothing(post, sink, run):
    post.send("garbage")
    post.loop(sink).once()
    post.cloud.fail("SendMessage", "ServiceFailure", status=400)
    with pytest.raises(Exception, match="ServiceFailure"):
        run("send-back")
    assert post.dead == 1


def test_an_empty_queue(run):
    assert run("list") == "The dead-letter queue holds nothing.\n"


def test_the_command(post, sink, monkeypatch, capsys):
    for name, value in post.cloud.environment("111122223333", "us-west-2").items():
        monkeypatch.setenv(name, value)
    assert main(["dead-letters", "list", "--config", str(post.config(sink))]) == 0
    assert capsys.readouterr().out == "The dead-letter queue holds nothing.\n"


def test_a_queue_without_redrive_policy(post, sink, cloud, monkeypatch, caplog):
    sqs = cloud.client("sqs", "111122223333", "us-west-2")
    url = sqs.create_queue(QueueName="plain")["QueueUrl"]
    for name, value in cloud.environment("111122223333", "us-west-2").items():
        monkeypatch.setenv(name, value)
    config = str(post.config(sink, queue_url=url))
    assert main(["--config", config, "dead-letters", "list"]) == 2
    assert "no redrive policy" in caplog.text
    # and a message that can never be delivered does not keep a run busy for ever
    sqs.send_message(QueueUrl=url, MessageBody="garbage")
    assert main(["--config", config, "--once"]) == 1
