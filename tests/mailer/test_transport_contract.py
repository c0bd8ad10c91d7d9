"""Every transport keeps the interface, and a new one is one file and a line in one list.

The transports are found in their folder, so that none is forgotten here or there.
"""

import ast
import inspect
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest
from c7n_mailer.cli import CONFIG_SCHEMA

from mailer import config as configuration
from mailer import transports
from mailer.errors import Temporary
from mailer.secrets import Secrets
from mailer.transport import Parcel, Transport

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "mailer.md").read_text()
FILES = [module.name for module in pkgutil.iter_modules(transports.__path__)]
SMTP = {"smtp_server": "mail.example.com"}
# Each with the transport that is to take it, where a mail server is configured.
TARGETS = {
    "security@example.com": "smtp",
    "resource-owner": "smtp",
    "account-emails": "smtp",
    "slack://#channel": "slack",
    "slack://owner@example.com": "slack",
    "https://hooks.slack.com/services/T0/B0/x": "slack",
    "splunkhec://index": "splunk",
    "arn:aws:sns:us-west-2:111122223333:topic": "sns",
}
STRANGE = ["", " ", "nobody", "a@b", "slack:/x", "arn:aws:sns", "https://example.com", "\ud800\n"]


def module(file):
    return import_module(f"mailer.transports.{file}")


def transport(file):
    """The one transport that a file holds."""
    (found,) = (
        value
        for value in vars(module(file)).values()
        if inspect.isclass(value)
        and issubclass(value, Transport)
        and value.__module__ == module(file).__name__
    )
    return found


def made(cloud, **config):
    """file -> transport, as the mailer makes them."""
    session = cloud.session("111122223333", "us-west-2")
    courier = configuration.courier(config, session, Secrets(session))
    return {type(one).__module__.rpartition(".")[2]: one for one in courier.transports}


def test_the_list_has_each_file_once():
    assert sorted(map(str, transports.TRANSPORTS)) == sorted(str(transport(f)) for f in FILES)


@pytest.mark.parametrize("file", FILES)
def test_it_keeps_the_interface(cloud, file):
    one = transport(file)
    assert inspect.getdoc(module(file)), "the file says nothing about its service"
    assert one.__dict__.get("__doc__"), "the class says nothing about its configuration"
    assert not inspect.isabstract(one) and one.name
    for method in ("accepts", "parcels", "close"):
        wanted = inspect.signature(getattr(Transport, method)).parameters
        assert list(inspect.signature(getattr(one, method)).parameters) == list(wanted)

    for config in ({}, SMTP):
        instance = made(cloud, **config)[file]
        assert {type(instance.accepts(target)) for target in [*TARGETS, *STRANGE]} == {bool}
        assert not any(map(instance.accepts, STRANGE))
        instance.close()
        instance.close()


@pytest.mark.parametrize("file", FILES)
def test_it_knows_no_other_transport(file):
    tree = ast.parse(Path(module(file).__file__).read_text())
    imported = {
        (node.level, node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    }
    assert all(level != 1 and "transports" not in (name or "") for level, name in imported)


@pytest.mark.parametrize("file", FILES)
def test_its_keys_are_documented_and_its_secrets_checked(file):
    one, stock = transport(file), set(CONFIG_SCHEMA["properties"])
    assert not stock & set(one.own_keys)
    assert set(one.secret_keys) <= stock | set(one.own_keys)
    for key in (*one.own_keys, *one.secret_keys):
        assert f"`{key}`" in DOCS
    assert list(one.check({})) == []
    for key in one.secret_keys:
        told = "\n".join(one.check({key: "pa55word"}))
        assert f"{key}: must be env:NAME" in told and "pa55word" not in told
        assert (key, "env:X") in one.references({key: "env:X"})


def test_each_target_has_one_transport(cloud):
    for config, mail in ((SMTP, "smtp"), ({}, "ses")):
        instances = made(cloud, **config)
        for target, file in TARGETS.items():
            takers = [name for name, one in instances.items() if one.accepts(target)]
            assert takers == [mail if file == "smtp" else file], target


class Pigeon(Transport):
    """What somebody would add."""

    name = "pigeon"
    own_keys = secret_keys = ("pigeon_ring",)
    home, closed, tired = [], 0, True

    def accepts(self, target):
        return target.startswith("pigeon://")

    def parcels(self, message, targets):
        return [Parcel.to_one(target, self.fly, target, message.finding) for target in targets]

    def fly(self, target, finding):
        ring = self.means.secrets.reveal("pigeon_ring", self.means.config["pigeon_ring"])
        if self.tired:
            raise Temporary(f"too tired with {ring}")
        self.home.append((target, finding["id"]))

    def close(self):
        type(self).closed += 1


def test_a_new_transport_is_its_class_in_the_list(post, sink, monkeypatch):
    monkeypatch.setattr(transports, "TRANSPORTS", (*transports.TRANSPORTS, Pigeon))
    monkeypatch.setenv("RING", "r1ng")
    post.send(to=["pigeon://loft", "security@example.com"])
    loop = post.loop(sink, pigeon_ring="env:RING", recipients=["pigeon://loft"])
    loop.once(passes=1)
    (told,) = loop.kept.values()
    assert "pigeon://loft: too tired" in told and "security@example.com" not in told
    monkeypatch.setattr(Pigeon, "tired", False)
    loop = post.loop(sink, pigeon_ring="env:RING", recipients=["pigeon://loft"])  # another process
    loop.once()
    loop.courier.close()
    assert Pigeon.home == [("pigeon://loft", "f-1")] and Pigeon.closed == 1
    assert (len(sink.mails), post.count(), post.dead) == (1, (0, 0), 0)

    config = configuration.load(post.config(sink, pigeon_ring="env:RING"))
    assert configuration.environment_references(config) == ["pigeon_ring"]
    with pytest.raises(configuration.ConfigError, match="pigeon_ring: must be env:NAME"):
        configuration.load(post.config(sink, pigeon_ring="r1ng"))
    monkeypatch.undo()  # without the line in the list nobody knows it
    with pytest.raises(configuration.ConfigError, match="'pigeon_ring' was unexpected"):
        configuration.load(post.config(sink, pigeon_ring="env:RING"))
