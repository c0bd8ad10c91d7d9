"""`make benchmark-org`: a deploy to an organisation, beside stock c7n-org with a plain policy.

30 accounts in 2 regions of the simulated cloud, all in one run on this machine. Stock c7n-org
deploys one policy of Custodian's own, without the pack; then the pack's deploy makes one function
in each place as well, and then all of its policies; each a second time, when nothing is to be
changed. moto answers from this process: its part is in all of the times.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

from . import deploy
from .cloud import Cloud

FIRST, REGIONS = "111122223333", ["us-west-2", "eu-central-1"]
ACCOUNTS = [FIRST] + [str(200000000000 + number) for number in range(29)]
PLAIN = {
    "name": "plain",
    "resource": "ec2",
    "mode": {
        "type": "guard-duty",
        "role": "guardduty-response-ec2-isolate",
        "runtime": "python3.13",
        "timeout": 300,
    },
    "actions": [{"type": "tag", "key": "found", "value": "yes"}],
}


def prepared(cloud: Cloud) -> tuple[Path, Path]:
    """The stacks everywhere; the files of the accounts and of the plain policy."""
    others = ",".join(ACCOUNTS[1:])
    mailer = deploy.mailer_stack(cloud, FIRST, REGIONS[0], AccountIds=others)
    for account in ACCOUNTS:
        for region in REGIONS:
            deploy.account_stack(
                cloud, account, region, mailer["MailQueueArn"], RoleRegion=REGIONS[0]
            )
    accounts, policy = cloud.folder / "accounts.yml", cloud.folder / "plain.yml"
    listed = [
        {
            "account_id": account,
            "name": f"account-{number}",
            "role": f"arn:aws:iam::{account}:role/custodian-deploy",
            "regions": REGIONS,
        }
        for number, account in enumerate(ACCOUNTS)
    ]
    accounts.write_text(yaml.safe_dump({"vars": {"autonomy": "observe"}, "accounts": listed}))
    policy.write_text(yaml.safe_dump({"policies": [PLAIN]}))
    return accounts, policy


def timed(cloud: Cloud, *command: str | Path) -> float:
    """Seconds that a command takes as a process of its own."""
    begun = time.monotonic()
    subprocess.run(
        [str(word) for word in command],
        cwd=deploy.ROOT,
        env=cloud.environment(FIRST, REGIONS[0]) | {"PATH": os.environ["PATH"]},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        check=True,
    )
    return time.monotonic() - begun


def functions(cloud: Cloud) -> int:
    return sum(
        len(cloud.client("lambda", account, region).list_functions()["Functions"])
        for account in ACCOUNTS
        for region in REGIONS
    )


def main() -> None:
    with Cloud() as cloud:
        accounts, policy = prepared(cloud)
        stock = Path(sys.executable).with_name("c7n-org")
        plain = [stock, "run", "-c", accounts, "-s", cloud.folder / "out", "-u", policy]
        pack = [sys.executable, "-m", "deployment", "deploy", "-c", accounts]
        runs = {
            "stock c7n-org, a plain policy": plain,
            "the pack, ec2-isolate alone": [*pack, "-p", "ec2-isolate"],
            "the pack, all policies": pack,
        }
        first = {}
        print(f"{len(ACCOUNTS)} accounts in {len(REGIONS)} regions, {os.cpu_count()} cores")
        for name, command in runs.items():
            there = functions(cloud)
            for again in ("made", "again, unchanged"):
                seconds = timed(cloud, *command)
                first.setdefault(again, seconds)
                made = f"{functions(cloud) - there} functions " if again == "made" else ""
                ratio = seconds / first[again]
                print(f"{name}, {made}{again}: {seconds:.1f} s, {ratio:.2f} of stock", flush=True)


if __name__ == "__main__":
    main()
