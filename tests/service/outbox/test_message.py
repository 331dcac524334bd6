"""What is sent, how it is signed, and where it may go."""

import ipaddress
import json
from datetime import UTC, datetime

import pytest

from service.outbox.allow import AllowList
from service.outbox.message import Message, new_secret, sign
from service.outbox.mqtt import template_problem, topic


def test_signature_is_that_of_the_standard_webhooks_test_vector() -> None:
    # https://github.com/standard-webhooks/standard-webhooks: the vector its libraries are tested with.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    given = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert given == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_are_256_bits_and_new_each_time() -> None:
    import base64

    first, second = new_secret(), new_secret()
    assert first != second
    assert len(base64.b64decode(first.removeprefix("whsec_"))) == 32


def test_envelope_is_a_cloudevent() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    body = json.loads(Message("id1", "review.created", "bolt", at, {"a": [1]}).body)
    assert body == {
        "specversion": "1.0",
        "id": "id1",
        "source": "urn:inlier:service",
        "type": "inlier.review.created",
        "time": "2026-01-02T03:04:05.000+00:00",
        "datacontenttype": "application/json",
        "recipe": "bolt",
        "data": {"a": [1]},
    }


@pytest.mark.parametrize(
    ("setting", "host", "address", "allowed"),
    [
        ("public", "a.example", "93.184.216.34", True),
        ("public", "a.example", "127.0.0.1", False),
        ("public", "a.example", "10.1.2.3", False),
        ("public", "a.example", "169.254.169.254", False),
        ("public", "a.example", "100.64.0.1", False),
        ("public", "a.example", "0.0.0.0", False),
        ("public", "a.example", "224.0.0.1", False),
        ("public", "a.example", "::1", False),
        ("public", "a.example", "fe80::1", False),
        ("public", "a.example", "fd00::1", False),
        ("public", "a.example", "::ffff:127.0.0.1", False),
        ("public", "a.example", "64:ff9b::7f00:1", False),
        ("public", "a.example", "2002:7f00:1::", False),
        ("public", "a.example", "2606:2800:220:1::1", True),
        ("10.1.0.0/16", "a.example", "10.1.2.3", True),
        ("10.1.0.0/16", "a.example", "::ffff:10.1.2.3", True),
        ("10.1.0.0/16", "a.example", "10.2.2.3", False),
        ("10.1.0.0/16", "a.example", "93.184.216.34", False),
        ("10.1.0.0/16, public", "a.example", "93.184.216.34", True),
        ("*.plant.example", "mes.plant.example", "10.9.9.9", True),
        ("*.plant.example", "MES.plant.example.", "10.9.9.9", True),
        ("*.plant.example", "plant.example.evil", "10.9.9.9", False),
        ("*.plant.example", "mes.plant.example", "224.0.0.1", False),
        ("", "a.example", "93.184.216.34", False),
    ],
)
def test_allow_list(setting: str, host: str, address: str, allowed: bool) -> None:
    assert AllowList.parse(setting).allows(host, ipaddress.ip_address(address)) is allowed


@pytest.mark.parametrize("setting", ["10.0.0.0/40", "http://x", "host:80"])
def test_an_allow_list_that_cannot_be_read_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="neither a network nor a host name"):
        AllowList.parse(setting)


def test_topic_fields_cannot_change_its_shape() -> None:
    data = {"line": "l/1", "station": "a+b#"}
    message = Message("1", "inspection.finished", "bolt", datetime.now(UTC), data)
    filled = topic("plant/{line}/{station}/{recipe}/{event}", message)
    assert filled == "plant/l_1/a_b_/bolt/inspection.finished"
    assert topic("{station}", Message("1", "e", "r", datetime.now(UTC), {})) == "none"


@pytest.mark.parametrize("template", ["", "a/#", "a/+/b", "$SYS/x", "a/{serial}", "a/{", "{}"])
def test_topics_that_cannot_be_published_to_are_refused(template: str) -> None:
    assert template_problem(template)


def test_a_good_topic_has_no_problem() -> None:
    assert template_problem("inlier/{recipe}/{event}") is None
