"""Text of others on one line."""

from custom_actions.words import one_line


def test_no_mail_program_makes_a_link_of_it_and_an_address_in_s3_can_be_copied():
    text = "is in s3://cases/i-1/case.json,\nsee\x1b[2J https://evil.example www.evil.example"
    assert one_line(text) == (
        "is in s3://cases/i-1/case.json, see [2J https[:]//evil.example www[.]evil.example"
    )
    assert one_line("s3://a") == "s3://a"
    for text in ("s3://x/https://evil.example", "as3://evil", "<s3://evil"):
        assert "[:]//" in one_line(text)
