"""mailer.yml: what is wrong is named by its key, and a secret in it is never repeated."""

from pathlib import Path

import pytest
import yaml

from mailer.config import ConfigError, check, load

ROOT = Path(__file__).parents[2]
GOOD = {
    "queue_url": "https://sqs.us-west-2.amazonaws.com/111122223333/guardduty-response-mail",
    "region": "us-west-2",
    "from_address": "guardduty-response@example.com",
    "account_emails": {"default": ["security@example.com"]},
}
CIPHERTEXT = "A" * 200


def test_the_shipped_file_is_good_and_the_stock_tool_takes_the_rest_of_it():
    import jsonschema
    from c7n_mailer.cli import CONFIG_SCHEMA

    path = ROOT / "mailer" / "mailer.yml"
    assert load(path)["timeout"] == 120
    content = yaml.safe_load(path.read_text())
    assert content.pop("accounts")  # which the stock tool does not know
    jsonschema.validate(content, CONFIG_SCHEMA)


def test_the_examples_in_the_shipped_file_are_good():
    text = (ROOT / "mailer" / "mailer.yml").read_text()
    begin = text.index("# smtp_username")
    examples = [line.removeprefix("# ") for line in text[begin:].splitlines()]
    keys = ("smtp_", "slack_", "splunk_", "response_", "recipients", "sample_", "  -", "    auth")
    shown = yaml.safe_load("\n".join(line for line in examples if line.startswith(keys)))
    assert set(shown) == {"smtp_username", "smtp_password", "slack_token", "splunk_hec_url",
                          "splunk_hec_token", "recipients", "sample_emails",
                          "response_records"}  # fmt: skip
    assert check(GOOD | {"smtp_server": "x"} | shown) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"queue_url": None}, "the file: 'queue_url' is a required property"),
        ({"queue_url": "asq://x"}, "queue_url: must be"),
        ({"smtp_prot": 1}, "the file: Additional properties are not allowed ('smtp_prot' was"),
        ({"smtp_port": "587"}, "smtp_port: must be of type integer"),
        ({"contact_tags": [1]}, "contact_tags.0: must be of type string"),
        ({"region": "eu-west-1"}, "region: must be us-west-2, where the queue of queue_url is"),
        ({"from_address": None}, "from_address: must be an e-mail address"),
        ({"account_emails": None}, "account_emails.default: missing"),
        ({"account_emails": {"default": []}}, "account_emails.default: must be a list of at least"),
        ({"account_emails": {"default": "a@b.example"}}, "account_emails.default: must be a list"),
        ({"account_emails": {"default": ["admin@localhost"]}}, "account_emails.default: 'admin@l"),
        ({"account_emails": {"default": ["a@b.example"], 111122223333: ["a@b.example"]}},
         "account_emails.111122223333: must be \"default\" or an account id of 12 digits, in quo"),
        ({"recipients": "@example.com"}, "recipients: must be a list"),
        ({"recipients": ["a@b.example", "example.com"]}, "recipients.1: must be an address, a dom"),
        ({"recipients": ["*@example.com"]}, "recipients.0: must be an address"),
        ({"recipients": [5]}, "recipients.0: must be an address"),
        ({"sample_emails": []}, "sample_emails: must be a list of at least one address"),
        ({"sample_emails": "a@b.example"}, "sample_emails: must be a list of at least one address"),
        ({"sample_emails": ["a@b.example", "x"]}, "sample_emails: 'x' is not an e-mail address"),
        ({"runbook_url": "docs/runbook.md"}, "runbook_url: must be the https:// address of docs"),
        ({"runbook_url": "https://x.example/runbook.md#1"}, "runbook_url: must be the https://"),
        ({"runbook_url": ["https://x.example"]}, "runbook_url: must be the https://"),
        ({"accounts": []}, "accounts: must be the path of an accounts.yml"),
        ({"accounts": "nowhere.yml"}, "accounts: "),
        ({"describe_accounts": "yes"}, "describe_accounts: must be true or false"),
        ({"topics": "*"}, "topics: must be a list"),
        ({"topics": ["guardduty-response"]}, "topics.0: must be the ARN of an SNS topic, * allow"),
        ({"administrator_accounts": [111122223333]}, "administrator_accounts.0: must be an accou"),
        ({"smtp_username": "x"}, "smtp_password: missing beside smtp_username"),
        ({"smtp_password": CIPHERTEXT}, "smtp_username: missing beside smtp_password"),
        ({"smtp_username": "x", "smtp_password": "pa55word"}, "smtp_password: must be env:NAME"),
        ({"smtp_username": "x", "smtp_password": "YWJjZA=="}, "smtp_password: must be env:NAME"),
        ({"smtp_username": "x", "smtp_password": CIPHERTEXT, "smtp_ssl": False,
          "smtp_server": "mail.example.com"}, "smtp_ssl: must not be false with smtp_username"),
        ({"slack_token": "xoxb-1"}, "slack_token: must be env:NAME"),
        ({"splunk_hec_token": "env:X", "splunk_hec_url": "http://splunk.example.com"},
         "splunk_hec_url: must be an https address"),
        ({"datadog_api_key": "x"}, "datadog_api_key: this mailer does not use it"),
        ({"response_records": {}}, "response_records: must be a list"),
        ({"response_records": [{}]}, "response_records.0: must have either topic or webhook"),
        ({"response_records": [{"topic": "x"}]}, "response_records.0.topic: must be the ARN"),
        ({"response_records": [{"webhook": "http://siem.example.com"}]},
         "response_records.0.webhook: must be an https"),
        ({"response_records": [{"webhook": "https://x.example", "authorization": "pa55word"}]},
         "response_records.0.authorization: must be env:NAME"),
        ({"response_records": [{"webhook": "https://x.example", "token": "y"}]},
         "response_records.0: does not know token"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, changes, says):
    path = tmp_path / "mailer.yml"
    path.write_text(yaml.safe_dump({k: v for k, v in (GOOD | changes).items() if v is not None}))
    with pytest.raises(ConfigError) as error:
        load(path)
    assert f"{path}: {says}" in str(error.value)
    assert "pa55word" not in str(error.value)


def test_a_secret_of_a_wrong_type_is_not_repeated(tmp_path):
    problems = check(GOOD | {"smtp_password": {"secret": "pa55word"}, "slack_token": ["pa55word"]})
    assert len(problems) == 2 and "pa55word" not in str(problems)


@pytest.mark.parametrize("text", ["- a list", "a: [", ""])
def test_no_mapping(tmp_path, text):
    path = tmp_path / "mailer.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="no mapping of keys|no YAML"):
        load(path)


@pytest.mark.parametrize(
    "good", ["env:X", "secretsmanager:a/b#key", CIPHERTEXT, "kms:" + CIPHERTEXT]
)
def test_references(good):
    assert check(GOOD | {"smtp_server": "x", "smtp_username": "x", "smtp_password": good}) == []
