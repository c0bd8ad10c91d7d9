"""Deliver, then acknowledge: nothing is lost, nobody gets it twice, whatever the server does."""

import collections
import itertools
import os
import random
import signal
import threading
from unittest.mock import Mock

import pytest

from mailer import handler
from simulation.calls import ApiError
from simulation.smtp import DROP

TO = ("first@example.com", "second@example.com")


def test_60_messages_with_a_server_that_fails_at_random_for_the_first_half(post, sink):
    post.send_many({"finding": f"f-{number}", "to": TO} for number in range(60))
    dice = random.Random(4)

    def fail(what):
        if len(sink.mails) >= 30 or dice.random() < 0.8:
            return None
        if what == "CONNECT":
            return DROP
        if what == "DATA":
            return dice.choice([DROP, "451 try again later", "421 closing"])
        return dice.choice(["450 mailbox busy", DROP]) if "@" in what else None

    sink.fail = fail
    loop = post.loop(sink)
    for _ in range(20):
        loop.once(pause=0)
        if post.count() == (0, 0):
            break
    assert post.arrived(sink) == sorted((f"f-{n}", who) for n in range(60) for who in TO)
    assert (post.count(), post.dead) == ((0, 0), 0)
    assert loop.kept == {}
    assert len(sink.mails) > 60, "no message was delivered in parts: the faults were too tame"


def test_a_server_that_is_down_for_good(post, sink):
    sink.down()
    for number in range(5):
        post.send(finding=f"f-{number}")
    for _ in range(3):  # more receives in all than the redrive policy allows
        post.loop(sink).once(pause=0)
    mailer = post.command(sink, "--once", "--tries", "1")
    output = mailer.communicate()[0]
    assert mailer.returncode == 1, output
    for number in range(5):
        line = f"policy=a-policy finding=f-{number} "
        (told,) = [one for one in output.splitlines() if line in one]
        assert "ConnectionRefusedError" in told and "kept on the queue" in told
    assert (post.count(), post.dead) == ((5, 0), 0)


def test_five_poison_messages_among_twenty(post, sink):
    poison = {
        "garbage": {"body": "neither base64 nor JSON"},
        "no template": {"template": "missing.html"},
        "an error of a template": {"template": "broken.html"},
        "nobody": {"to": ["resource-owner"]},
        "a line break": {"headline": "one\r\nBcc: victim@example.com"},
    }
    for number in range(20):
        if number % 4 == 1:
            post.send(**{"finding": f"bad-{number}"} | poison.popitem()[1])
        else:
            post.send(finding=f"f-{number}")
    mailer = post.command(sink, "--once")
    output = mailer.communicate()[0]

    assert len(sink.mails) == 15
    assert (post.count(), post.dead) == ((0, 0), 5)
    assert mailer.returncode == 1
    told = [line for line in output.splitlines() if "NOT DELIVERED" in line]
    assert len(told) == 5
    for reason in (
        "not a message of Custodian's notify",
        "there is no template 'missing.html'",
        "ZeroDivisionError: division by zero",
        "no valid recipient",
        "a line break in the subject",
    ):
        assert any(reason in line for line in told), (reason, told)


@pytest.mark.parametrize(
    "bad",
    [
        {"template": "empty.html"},
        {"to": []},
        {"to": ["nobody"]},
        {"to": ["admin@localhost"]},
        {"to": ["a@example.com, b@example.com"]},
        {"body": "e30="},
        {"body": '{"Message": 5}'},
        {"body": '["Message"]'},
        {"body": "[" * 100_000},
    ],
)
def test_no_such_thing_is_sent(post, sink, bad):
    post.send(**bad)
    loop = post.loop(sink)
    loop.once()
    assert (sink.mails, post.count(), post.dead, len(loop.kept)) == ([], (0, 0), 1, 1)


def test_kill_between_delivery_and_acknowledgement_repeats_that_one_message(post, sink):
    for number in range(4):
        post.send(finding=f"f-{number}")
    mailer = post.command(sink, "--once")

    def kill(call):
        os.kill(mailer.pid, signal.SIGKILL)
        return ApiError("Gone")

    post.cloud.before("DeleteMessage", kill, skip=1)
    mailer.communicate()
    assert mailer.returncode == -signal.SIGKILL
    assert len(sink.mails) == 2

    post.time_out()
    post.loop(sink).once()
    times = collections.Counter(finding for finding, _ in post.arrived(sink))
    assert sorted(times.values()) == [1, 1, 1, 2]
    assert (post.count(), post.dead) == ((0, 0), 0)
    same = collections.Counter(mail.message["Message-ID"] for mail in sink.mails)
    assert sorted(same.values()) == [1, 1, 1, 2], "mail programs cannot fold the repetition"


def test_kill_in_the_middle_of_a_pass_repeats_one_message(post, sink):
    """Each message has two recipients, of whom the second is refused for now, so that every one of
    them is to be tried again; the process dies while the fifth is being sent."""
    for number in range(6):
        post.send(finding=f"f-{number}", to=TO)
    mails = itertools.count(1)

    def fail(what):
        if what == "DATA" and next(mails) == 5:
            mailer.kill()
        return "450 mailbox busy" if what == TO[1] else None

    sink.fail = fail
    mailer = post.command(sink, "--once")
    mailer.communicate()
    assert mailer.returncode == -signal.SIGKILL
    sink.fail = lambda what: None

    post.time_out()
    post.loop(sink).once()
    times = collections.Counter(post.arrived(sink))
    assert set(times) == {(f"f-{n}", who) for n in range(6) for who in TO}
    assert sum(times.values()) - len(times) <= 1, "more than one message came twice"
    assert (post.count(), post.dead) == ((0, 0), 0)


def test_sigterm_finishes_what_is_in_hand_and_releases_the_rest(post, sink):
    for number in range(3):
        post.send(finding=f"f-{number}")
    mailer = post.command(sink)

    def fail(what):
        if what == "DATA":
            mailer.send_signal(signal.SIGTERM)

    sink.fail = fail
    output = mailer.communicate(timeout=20)[0]
    assert mailer.returncode == 0, output
    assert "stopped" in output.splitlines()[-1]
    assert len(sink.mails) == 1
    assert post.count() == (2, 0)


def test_sigterm_while_waiting_for_a_message(post, sink):
    """A message that comes with the signal is not kept invisible."""
    loop = post.loop(sink)
    polling = threading.Event()
    post.cloud.before("ReceiveMessage", lambda call: polling.set())
    running = threading.Thread(target=loop.forever)
    running.start()
    assert polling.wait(5)
    loop.stop.set()
    post.send()
    running.join(10)
    assert not running.is_alive()
    assert (sink.mails, post.count()) == ([], (1, 0))


def test_it_goes_on_when_the_server_is_back(post, sink, monkeypatch):
    monkeypatch.setattr("mailer.queue.DELAYS", (0,))
    tried = threading.Event()
    post.cloud.before("ChangeMessageVisibility", lambda call: tried.set())
    sink.down()
    post.send()
    loop = post.loop(sink)
    running = threading.Thread(target=loop.forever, kwargs={"wait": 0})
    running.start()
    try:
        assert tried.wait(5)
        sink.up()
        sink.wait_for(1)
    finally:
        loop.stop.set()
        running.join(10)
    assert (post.count(), post.dead, len(sink.mails)) == ((0, 0), 0, 1)


def test_a_refused_recipient_does_not_cost_the_others_anything(post, sink):
    post.send(to=TO)
    sink.fail = lambda what: "550 no such user" if what == TO[1] else None
    post.loop(sink).once()
    assert post.arrived(sink) == [("f-1", TO[0])]
    assert (post.count(), post.dead) == ((0, 0), 1)


def test_who_has_it_is_known_to_the_next_process_too(post, sink):
    post.send(to=TO)
    answers = iter(["450 mailbox busy"])
    sink.fail = lambda what: next(answers, None) if what == TO[1] else None
    loop = post.loop(sink)
    loop.once(passes=1)
    assert f"{TO[1]}: recipient refused: 450 mailbox busy" in "".join(loop.kept.values())
    assert TO[0] not in "".join(loop.kept.values())
    post.loop(sink).once()
    assert post.arrived(sink) == [("f-1", TO[0]), ("f-1", TO[1])]
    assert (post.count(), post.dead) == ((0, 0), 0)


@pytest.mark.parametrize("answer", ["554 looks like spam", "450 not now", "421 closing"])
def test_a_message_that_is_refused_as_a_whole(post, sink, answer):
    sink.fail = lambda what: answer if what == "DATA" else None
    post.send(finding="f-1", to=TO)
    loop = post.loop(sink)
    loop.once(pause=0)
    assert answer[:3] in "".join(loop.kept.values())
    assert (post.count()[0], post.dead) == ((0, 1) if answer.startswith("5") else (1, 0))
    sink.fail = lambda what: None
    post.loop(sink).once()
    assert len(sink.mails) == (0 if answer.startswith("5") else 1)


@pytest.mark.parametrize("step", ["CONNECT", "EHLO", TO[0], "DATA"])
def test_a_connection_that_is_cut_is_no_reason_to_give_up(post, sink, step):
    sink.fail = lambda what: DROP if what == step else None
    post.send(to=TO)
    loop = post.loop(sink)
    loop.once(pause=0)
    assert (post.count(), post.dead, len(loop.kept)) == ((1, 0), 0, 1)
    sink.fail = lambda what: None
    loop.once()
    assert (post.count(), len(sink.mails), loop.kept) == ((0, 0), 1, {})


def test_a_server_that_is_too_slow_is_given_up_and_the_message_stays(post, sink):
    sink.fail = lambda what: 60 if what == "EHLO" else None
    post.send()
    loop = post.loop(sink)
    loop.courier.transports[0].timeout = 0.2
    loop.once(passes=1)
    assert "Timeout" in "".join(loop.kept.values()) or "timed out" in "".join(loop.kept.values())
    assert post.count() == (1, 0)


def test_after_days_even_what_could_be_tried_again_goes_to_the_dead_letters(
    post, sink, monkeypatch
):
    monkeypatch.setattr("mailer.queue.GIVE_UP", 0)
    sink.down()
    post.send()
    for _ in range(6):
        post.loop(sink).once(passes=1)
    assert (post.count(), post.dead) == ((0, 0), 1)


def test_a_duplicate_is_mailed_once(post, sink):
    loop = post.loop(sink)
    for _ in range(2):  # from the queue at once, and later
        post.send()
        post.send()
        loop.once()
    assert len(sink.mails) == 1
    assert post.count() == (0, 0)


@pytest.mark.parametrize(
    "other",
    [
        {"finding": "f-2"},
        {"headline": "It was NOT isolated."},
        {"updated": "09:10"},
        # isolated, released, isolated again because of the same finding
        {"incident": {"finding": "f-1", "since": "2026-11-23T09:02:14+00:00"}},
    ],
)
def test_another_finding_or_another_state_is_no_duplicate(post, sink, other):
    post.send()
    post.send(**other)
    post.loop(sink).once()
    assert len(sink.mails) == 2


@pytest.mark.parametrize("way", ["once", "forever", "function"])
@pytest.mark.parametrize("refusal", [None, "550 no such user"])
def test_the_three_ways_in_do_the_same(post, sink, monkeypatch, caplog, way, refusal):
    loop = post.loop(sink)

    def fail(what):
        loop.stop.set()  # this message, no other
        return refusal if what == TO[1] else None

    sink.fail = fail
    post.send(to=TO)
    if way == "function":
        raw = post.sqs.receive_message(QueueUrl=post.url, AttributeNames=["All"])["Messages"][0]
        event = {"Records": [{key[0].lower() + key[1:]: value for key, value in raw.items()}]}
        monkeypatch.setattr(handler, "prepared", lambda: (loop.queue, loop.courier))
        context = Mock(get_remaining_time_in_millis=lambda: 120_000)
        # nothing to leave to Lambda: delivered, or replaced by a copy
        assert handler.run(event, context) == {"batchItemFailures": []}
    else:
        getattr(loop, way)()
    told = [*loop.kept.values()] if way == "once" else caplog.messages
    told = [line for line in told if "NOT DELIVERED" in line]
    assert post.arrived(sink) == [("f-1", who) for who in TO if not (refusal and who == TO[1])]
    if not refusal:
        assert (told, post.count()) == ([], (0, 0))
        return
    assert told == [
        "NOT DELIVERED: policy=a-policy finding=f-1 instance=i-0abc1234def567890"
        f" account=111122223333 region=us-west-2: {TO[1]}: recipient refused: 550 no such user."
        " The message was kept; the dead-letter queue gets it."
    ]
    assert post.count() == (1, 0)
    copy = post.sqs.receive_message(QueueUrl=post.url, MessageAttributeNames=["All"])["Messages"][0]
    notes = {name: value["StringValue"] for name, value in copy["MessageAttributes"].items()}
    assert notes["mailer-attempts"] == "1" and len(notes["mailer-delivered"].split()) == 1


def test_a_queue_that_cannot_be_read_is_a_failure_not_an_empty_queue(post, sink):
    post.cloud.fail("ReceiveMessage", "AccessDenied")
    mailer = post.command(sink, "--once")
    assert "AccessDenied" in mailer.communicate()[0]
    assert mailer.returncode == 2


def test_what_cannot_be_deleted_is_not_mailed_again_by_this_process(post, sink):
    post.cloud.fail("DeleteMessage", "ServiceFailure")
    post.send()
    loop = post.loop(sink)
    loop.once()
    post.time_out()
    loop.once()
    assert (len(sink.mails), post.count()) == (1, (0, 0))
