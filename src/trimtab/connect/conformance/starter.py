"""A fresh connector in a package of its own: a module, its cassette, its tests, and how to go on.

What is written passes `trimtab connectors check` as it is; whoever goes on changes one thing after another and keeps it
so. The service it asks does not exist: the cassette is all there is of it.
"""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

from trimtab.domain.errors import Conflict, InvalidInput, Unavailable

from ..declare import HOST, NAME


def write(name: str, folder: Path, host: str = "api.example.com") -> list[Path]:
    """Write the package into `folder`, which must be empty or new. Returns the files.

    Raises:
        InvalidInput: `name` or `host` cannot be one.
        Conflict: something is in the folder already.
        Unavailable: it cannot be written.
    """
    if not NAME.match(name):
        raise InvalidInput(f"{name!r} cannot name a connector: use a-z, 0-9 and _, at most 31, a letter first.")
    if not HOST.match(host) or "*" in host or _is_address(host):
        raise InvalidInput(
            f"{host!r} is not the name of a host. Write it like api.example.org. For a service without one, such as "
            f"your own on this machine, make a name up: --host {name}.example. The settings then say where it is: "
            f"trimtab config set connectors.{name}.base_url http://127.0.0.1:8000, and "
            f"trimtab config set connectors.{name}.allow_private true"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is not empty. Name another folder with --folder.")
    written = []
    try:
        for relative, text in files(name, host).items():
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            written.append(path)
    except OSError as error:
        raise Unavailable(f"{error.filename} could not be written: {error.strerror}.") from error
    return written


def files(name: str, host: str) -> dict[str, str]:
    """Relative paths and what they hold."""
    package = f"trimtab_{name}"
    told = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        f"src/{package}/__init__.py": MODULE,
        f"src/{package}/cassettes/{name}/find-harbour.json": CASSETTE,
        "tests/conftest.py": CONFTEST,
        f"tests/test_{name}.py": TEST,
    }
    words = {"NAME": name, "PACKAGE": package, "HOST": host, "PROJECT": f"trimtab-{name.replace('_', '-')}"}
    return {path: _filled(text, words) for path, text in told.items()}


def _is_address(host: str) -> bool:
    name = host.partition(":")[0]
    return name == "localhost" or name.replace(".", "").isdigit()


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"<([A-Z]+)>", lambda match: words[match[1]], dedent(text).lstrip("\n"))


PYPROJECT = """
    [build-system]
    requires = ["hatchling>=1.27,<2"]
    build-backend = "hatchling.build"

    [project]
    name = "<PROJECT>"
    version = "0.1.0"
    description = "A Trimtab connector: <NAME>."
    readme = "README.md"
    requires-python = ">=3.11"
    dependencies = ["trimtab"]

    [project.optional-dependencies]
    dev = ["trimtab[check]"]

    [project.entry-points."trimtab.connectors"]
    <NAME> = "<PACKAGE>"

    [tool.hatch.build.targets.wheel]
    packages = ["src/<PACKAGE>"]

    [tool.pytest.ini_options]
    testpaths = ["tests"]
    pythonpath = ["src"]
"""

MODULE = '''
    """<NAME>: looks items up at <HOST>. Replace the service, the shapes and the sentences by yours."""

    from typing import Annotated

    from pydantic import BaseModel, Field

    from trimtab.connect import Connector, Effect, Http, Result, Source, ToolError

    connector = Connector(
        name="<NAME>",
        version="0.1.0",
        description="Looks items up by name.",
        hosts=("<HOST>",),
    )


    class Item(BaseModel):
        """What the service answers, as far as it is used. An answer of another shape is refused by its name."""

        name: str
        summary: str
        updated: str


    @connector.tool(
        effect=Effect.READ,
        examples=(
            "What is the item harbour?",
            "Look up the item lighthouse",
            "Find the item called anchor",
            "Tell me about the item quay",
            "What does the item buoy say?",
            "Show me the item ferry",
        ),
    )
    async def find(
        item: Annotated[str, Field(min_length=1, max_length=100), "The item's name, e.g. harbour"], http: Http
    ) -> Result:
        """Look up one item by its name and say what it is."""
        reply = await http.get("/v1/items/{item}", path={"item": item}, ok=(404,))
        if reply.status == 404:
            raise ToolError(f"There is no item {item!r}. Ask for another one.")
        found = reply.into(Item)
        return Result(
            text=f"{found.name}: {found.summary} (as of {found.updated})",
            data=found.model_dump(),
            sources=[Source(f"<HOST>: {found.name}", reply.url)],
            answer=f"{found.name}: {found.summary}",
        )
'''

CASSETTE = """
    {
      "tool": "<NAME>.find",
      "arguments": {
        "item": "harbour"
      },
      "recorded_live": false,
      "note": "Written with the connector, after no documentation: replace it by a recording of your service.",
      "expects": "harbour: Where ships are safe. (as of 2026-01-31)",
      "exchanges": [
        {
          "request": {
            "method": "GET",
            "url": "https://<HOST>/v1/items/harbour"
          },
          "response": {
            "status": 200,
            "headers": {
              "content-type": "application/json"
            },
            "json": {
              "name": "harbour",
              "summary": "Where ships are safe.",
              "updated": "2026-01-31"
            }
          }
        }
      ]
    }
"""

CONFTEST = """
    pytest_plugins = ["trimtab.connect.conformance.plugin"]
"""

TEST = '''
    """What <NAME> promises. Everything is answered from cassettes; no test needs the network."""

    import <PACKAGE>

    connector_under_test = <PACKAGE>.connector


    def test_it_keeps_every_requirement(requirement):
        requirement.holds()


    def test_an_item_is_found_by_its_name(replayed):
        outcome = replayed("<NAME>.find", item="harbour")
        assert outcome.answer == "harbour: Where ships are safe."
        assert outcome.sources[0].url == "https://<HOST>/v1/items/harbour"
'''

README = """
    # <PROJECT>

    A connector for [Trimtab](https://pypi.org/project/trimtab/): `<NAME>.find` looks up an item at <HOST>.

    ```bash
    pip install -e '.[dev]'
    trimtab connectors check <NAME>     # every requirement, offline; makes the badge
    pytest                              # the same requirements as tests, and stories from cassettes
    trimtab connectors call <NAME>.find --arg item=harbour
    ```

    ## Go on from here

    1. In `src/<PACKAGE>/__init__.py`: your service's host in `hosts`, its answer's shape in `Item`, your tool's
       arguments, docstring and example questions. A service on this machine has no such host: leave <HOST> and run
       `trimtab config set connectors.<NAME>.base_url http://127.0.0.1:8000` and
       `trimtab config set connectors.<NAME>.allow_private true`.
    2. Delete the cassette that came with this folder and record what your service really answers:
       `trimtab connectors call <NAME>.find --arg item=harbour --record src/<PACKAGE>/cassettes/<NAME>/find.json`
    3. A key? `auth=Bearer(env="MY_TOKEN")` or another of `trimtab.connect`; it never gets into a cassette.
    4. `trimtab connectors check <NAME>` after each change: without a current badge a connector may only read. Then the
       last test in `tests/test_<NAME>.py`, and `trimtab up`: a running Trimtab must be started again.
"""
