"""Put a text on GitHub once and keep it up to date: the review of a pull request as one comment of
it, the weekly run that failed as one issue.

    python3 .github/post.py review FILE
    python3 .github/post.py issue FILE

It runs beside a token that may write, so it is the default branch's, imports the standard library
alone, and takes FILE for what it is: a text that whoever opened the pull request has written. No
FILE for a review means that it could not be made, which replaces the review of a commit before.

Environment: GITHUB_TOKEN, and what every job has: GITHUB_API_URL, GITHUB_REPOSITORY. RUN_URL: where
the text was made. For a review HEAD_REPOSITORY (its number), HEAD_OWNER, HEAD_BRANCH and HEAD_SHA
of the run that made it, and BASE, the branch that pull requests go to. They come from GitHub, never
from FILE.
Permissions: `pull-requests: write` for a review, `issues: write` for an issue.
Exit code 0 also when the pull request has moved on; 1 with a sentence when GitHub refuses.
https://docs.github.com/en/rest/issues/comments, https://docs.github.com/en/rest/pulls/pulls
"""

import json
import os
import re
import sys
import unicodedata
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

# GitHub's limit of a comment and of an issue is 65,536 characters; the rest is for what is added.
ROOM = 60_000
MARK = "<!-- policy review -->"
TITLE = "The pack fails with the newest Custodian, c7n-mailer or botocore"
# Whose token a workflow has. Anybody can write the mark or the title.
BOT = "github-actions[bot]"


def main(kind, file):
    text = harmless(read(Path(file)))
    run = os.environ["RUN_URL"]
    return {"review": review, "issue": issue}[kind](text, run)


def read(path):
    """The text of a file, no link, at most four bytes for each character that there is room for."""
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as opened:
        return opened.read(4 * ROOM + 1).decode(errors="replace")


def harmless(text):
    """The text without what would call people, refer or lead to somewhere, or hide what it says.

    A space of no width breaks what Markdown and GitHub would make of it, in code as well, where an
    entity would be shown as it is written: mentions, references (#1, GH-1), addresses, links and
    images, HTML with its comments, entities. https://github.github.com/gfm/ and
    https://docs.github.com/en/get-started/writing-on-github/working-with-advanced-formatting/autolinked-references-and-urls
    """
    kept = (c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf"))
    shown = re.sub(BROKEN, "\\g<0>\u200b", "".join(kept))
    if len(shown) <= ROOM:
        return shown
    cut = shown[:ROOM]
    return (cut.rpartition("\n")[0] or cut) + "\n\n*Cut here: the run has all of it.*\n"


# A backslash before punctuation is gone when GitHub looks for addresses and references.
BROKEN = r"""(?xi)
    @ (?=\S)
    | \# (?=\d)
    | GH (?=\\?-\d)
    | : (?=\\?/\\?/)
    | www (?=\\?\.)
    | < (?=[a-z/!?])
    | & (?=[a-z\#])
    | \] (?=[(:])
"""


def review(text, run):
    """One comment of the pull request whose head is what was reviewed."""
    repository, owner, branch, sha, base = (
        os.environ[name]
        for name in ("HEAD_REPOSITORY", "HEAD_OWNER", "HEAD_BRANCH", "HEAD_SHA", "BASE")
    )
    numbers = [
        pull["number"]
        for pull in pages("pulls", state="open", base=base, head=f"{owner}:{branch}")
        if pull["head"]["sha"] == sha
        # an owner can have a fork beside the repository; of one that is gone nothing is told
        and str((pull["head"]["repo"] or {}).get("id")) == repository
    ]
    if len(numbers) != 1:
        return f"{len(numbers)} open pull requests have {sha} as their head: nothing was written."
    said = (
        f"*Made by the code of this pull request itself, at {sha} ([run]({run})): it shows "
        f"what the change does, not that its author is to be trusted.*\n\n{text}"
        if text.strip()
        else f"**The review of {sha} could not be made:** see [the run]({run})."
    )
    body = f"{MARK}\n{said}"
    for comment in pages(f"issues/{numbers[0]}/comments"):
        if comment["user"]["login"] == BOT and comment["body"].startswith(MARK):
            call("PATCH", f"issues/comments/{int(comment['id'])}", {"body": body})
            return f"Comment of pull request {numbers[0]} brought up to date."
    call("POST", f"issues/{int(numbers[0])}/comments", {"body": body})
    return f"Comment of pull request {numbers[0]} written."


def issue(text, run):
    """One open issue, which shows the last run."""
    fence = "`" * (max((len(ticks) for ticks in re.findall("`+", text)), default=0) + 3)
    body = (
        f"The [weekly run]({run}) failed. The end of what it said:\n\n"
        f"{fence}text\n{text}\n{fence}\n"
    )
    for found in pages("issues", state="open", creator=BOT):
        if found["title"] == TITLE and "pull_request" not in found:
            call("PATCH", f"issues/{int(found['number'])}", {"body": body})
            return f"Issue {found['number']} brought up to date."
    made = call("POST", "issues", {"title": TITLE, "body": body})
    return f"Issue {made['number']} opened."


def pages(path, **query):
    """Everything that a list has."""
    number, last = 1, None
    while last is None or len(last) == 100:
        last = call("GET", f"{path}?{urlencode(query | {'per_page': 100, 'page': number})}")
        yield from last
        number += 1


def call(method, path, said=None):
    """What GitHub answers. path: below the repository."""
    repository = quote(os.environ["GITHUB_REPOSITORY"])
    request = Request(  # noqa: S310  the runner's own address of the API
        f"{os.environ['GITHUB_API_URL']}/repos/{repository}/{path}",
        method=method,
        data=json.dumps(said).encode() if said else None,
        headers={
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "Content-Type": "application/json",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    with urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


if __name__ == "__main__":
    try:
        print(main(*sys.argv[1:]))
    except HTTPError as error:
        sys.exit(f"GitHub refused {error.url}: {error.code} {error.read(500).decode()}")
    except URLError as error:
        sys.exit(f"GitHub does not answer: {error.reason}")
