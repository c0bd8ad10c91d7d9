"""An organisation with members whose account ids are chosen. moto makes up the ids of its own."""

from typing import TYPE_CHECKING

from moto.organizations.models import organizations_backends
from moto.utilities.utils import get_partition

if TYPE_CHECKING:
    from .cloud import Cloud

REGION = "us-east-1"


def organization(cloud: "Cloud", management: str, members: dict[str, str]) -> str:
    """Make an organisation of the account `management` and return its id.

    members: account id -> name of the others.
    """
    client = cloud.client("organizations", management, REGION)
    made = client.create_organization(FeatureSet="ALL")["Organization"]["Id"]
    backend = organizations_backends[management][get_partition(REGION)]
    for account_id, name in members.items():
        client.create_account(AccountName=name, Email=f"{account_id}@example.com")
        account = backend.accounts[-1]
        del organizations_backends.master_accounts[account.id]
        account.id = account_id
        organizations_backends.master_accounts[account_id] = management, backend.partition
    return made


def organization_of(account_id: str) -> str | None:
    """The id of the organisation that an account is in."""
    partition = get_partition(REGION)
    management, _ = organizations_backends.master_accounts.get(account_id, (account_id, partition))
    made = organizations_backends[management][partition].org
    return made.id if made else None
