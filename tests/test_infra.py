"""The templates of infra/, as AWS's own linter sees them."""

import subprocess
import sys
from pathlib import Path

import pytest

INFRA = Path(__file__).parent.parent / "infra"


@pytest.mark.slow
@pytest.mark.parametrize("template", sorted(INFRA.glob("*.yml")), ids=lambda path: path.stem)
def test_the_linter_finds_nothing(template):
    linter = [Path(sys.executable).with_name("cfn-lint"), template]
    finished = subprocess.run(linter, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
