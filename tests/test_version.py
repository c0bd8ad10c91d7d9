"""The version stands in one place, and the changelog has a section for it."""

import re
import subprocess
from pathlib import Path

from custom_actions.version import VERSION

ROOT = Path(__file__).parent.parent


def test_the_changelog_has_a_section_for_the_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## \[?([^\]\s]+)\]?.*$", text, re.MULTILINE)
    assert VERSION in sections, f"CHANGELOG.md has no section ## [{VERSION}]"
    assert sections[:2] in (["Unreleased", VERSION], [VERSION, *sections[1:2]]), sections
    body = text.split(f"## [{VERSION}]", 1)[1].split("\n## ", 1)[0]
    assert "### Upgrading" in body, f"{VERSION}: what a user has to do is not said"


def test_the_version_stands_in_one_place():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    said = re.compile(rf"(?<![\d.]){re.escape(VERSION)}(?![\d.]*\d)")
    found = [
        name
        for name in files.stdout.split()
        if (ROOT / name).suffix in (".py", ".toml", ".yml", ".md")
        and said.search((ROOT / name).read_text())
    ]
    assert set(found) <= {"custom_actions/version.py", "CHANGELOG.md"}
