"""The release as a person runs it."""

import subprocess

import pytest

from simulation import deploy

ACCOUNT, REGION = "111122223333", "us-west-2"


@pytest.fixture
def release(scene, tmp_path):
    """Run the policy as `make release` does; returns (succeeded, output)."""

    def run(instance, **said):
        try:
            done = deploy.release(scene.cloud, tmp_path, instance, ACCOUNT, REGION, **said)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            return False, str(error)
        return True, done.stdout

    return run
