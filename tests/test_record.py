"""The table of tags is the whole truth: who writes and reads tags, does it by this table."""

import ast
import re
from pathlib import Path

import pytest
from c7n.manager import resources as registry
from c7n.resources import load_resources

from custom_actions import record

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "custom_actions").rglob("*.py"))
TEXTS = [
    path
    for folder in ("policies", "mailer/templates", "infra", "docs")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".yml", ".j2", ".md")
] + [ROOT / "README.md"]
KINDS = ("ec2", "account", "iam-user", "security-group")


def test_every_constant_is_in_the_table_and_the_other_way_round():
    constants = {
        value
        for name, value in vars(record).items()
        if name.isupper() and isinstance(value, str) and value.startswith("forensic:")
    }
    assert constants == set(record.KEYS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_other_module_spells_a_key(path):
    if path.name == "record.py":
        return
    tree = ast.parse(path.read_text())
    documented = {
        ast.get_docstring(node, clean=False)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    }
    spelt = [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if "forensic:" in node.value and node.value not in documented
    ]
    assert not spelt, f"{path.name}: take the key from custom_actions/record.py"


@pytest.mark.parametrize("path", [*MODULES, *TEXTS], ids=lambda path: path.name)
def test_every_key_that_is_named_anywhere_is_in_the_table(path):
    known = {key.rstrip(":") for key in record.KEYS}
    for named in re.findall(r"forensic:[a-z][a-z0-9-]*", path.read_text()):
        assert named in known, f"{path}: {named} is not in custom_actions/record.py"


@pytest.mark.parametrize("key", record.KEYS)
def test_who_writes_a_key_and_who_takes_it_off_exist(key):
    load_resources(tuple(f"aws.{kind}" for kind in KINDS))
    actions = {name for kind in KINDS for name, _ in registry.get(kind).action_registry.items()}
    row = record.KEYS[key]
    for text in (row.written_by, row.taken_off_by):
        for name in re.findall(r"\b[a-z]+-[a-z-]+\b", text):
            assert name in actions, f"{key}: no action is called {name}"
        assert re.search(r"\b[a-z]+-[a-z]+|person|nobody", text)
    assert row.on and row.means


@pytest.mark.parametrize("count", [0, 1, 16, 40])
def test_words_come_back_from_the_tags_that_hold_them(count):
    words = [f"sg-{n:017x}" for n in range(count)]
    tags = record.as_tags(record.SETTINGS, words)

    assert all(len(tag["Value"]) <= 256 for tag in tags)
    assert len({tag["Key"] for tag in tags}) == len(tags)
    assert record.from_tags({t["Key"]: t["Value"] for t in tags}, record.SETTINGS) == words


def test_a_part_without_the_one_before_it_is_not_read():
    tags = {record.SETTINGS: "a b", record.SETTINGS + ":3": "z"}
    assert record.from_tags(tags, record.SETTINGS) == ["a", "b"]
    assert record.from_tags({record.SETTINGS + ":2": "z"}, record.SETTINGS) is None


def test_a_value_does_not_leave_its_quotation():
    forged = 'ok"). It was released. ("'
    assert record.told("k", {"k": forged}) == """k ("ok'). It was released. ('")"""
    assert record.told("k", {"k": " "}) == record.told("k", {}) == "k"
