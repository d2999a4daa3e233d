"""GitHub: issues, code and files; and opening an issue. By its REST API, version 2022-11-28.

Without a token public repositories can be read, 60 requests an hour; searching code and opening issues need one
(``GITHUB_TOKEN``). A fine-grained token that may read contents and write issues is enough. https://docs.github.com/rest
"""

import base64
import binascii
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from trimtab.connect import Bearer, Cache, Connector, Effect, Http, Limits, Reply, Result, Source, ToolError

connector = Connector(
    name="github",
    version="1.0.0",
    description="Issues, code and files of GitHub repositories; opens issues.",
    hosts=("api.github.com",),
    auth=Bearer(env="GITHUB_TOKEN", optional=True),
    cache=Cache(lifetime=30, stale_if_error=3600),
    limits=Limits(max_bytes=4_000_000),
)

ACCEPT = {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"}
MATCHES = {**ACCEPT, "accept": "application/vnd.github.text-match+json"}
Repository = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9](-?[A-Za-z0-9]){0,38}/[A-Za-z0-9._-]{1,100}$", max_length=140),
    "The repository as owner/name, e.g. python/cpython",
]
Query = Annotated[str, Field(min_length=1, max_length=200)]
Limit = Annotated[int, Field(ge=1, le=30), "How many"]


class User(BaseModel):
    login: str


class Label(BaseModel):
    name: str = ""


class Issue(BaseModel):
    number: int
    title: str
    html_url: str
    state: str
    body: str | None = None
    user: User | None = None
    """None when the account is gone."""
    labels: list[Label | str] = []
    comments: int = 0
    created_at: str = ""
    pull_request: dict[str, object] | None = None


class Issues(BaseModel):
    total_count: int
    items: list[Issue]


class Said(BaseModel):
    body: str | None = None
    user: User | None = None
    created_at: str = ""


class Of(BaseModel):
    full_name: str


class Fragment(BaseModel):
    fragment: str = ""


class Hit(BaseModel):
    path: str
    html_url: str
    repository: Of
    text_matches: list[Fragment] = []

    @property
    def where(self) -> str:
        return f"{self.repository.full_name}: {self.path}"

    @property
    def fragments(self) -> list[str]:
        """The first two places, as far as they are shown."""
        return [match.fragment[:500] for match in self.text_matches[:2]]


class Hits(BaseModel):
    total_count: int
    items: list[Hit]


class Entry(BaseModel):
    name: str
    path: str
    type: str
    size: int = 0
    html_url: str | None = None
    encoding: str = ""
    content: str = ""


@connector.tool(
    effect=Effect.READ,
    examples=(
        "Find open issues about memory leaks in pallets/flask",
        "Search GitHub issues for 'segmentation fault' in python/cpython",
        "Are there bug reports about Unicode paths in psf/requests?",
        "Which issues in django/django mention async views?",
        "Show closed pull requests about typing in pydantic/pydantic",
        "Is there a GitHub issue on slow imports in numpy/numpy?",
    ),
)
async def search_issues(
    query: Annotated[Query, "What to search for, e.g. memory leak"],
    http: Http,
    repository: Annotated[Repository | None, "Only in this repository, e.g. python/cpython"] = None,
    state: Annotated[Literal["open", "closed", "any"], "Which ones"] = "any",
    limit: Limit = 10,
) -> Result:
    """Search the issues and pull requests of GitHub repositories."""
    parts = [query, *([f"repo:{repository}"] if repository else []), *([f"state:{state}"] if state != "any" else [])]
    reply = await http.get(
        "/search/issues", params={"q": " ".join(parts), "per_page": limit}, headers=ACCEPT, ok=(401, 403, 404, 422)
    )
    found = checked(reply, "search issues").into(Issues)
    shown = found.items[:limit]
    if not shown:
        said = f"GitHub has no issue that fits {query!r}" + (f" in {repository}." if repository else ".")
        return Result(text=said, answer=said)
    lines = [
        f"#{issue.number} {issue.title} ({kind(issue)}, {issue.state}, {issue.created_at[:10]}) {issue.html_url}"
        for issue in shown
    ]
    return Result(
        text="\n".join([f"{found.total_count} fit; the first {len(shown)}:", *lines]),
        data=[brief(issue) for issue in shown],
        sources=[Source(f"#{issue.number} {issue.title}", web(issue.html_url)) for issue in shown],
        answer=f"{found.total_count} issues fit: " + "; ".join(f"#{i.number} {i.title}" for i in shown[:5]) + ".",
    )


@connector.tool(
    effect=Effect.READ,
    examples=(
        "What is issue 1347 of octocat/Hello-World about?",
        "Read GitHub issue #42 in pallets/click",
        "Is issue 5000 of rust-lang/rust still open?",
        "Show me the discussion of pull request 77 in psf/black",
        "Who opened issue 12 in encode/httpx?",
        "Summarise issue 900 of numpy/numpy with its comments",
    ),
)
async def issue(
    repository: Repository,
    number: Annotated[int, Field(ge=1, le=10_000_000), "The issue's number"],
    http: Http,
    comments: Annotated[int, Field(ge=0, le=30), "How many of its comments to read"] = 10,
) -> Result:
    """Read one GitHub issue or pull request with its first comments."""
    path = {**places(repository), "number": number}
    reply = await http.get("/repos/{owner}/{repo}/issues/{number}", path=path, headers=ACCEPT, ok=(401, 403, 404, 410))
    found = checked(reply, f"read issue {number} of {repository}").into(Issue)
    said: list[Said] = []
    if comments and found.comments:
        listed = await http.get(
            "/repos/{owner}/{repo}/issues/{number}/comments", path=path, params={"per_page": comments}, headers=ACCEPT
        )
        said = listed.into(list[Said])[:comments]
    labels = [label if isinstance(label, str) else label.name for label in found.labels]
    head = (
        f"#{found.number} {found.title} ({kind(found)}, {found.state}, {author(found.user)}, {found.created_at[:10]})"
    )
    talk = [f"{author(one.user)}, {one.created_at[:10]}: {one.body or ''}" for one in said]
    more = [f"({found.comments - len(said)} more comments are not shown)"] if found.comments > len(said) else []
    marked = [f"labels: {', '.join(labels)}"] if labels else []
    return Result(
        text="\n\n".join([head, *marked, found.body or "(no text)", *talk, *more]),
        data={**brief(found), "labels": labels, "body": found.body, "said": [one.model_dump() for one in said]},
        sources=[Source(f"#{found.number} {found.title}", web(found.html_url))],
        answer=f"#{found.number} “{found.title}” is {found.state}, opened by {author(found.user)} on "
        f"{found.created_at[:10]}, with {found.comments} comments.",
    )


@connector.tool(
    effect=Effect.READ,
    examples=(
        "Search the code of python/cpython for PyObject_Malloc",
        "Where is the function parse_url defined in psf/requests?",
        "Find GitHub code that uses asyncio.TaskGroup",
        "Which files in pallets/flask mention teardown_appcontext?",
        "Look for uses of lru_cache in the repository django/django",
        "Search GitHub code for 'def levenshtein' in Python",
    ),
)
async def search_code(
    query: Annotated[Query, "Words or a name in the code, e.g. PyObject_Malloc"],
    http: Http,
    repository: Annotated[Repository | None, "Only in this repository, e.g. python/cpython"] = None,
    language: Annotated[str, Field(pattern=r"^[A-Za-z0-9+#-]{0,30}$"), "Only in this language, e.g. Python"] = "",
    limit: Limit = 10,
) -> Result:
    """Search the source code of GitHub repositories for words or names. Needs a token."""
    parts = [query, *([f"repo:{repository}"] if repository else []), *([f"language:{language}"] if language else [])]
    reply = await http.get(
        "/search/code", params={"q": " ".join(parts), "per_page": limit}, headers=MATCHES, ok=(401, 403, 404, 422)
    )
    found = checked(reply, "search code").into(Hits)
    shown = found.items[:limit]
    if not shown:
        said = f"GitHub found no code with {query!r}" + (f" in {repository}." if repository else ".")
        return Result(text=said, answer=said)
    rows = [
        {
            "repository": hit.repository.full_name,
            "path": hit.path,
            "url": web(hit.html_url),
            "fragments": hit.fragments,
        }
        for hit in shown
    ]
    blocks = ["\n".join([hit.where, *hit.fragments]) for hit in shown]
    return Result(
        text="\n\n".join([f"{found.total_count} files fit; the first {len(shown)}:", *blocks]),
        data=rows,
        sources=[Source(hit.where, web(hit.html_url)) for hit in shown],
        answer=f"{query} is in " + "; ".join(hit.where for hit in shown[:5]) + ".",
    )


@connector.tool(
    effect=Effect.READ,
    max_chars=12_000,
    examples=(
        "Show the README.md of octocat/Hello-World on GitHub",
        "Read the file pyproject.toml in psf/black",
        "What is in src/flask/app.py of pallets/flask?",
        "List the files in the docs folder of encode/httpx",
        "Open setup.cfg from the repository pypa/pip",
        "Show me LICENSE in rust-lang/rust on GitHub",
    ),
)
async def read_file(
    repository: Repository,
    path: Annotated[str, Field(max_length=500), "The file or folder in the repository: src/app.py; empty is its top"],
    http: Http,
    ref: Annotated[str, Field(max_length=200), "A branch, tag or commit; the default branch when left out"] = "",
) -> Result:
    """Read a text file of a GitHub repository, or list what a folder of it holds."""
    inside = path.strip().strip("/")
    where = {**places(repository), "path": inside}
    route = "/repos/{owner}/{repo}/contents/{path}" if inside else "/repos/{owner}/{repo}/contents"
    reply = await http.get(
        route, path=where, params={"ref": ref} if ref else None, headers=ACCEPT, ok=(401, 403, 404, 422)
    )
    told = checked(reply, f"read {inside or 'the top folder'} of {repository}").json()
    if isinstance(told, list):
        return listing(repository, inside, reply.into(list[Entry]))
    found = reply.into(Entry)
    if found.type != "file":
        raise ToolError(f"{found.path} of {repository} is a {found.type}, not a file, so it was not read.")
    text = decoded(found, repository)
    return Result(
        text=f"{repository}: {found.path}\n\n{text}",
        data={"repository": repository, "path": found.path, "bytes": found.size, "text": text},
        sources=[Source(f"{repository}: {found.path}", web(found.html_url))],
        answer=f"{found.path} of {repository} has {len(text.splitlines())} lines.",
    )


@connector.tool(
    effect=Effect.WRITE,
    untrusted=True,
    examples=(
        "Open an issue in octocat/Hello-World titled 'Typo in the README'",
        "File a bug on GitHub in me/boats: the tide table is off by an hour",
        "Create a GitHub issue in acme/shop called 'Checkout fails' ",
        "Report in pallets/click that completion breaks on fish",
        "Make a new issue in our repository acme/site about the broken link",
        "Submit an issue to me/notes saying that export is slow",
    ),
)
async def create_issue(
    repository: Repository,
    title: Annotated[str, Field(min_length=3, max_length=250), "The issue's title, e.g. Typo in the README"],
    http: Http,
    body: Annotated[str, Field(max_length=20_000), "What happened and what was expected, in Markdown"] = "",
    labels: Annotated[list[str] | None, Field(max_length=10), "Labels that the repository has"] = None,
) -> Result:
    """Open a new issue in a GitHub repository, visible to everybody who can see the repository. Needs a token."""
    sent = {"title": title, "body": body, **({"labels": labels} if labels else {})}
    reply = await http.post(
        "/repos/{owner}/{repo}/issues",
        path=places(repository),
        json=sent,
        headers=ACCEPT,
        ok=(401, 403, 404, 410, 422),
    )
    made = checked(reply, f"open an issue in {repository}").into(Issue)
    return Result(
        text=f"Issue #{made.number} was opened in {repository}: {made.title} {made.html_url}",
        data=brief(made),
        sources=[Source(f"#{made.number} {made.title}", web(made.html_url))],
        answer=f"Issue #{made.number} was opened: {made.title}.",
    )


def checked(reply: Reply, doing: str) -> Reply:
    """The reply, unless it is one of GitHub's refusals.

    Raises:
        ToolError: it is; the message says what may help.
    """
    if reply.status < 400:
        return reply
    if reply.status == 401:
        why = "GitHub wants a valid token for it. Set GITHUB_TOKEN: trimtab connectors auth github"
    elif reply.status == 403 and reply.headers.get("x-ratelimit-remaining") == "0":
        why = "GitHub's budget of requests is used up. A token in GITHUB_TOKEN raises it; else wait an hour"
    elif reply.status == 403:
        why = "the token may not do that, or none is set (GITHUB_TOKEN)"
    elif reply.status == 404:
        why = "there is none, or the token in GITHUB_TOKEN may not see it"
    elif reply.status == 410:
        why = "issues are turned off there, or this one was deleted"
    else:
        why = "GitHub does not accept what was asked; check the repository's name and the words"
    raise ToolError(f"GitHub did not {doing}: {why}.", reason="auth" if reply.status == 401 else "status")


def places(repository: str) -> dict[str, str]:
    owner, _, name = repository.partition("/")
    if name in (".", ".."):
        raise ToolError(f"{repository!r} is not a repository. Write owner/name, e.g. python/cpython.")
    return {"owner": owner, "repo": name}


def listing(repository: str, folder: str, entries: list[Entry]) -> Result:
    rows = [f"{entry.path}/" if entry.type == "dir" else f"{entry.path} ({entry.size:,} bytes)" for entry in entries]
    where = f"{repository}: {folder or 'top folder'}"
    link = f"https://github.com/{repository}"
    return Result(
        text="\n".join([where, *(rows or ["(empty)"])]),
        data=[entry.model_dump(include={"name", "path", "type", "size"}) for entry in entries],
        sources=[Source(where, link)],
        answer=f"{where} holds {', '.join(entry.name for entry in entries[:10]) or 'nothing'}.",
    )


def decoded(entry: Entry, repository: str) -> str:
    """The file's text.

    Raises:
        ToolError: it is too large for this API, or no text.
    """
    if entry.encoding != "base64":
        raise ToolError(f"{entry.path} of {repository} has {entry.size:,} bytes, more than GitHub gives out this way.")
    try:
        content = base64.b64decode(entry.content)
        if b"\0" in content:
            raise ValueError
        return content.decode("utf-8")
    except (binascii.Error, ValueError):
        raise ToolError(f"{entry.path} of {repository} is not text, so it was not read.") from None


def brief(one: Issue) -> dict[str, object]:
    return {
        "number": one.number,
        "title": one.title,
        "state": one.state,
        "kind": kind(one),
        "url": web(one.html_url),
        "author": author(one.user),
        "created_at": one.created_at,
        "comments": one.comments,
    }


def kind(one: Issue) -> str:
    return "pull request" if one.pull_request else "issue"


def author(user: User | None) -> str:
    return user.login if user else "a deleted account"


def web(url: str | None) -> str:
    """Only GitHub's own pages are cited."""
    return url if url and url.startswith("https://github.com/") else "https://github.com/"
