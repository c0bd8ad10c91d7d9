"""The files of .github, GitLab's example and pre-commit: what a job may do, and that make has its
commands. What they do on GitHub itself was never tried: docs/ci.md."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
WORKFLOWS = {file.stem: yaml.safe_load(file.read_text()) for file in FILES}
JOBS = {
    f"{name}.{key}": job
    for name, workflow in WORKFLOWS.items()
    for key, job in workflow["jobs"].items()
}
GITLAB = yaml.safe_load((ROOT / "docs/examples/gitlab-ci.yml").read_text())
PRE_COMMIT = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
# What a job may besides reading the repository.
RIGHTS = {
    "deploy.observe": {"id-token": "write"},
    "deploy.production": {"id-token": "write"},
    "review-comment.comment": {"actions": "read", "pull-requests": "write"},
    "weekly.issue": {"issues": "write"},
}


def steps(key):
    """(job, step) of every step that has this key."""
    return [(name, step) for name, job in JOBS.items() for step in job["steps"] if key in step]


def commands():
    """(where, script) of everything that the files run."""
    found = [(name, step["run"]) for name, step in steps("run")]
    for name, job in GITLAB.items():
        if isinstance(job, dict):
            keys = ("before_script", "script", "after_script")
            found += [(f"GitLab: {name}", line) for key in keys for line in job.get(key, [])]
    hooks = [hook for repo in PRE_COMMIT["repos"] for hook in repo["hooks"]]
    return found + [(f"pre-commit: {hook['id']}", hook["entry"]) for hook in hooks]


def test_a_job_may_do_what_it_needs_and_no_more():
    for name, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {}, f"{name}: what no job says is allowed to all"
    for name, job in JOBS.items():
        assert job["permissions"] == {"contents": "read", **RIGHTS.get(name, {})}, name
        assert job["timeout-minutes"] <= 60, name
    for name, step in steps("uses"):
        if step["uses"].startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, name


def test_actions_are_pinned_by_commit():
    pinned = {}
    for file in FILES:
        for line in re.findall(r"uses: (.*)", file.read_text()):
            found = re.fullmatch(r"([\w-]+/[\w-]+)@([0-9a-f]{40})  # (v\d+\.\d+\.\d+)", line)
            assert found, f"{file.name}: {line!r} is not action@<commit>  # v1.2.3"
            pinned.setdefault(found[1], set()).add(found.groups())
    assert [every for every in pinned.values() if len(every) > 1] == []


def test_no_secret_and_nothing_of_a_stranger_is_in_reach_of_a_pull_request():
    for file in FILES:
        assert "secrets" not in re.sub(r"#.*", "", file.read_text()), file.name
    for name, script in commands():
        assert "${{" not in script, f"{name}: is put into the script as it is; say it in env"
    for name, workflow in WORKFLOWS.items():
        events = workflow[True]  # `on`, as YAML reads it
        assert "pull_request_target" not in events, name
        jobs = {key: job for key, job in JOBS.items() if key.startswith(f"{name}.")}
        if "pull_request" in events:
            assert "github.token" not in str(jobs) and "environment" not in str(jobs), name
            assert not RIGHTS.keys() & jobs.keys(), name
        if "workflow_run" in events:  # runs with the rights of main
            ((_, run),) = [(key, step) for key, step in steps("run") if key in jobs]
            assert run["run"].startswith("python3 -I .github/post.py "), name
            checkouts = [s["with"] for j in jobs.values() for s in j["steps"] if "with" in s]
            assert not any("ref" in said or "repository" in said for said in checkouts), name


def test_what_can_write_installs_nothing():
    for name, rights in RIGHTS.items():
        if {"issues", "pull-requests"} & rights.keys():
            assert "make" not in str(JOBS[name]["steps"]), name


def test_make_has_every_target_and_variable():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    called = set()
    for name, script in commands():
        for said in re.findall(r"\bmake ([^|>;\n]+)", script):
            words = [word for word in shlex.split(said) if not word.startswith(("-", "2"))]
            variables = [word.partition("=")[0] for word in words if "=" in word]
            wanted = [word for word in words if "=" not in word]
            assert set(wanted) <= targets, f"{name}: make {said}"
            for variable in variables:
                assert re.search(rf"[(,]{variable}\)", MAKEFILE), f"{name}: {variable}"
            called |= set(wanted)
    assert {"lint", "validate", "test", "review", "deploy-org", "status-org"} <= called
    environments = [job.get("env", {}) for job in JOBS.values()]
    for variable in set().union(*environments):
        assert re.search(rf"[(,]{variable}\)", MAKEFILE), variable


def test_observe_comes_first_and_production_waits_for_it():
    for jobs in (WORKFLOWS["deploy"]["jobs"], GITLAB):
        assert jobs["observe"]["environment"] == "observe"
        assert jobs["production"]["environment"] == "production"
        assert "observe" in jobs["production"]["needs"]
    for job in ("deploy.observe", "GitLab: observe"):
        said = [script for name, script in commands() if name == job and "-org" in script]
        assert [line.split()[1] for line in said] == ["plan-org", "deploy-org", "status-org"]
        assert all(" MODE=observe " in line for line in said[:2]), job
        # a variable that was forgotten does not make it all accounts
        assert all('TAGS="${TAGS:?' in line for line in said)


def test_the_last_two_releases_of_custodian_are_tested():
    def locked(file):
        text = (ROOT / file).read_text()
        assert "://" not in text and "--index" not in text.replace("--no-emit-index-url", ""), file
        assert text.count("--hash=") >= len(re.findall("^[a-z].*==", text, re.MULTILINE)), file
        return re.search(r"^c7n==(\S+)", text, re.MULTILINE)[1]

    newest = locked("requirements.txt")
    others = [file.name for file in ROOT.glob("requirements-*.txt")]
    before = re.sub(r"\d+$", lambda last: str(int(last[0]) - 1), newest)
    assert others == [f"requirements-{before}.txt"], f"{newest} is locked: lock {before} as well"
    assert locked(others[0]) == before
    matrices = (
        JOBS["ci.test"]["strategy"]["matrix"]["include"],
        GITLAB["test"]["parallel"]["matrix"],
    )
    for matrix in matrices:
        assert {entry["custodian" if "python" in entry else "CUSTODIAN"]: 1 for entry in matrix if
                {"custodian", "CUSTODIAN"} & entry.keys()} == {before: 1}  # fmt: skip
    assert [e["python"] for e in matrices[0] if "custodian" not in e] == ["3.11", "3.12", "3.13"]
    assert matrices[1][0]["VERSION"] == ["3.11", "3.12", "3.13"]


@pytest.fixture
def github(monkeypatch):
    """A GitHub of two pull requests, some comments and issues. `post(kind, file, **environment)`
    does what .github/post.py does and returns what it says; `calls` has what was written."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            found = hub.lists[url.path.removeprefix("/repos/org/pack/")]
            if url.path.endswith("pulls"):
                keys = {"head": lambda p: p["from"], "base": lambda p: p["base"]["ref"]}
                found = [p for p in found if all(keys[k](p) == query[k] for k in keys)]
            if "creator" in query:
                found = [issue for issue in found if issue["user"]["login"] == query["creator"]]
            start = (int(query["page"]) - 1) * 100
            self.answer(found[start : start + 100])

        def do_POST(self):
            said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers["Authorization"] == "Bearer the-token"
            hub.calls.append((self.command, self.path.removeprefix("/repos/org/pack/"), said))
            if len(said["body"]) > 65536:
                self.answer({"message": "body is too long (maximum is 65536 characters)"}, 422)
            else:
                self.answer({"number": 9})

        do_PATCH = do_POST

        def answer(self, said, code=200):
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_):
            pass

    def pull(number, sha, base="main", repository=55):
        return {
            "number": number,
            "head": {"sha": sha, "repo": repository and {"id": repository}},
            "base": {"ref": base},
            "from": "eve:fix",
        }

    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    hub.calls = []
    hub.lists = {
        "pulls": [
            pull(5, "a" * 40, repository=None),  # of a fork that is gone
            pull(6, "a" * 40, "old"),
            pull(7, "a" * 40),
            pull(8, "a" * 40, repository=56),  # of another fork of the same owner
        ],
        "issues/7/comments": [
            {"id": n, "user": {"login": "eve"}, "body": "<!-- policy review -->"} for n in range(99)
        ],
        "issues": [],
    }
    thread = threading.Thread(target=hub.serve_forever, args=(0.05,))
    thread.start()

    spec = importlib.util.spec_from_file_location("post", ROOT / ".github/post.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def post(kind, file, **said):
        environment = {
            "GITHUB_API_URL": f"http://127.0.0.1:{hub.server_port}",
            "GITHUB_REPOSITORY": "org/pack",
            "GITHUB_TOKEN": "the-token",
            "RUN_URL": "https://github.com/org/pack/actions/runs/1",
            "HEAD_REPOSITORY": "55",
            "HEAD_OWNER": "eve",
            "HEAD_BRANCH": "fix",
            "HEAD_SHA": "a" * 40,
            "BASE": "main",
        }
        for name, value in (environment | said).items():
            monkeypatch.setenv(name, value)
        return script.main(kind, file)

    hub.post, hub.harmless = post, script.harmless
    yield hub
    hub.shutdown()
    thread.join()
    hub.server_close()


def test_the_review_is_one_comment_which_is_updated(github, tmp_path):
    file = tmp_path / "review.md"
    file.write_text("# 2 findings newly isolate\n@everybody see #12 \u202e")
    bot = {"login": "github-actions[bot]"}

    assert github.post("review", file) == "Comment of pull request 7 written."
    (method, path, said), *_ = github.calls
    assert (method, path) == ("POST", "issues/7/comments")
    assert "# 2 findings newly isolate" in said["body"] and "a" * 40 in said["body"]
    assert not re.search(r"@everybody|#12|\u202e", said["body"])

    # of the bot, with the mark, on the second page; what others wrote with it stays theirs
    github.lists["issues/7/comments"] += [
        {"id": 500, "user": bot, "body": "another workflow's"},
        {"id": 501, "user": bot, "body": said["body"]},
    ]
    file.write_text("|" * 300_000)
    github.post("review", file)
    (_, (method, path, said)) = github.calls
    assert (method, path) == ("PATCH", "issues/comments/501")
    assert "|" * 59_000 in said["body"] and said["body"].endswith("the run has all of it.*\n")

    # the next commit's could not be made: the former one must not read as if it were its
    file.unlink()
    github.post("review", file)
    (*_, (method, path, said)) = github.calls
    assert (method, path) == ("PATCH", "issues/comments/501")
    assert said["body"].startswith("<!-- policy review -->\n") and "|" not in said["body"]
    assert f"The review of {'a' * 40} could not be made" in said["body"]
    assert "actions/runs/1" in said["body"]


def test_what_is_posted_calls_nobody_leads_nowhere_and_hides_nothing(github):
    evil = r"""@octocat, org/repo#12, #12, GH-12, gh-12, GH\-12
&#x40;octocat &commat;octocat &num;12 &#x23;12 &#35;12 a@\b
https://github.com/org/repo/issues/12 http:\//evil.example www.evil.example www\.evil.example
<https://evil.example> <img src=https://evil.example/x.png> <b>bold</b> <octo@evil.example>
![image](//evil.example/x.png) [Approve](/org/repo/pull/7) [here][there] [there]

[there]: //evil.example "hidden"

[here]: /org/repo
<!-- this hides -->

<details><summary>closed</summary>
"""
    harmless = github.harmless(evil + "the end \u202e@\u2066octocat\x1b[2J")
    parsed = MarkdownIt("commonmark", {"html": True}).parse(harmless)
    inner = [child for token in parsed for child in token.children or []]
    assert {token.type for token in [*parsed, *inner]} == {
        "paragraph_open", "paragraph_close", "inline", "text", "softbreak"
    }  # fmt: skip
    shown = "\n".join(token.content for token in inner)
    assert not re.search(r"(?i)@\w|#\d|GH-\d|://|www\.|[\u202e\u2066\x1b]", shown)
    read = shown.replace("\u200b", "")
    for part in (
        "&#x40;octocat",
        "<img src=",
        '"hidden"',
        "<!-- this hides -->",
        "the end @octocat",
    ):
        assert part in read


def test_a_review_of_what_is_no_head_any_more_writes_nothing(github, tmp_path):
    file = tmp_path / "review.md"
    file.write_text("old")
    for other in ({"HEAD_SHA": "b" * 40}, {"HEAD_OWNER": "adam"}, {"HEAD_REPOSITORY": "57"}):
        assert github.post("review", file, **other).startswith("0 open pull requests")
    github.lists["pulls"] *= 2
    assert github.post("review", file).startswith("2 open pull requests")
    assert github.calls == []


def test_a_link_is_not_followed(github, tmp_path):
    (tmp_path / "file").write_text("what is beside it")
    (tmp_path / "link.md").symlink_to(tmp_path / "file")
    github.post("review", tmp_path / "link.md")
    assert "what is beside it" not in str(github.calls)


def test_the_weekly_run_has_one_open_issue(github, tmp_path):
    file = tmp_path / "end.txt"
    file.write_text("FAILED tests/x.py\n```\n@somebody")
    title = "The pack fails with the newest Custodian, c7n-mailer or botocore"
    github.lists["issues"] = [{"number": 3, "user": {"login": "eve"}, "title": title}]

    assert github.post("issue", file) == "Issue 9 opened."
    ((method, path, said),) = github.calls
    assert (method, path, said["title"]) == ("POST", "issues", title)
    assert "````text\nFAILED tests/x.py" in said["body"] and "actions/runs/1" in said["body"]

    github.lists["issues"] += [
        {"number": 9, "user": {"login": "github-actions[bot]"}, "title": title}
    ]
    github.post("issue", tmp_path / "absent.txt")
    assert github.calls[1][:2] == ("PATCH", "issues/9")


def test_a_refusal_is_a_sentence(tmp_path):
    (tmp_path / "end.txt").write_text("text")
    done = subprocess.run(
        [sys.executable, "-I", ROOT / ".github/post.py", "issue", tmp_path / "end.txt"],
        env={
            "GITHUB_API_URL": "http://127.0.0.1:1",
            "GITHUB_REPOSITORY": "org/pack",
            "GITHUB_TOKEN": "the-token",
            "RUN_URL": "-",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stderr.startswith("GitHub does not answer"), done.stderr
