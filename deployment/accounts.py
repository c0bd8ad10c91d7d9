"""`make accounts`: accounts.yml from AWS Organizations, by c7n-org's own script.

The script (c7n_org.orgaccounts) reads the accounts of the organisational units with their tags.
What people have written into the file stays: `vars`, the name, role, regions and further keys of
an account; entries that are not of this organisation; text and comments of what does not change.
https://docs.aws.amazon.com/organizations/latest/APIReference/API_Account.html
"""

import re
import tempfile
from pathlib import Path

import boto3
import click
import jsonschema
import yaml
from botocore.exceptions import ClientError
from c7n_org import cli as c7n_org
from c7n_org import orgaccounts

from deployment.errors import Refused, printable, reason
from deployment.models import share_models
from deployment.table import show
from deployment.targets import ROOT, known

# What Organizations knows better than the file.
GENERATED = ("account_id", "email", "display_name", "org_id", "tags")
HEAD = """\
# The accounts that the pack is deployed to, in c7n-org's own format. `make accounts` keeps it.
vars:
  # observe, ask or contain, see custom_actions/autonomy.py; an account may have its own
  autonomy: observe
accounts:
"""


@click.command()
@click.option(
    "--ou", multiple=True, default=["/"], help="path of an organisational unit, /Prod/Web"
)
@click.option("--regions", default="", help="of accounts that are new in the file, a,b")
@click.option("--role", default="custodian-deploy", help="its name, in accounts that are new")
@click.option("--tag", "wanted", multiple=True, help="key:value that an account must have")
@click.option(
    "--vars", "as_vars", default="environment,owner", help="account tags that become vars"
)
@click.option("--management", is_flag=True, help="with the management account")
@click.option("-c", "--config", default=str(ROOT / "accounts.yml"), help="the file")
def accounts(ou, regions, role, wanted, as_vars, management, config):
    """Write accounts.yml from AWS Organizations, and show what that changes.

    Runs in the management account or a delegated administrator's. Accounts that are not active
    are left out, and the management account unless it is asked for or in the file already:
    StackSets do not reach it.
    The account that this runs in is one like the others. IAM: organizations:DescribeOrganization,
    ListRoots, ListOrganizationalUnitsForParent, ListAccountsForParent, ListTagsForResource.
    """
    regions = [known(region) for region in c7n_org.comma_expand([regions])]
    file = Path(config)
    found, chief = organization(ou, role)
    of_the_organization = {account["account_id"] for account in found}
    head, texts, before = read(file)
    wants_chief = management or chief in before
    skipped = [a for a in found if a["account_id"] == chief and not wants_chief]
    found = [
        account
        for account in found
        if account not in skipped and set(wanted) <= set(account["tags"])
    ]
    if not found:
        raise Refused(f"No active account in {', '.join(ou)} has {', '.join(wanted) or 'a role'}.")
    as_vars = c7n_org.comma_expand([as_vars])
    entries, rows = merge(before, found, of_the_organization, regions, as_vars)
    text = head + "".join(
        texts[entry["account_id"]] if before.get(entry["account_id"]) == entry else written(entry)
        for entry in entries
    )
    jsonschema.validate(yaml.safe_load(text), c7n_org.CONFIG_SCHEMA)
    file.write_text(text)
    if rows:
        show(config, ("account", "name", "change"), rows)
    for account in skipped:
        click.echo(
            f"{printable(account['name'])} {chief} is the management account, and left out: "
            "MANAGEMENT=1 takes it in; its stacks are made by `make infra` there."
        )
    click.echo(f"{config}: {len(entries)} accounts, {len(rows)} of them changed.")


def organization(ous, role):
    """(the active accounts of these units as c7n-org's script lists them, the management account).

    Raises Refused with AWS's reason.
    """
    session = share_models(boto3.Session())
    region = session.region_name or "us-east-1"
    try:
        client = session.client("organizations", region_name=region)
        described = client.describe_organization()["Organization"]
        # in the organisation's partition: the script's own would be in `aws`
        partition = described["Arn"].split(":")[1]
        arn = f"arn:{partition}:iam::{{Id}}:role/{role}"
        with tempfile.TemporaryDirectory() as folder:
            output = f"{folder}/accounts.yml"
            arguments = ["--active", "--role", arn, "--output", output]
            for path in ous:
                arguments += ["--ou", path]
            orgaccounts.aws_accounts.main(arguments, standalone_mode=False)
            listed = yaml.safe_load(Path(output).read_text())["accounts"]
    except ValueError as error:  # the script's own, for a unit that is not there
        raise Refused(f"{error}.") from error
    except ClientError as error:
        raise Refused(f"AWS Organizations: {reason(error)}.") from error
    # units that lie in each other list an account twice
    unique = {account["account_id"]: account for account in listed}
    return list(unique.values()), described["MasterAccountId"]


def merge(before, found, of_the_organization, regions, as_vars):
    """(the entries of the new file, rows about what changes).

    before: {account id: entry} of the file. Tags of the account become vars only where as_vars
    names them: whoever tags an account could else set `autonomy`. What the file has wins.
    """
    entries, rows = [], []
    names = {entry.get("name") for entry in before.values()}
    for account in found:
        id_ = account["account_id"]
        old = before.get(id_, {})
        new = {key: account[key] for key in GENERATED} | {
            key: value for key, value in old.items() if key not in GENERATED
        }
        if not old:
            name = plain(account["name"])
            new["name"] = name if name not in names else f"{name}-{id_}"
            names.add(new["name"])
            new["role"] = account["role"]
            if regions:
                new["regions"] = list(regions)
        tags = {k: v for k, v in account.get("vars", {}).items() if k in as_vars}
        if tags or old.get("vars"):
            new["vars"] = tags | old.get("vars", {})
        entries.append(new)
        if not old:
            rows.append((id_, new["name"], "added"))
        elif new != old:
            keys = [k for k in {**old, **new} if old.get(k) != new.get(k)]
            rows.append((id_, new["name"], "changed: " + ", ".join(keys)))
    listed = {entry["account_id"] for entry in entries}
    for id_, old in before.items():
        if id_ in listed:
            continue
        if id_ in of_the_organization or "org_id" in old:
            rows.append((id_, old.get("name", ""), "! REMOVED: gone, not active or not asked for"))
        else:
            entries.append(old)
    return entries, rows


def plain(name):
    """An account's name as one word: c7n-org makes a folder of it, and -a takes it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "account"


def read(file):
    """(the text up to the accounts, {account id: text of its entry}, {account id: entry}).

    Raises Refused for a file that is not c7n-org's.
    """
    if not file.exists():
        return HEAD, {}, {}
    text = file.read_text()
    try:
        config = yaml.safe_load(text)
        jsonschema.validate(config, c7n_org.CONFIG_SCHEMA)
        (node,) = (value for key, value in yaml.compose(text).value if key.value == "accounts")
    except (yaml.YAMLError, jsonschema.ValidationError, ValueError) as error:
        said = getattr(error, "message", error)
        raise Refused(f"{file} is not c7n-org's list of accounts: {said}.") from error
    lines = text.splitlines(keepends=True)
    starts = [item.start_mark.line for item in node.value]
    if list(config)[-1] != "accounts" or node.flow_style:
        raise Refused(f"{file}: `accounts:` has to be its last part, an entry to a line.")
    texts = {
        account["account_id"]: "".join(lines[start:end])
        for account, start, end in zip(
            config["accounts"], starts, [*starts[1:], len(lines)], strict=True
        )
    }
    head = "".join(lines[: starts[0]] if starts else lines)
    return head, texts, {account["account_id"]: account for account in config["accounts"]}


def written(entry):
    """An entry of the list as text, indented as in the file of the pack."""
    dumped = yaml.safe_dump([entry], sort_keys=False, allow_unicode=True)
    return "".join(f"  {line}\n" for line in dumped.splitlines())
