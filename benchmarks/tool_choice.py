"""582 tools installed: is the right one among those a model is shown, and what does choosing cost?

    python -m benchmarks.tool_choice [--models DIR] [--tools N] [--mistakes]

Tools: those of `data/tool_sets.json` (six like the built-in connectors, with example questions, and 111 of strangers)
and 465 operations of 31 services as their OpenAPI documents would name them: much alike on
purpose ("create an issue" is there for four of them), and without examples. Questions: those of
`data/tool_questions.jsonl` that need a tool, and `data/tool_choice.jsonl`, written for the services in other words than
the tools'. Each is asked with all tools installed.

Right is what a question's line names; several where it leaves open which service is meant. CPU time is that of the
whole process, per question, after a warm-up. 16 are offered where nothing else is said.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool

from trimtab.domain.model import Embedder
from trimtab.domain.tool import METADATA_KEY, ToolInfo
from trimtab.llm import catalogue, shelf
from trimtab.orchestrator.shortlist import MOST, Shortlist
from trimtab.retrieval.embedding import MiniLmEmbeddings
from trimtab.settings import Settings

DATA = Path(__file__).parent / "data"
SIZES = (MOST, 8, 24)

SERVICES = {
    "jira": ("Jira", "issue sprint board"),
    "linear": ("Linear", "issue project cycle"),
    "gitlab": ("GitLab", "issue merge_request pipeline"),
    "bitbucket": ("Bitbucket", "pull_request repository branch"),
    "asana": ("Asana", "task project section"),
    "trello": ("Trello", "card board checklist"),
    "notion": ("Notion", "page database block"),
    "confluence": ("Confluence", "page space attachment"),
    "slack": ("Slack", "message channel reminder"),
    "discord": ("Discord", "message server role"),
    "zoom": ("Zoom", "meeting recording webinar"),
    "salesforce": ("Salesforce", "lead opportunity account"),
    "hubspot": ("HubSpot", "contact deal campaign"),
    "zendesk": ("Zendesk", "ticket macro organization"),
    "intercom": ("Intercom", "conversation article tag"),
    "stripe": ("Stripe", "payment refund subscription"),
    "paypal": ("PayPal", "payout dispute invoice"),
    "shopify": ("Shopify", "product order customer"),
    "quickbooks": ("QuickBooks", "invoice expense vendor"),
    "mailchimp": ("Mailchimp", "campaign audience template"),
    "dropbox": ("Dropbox", "folder shared_link file"),
    "gdrive": ("Google Drive", "document permission folder"),
    "gcal": ("Google Calendar", "event calendar invitation"),
    "aws": ("Amazon Web Services", "instance bucket snapshot"),
    "cloudflare": ("Cloudflare", "dns_record firewall_rule certificate"),
    "datadog": ("Datadog", "monitor dashboard incident"),
    "pagerduty": ("PagerDuty", "incident schedule escalation"),
    "spotify": ("Spotify", "playlist album podcast"),
    "strava": ("Strava", "activity route club"),
    "airtable": ("Airtable", "record table view"),
    "workday": ("Workday", "employee leave payslip"),
}
VERBS = {
    "create": "Create a new {noun} in {service}.",
    "list": "List the {noun}s in {service}, newest first.",
    "get": "Get one {noun} of {service} with all its fields.",
    "update": "Change fields of a {noun} in {service}.",
    "delete": "Delete a {noun} from {service}.",
}


@dataclass(frozen=True)
class Question:
    text: str
    right: frozenset[str]


def installed(number: int) -> list[BaseTool]:
    """So many tools, always the same."""
    raw = json.loads((DATA / "tool_sets.json").read_text(encoding="utf-8"))
    known = [_tool(t["name"], t["description"], t["examples"]) for tools in raw.values() for t in tools]
    made = [
        _tool(f"{name}_{verb}_{noun}", text.format(noun=noun.replace("_", " "), service=service), ())
        for verb, text in VERBS.items()
        for name, (service, nouns) in SERVICES.items()
        for noun in nouns.split()
    ]
    return [*known, *made][:number]


def _tool(name: str, description: str, examples: Sequence[str]) -> BaseTool:
    async def run(**arguments: Any) -> str:
        return ""

    info = ToolInfo(name, description, name.partition("_")[0], examples=tuple(examples))
    schema = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    return StructuredTool(
        name=name, description=description, args_schema=schema, coroutine=run, metadata={METADATA_KEY: info}
    )


def questions(tools: Sequence[BaseTool]) -> list[Question]:
    """Those whose right tools are installed. Where several calls are needed, each is a question of its own."""
    there = {tool.name for tool in tools}
    found = []
    for line in (DATA / "tool_choice.jsonl").read_text(encoding="utf-8").splitlines():
        asked = json.loads(line)
        found.append(Question(asked["text"], frozenset(asked["right"])))
    for line in (DATA / "tool_questions.jsonl").read_text(encoding="utf-8").splitlines():
        asked = json.loads(line)
        if asked["kind"] in ("single", "several"):
            found += [Question(asked["text"], frozenset({call["tool"]})) for call in asked["calls"]]
    return [question for question in found if question.right & there]


@dataclass(frozen=True)
class Row:
    most: int
    asked: int
    missed: tuple[Question, ...]
    cpu_ms: tuple[float, ...]
    """One for each question."""

    @property
    def recall(self) -> float:
        return 1 - len(self.missed) / self.asked


def measure(embedder: Embedder | None, tools: Sequence[BaseTool], most: int) -> Row:
    """Ask every question with so many tools to be offered."""
    shortlist = Shortlist(embedder, most)
    shortlist.warm(tools)
    asked = questions(tools)
    shortlist.pick(tools, asked[0].text)
    missed, spent = [], []
    for question in asked:
        began = time.process_time()
        picked = shortlist.pick(tools, question.text)
        spent.append((time.process_time() - began) * 1000)
        if not question.right & set(picked.names):
            missed.append(question)
    return Row(most, len(asked), tuple(missed), tuple(spent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=None)
    parser.add_argument("--tools", type=int, default=582)
    parser.add_argument("--mistakes", action="store_true")
    options = parser.parse_args()
    folder = options.models or Settings.load().models_dir
    embedder = MiniLmEmbeddings(shelf.path(catalogue.entry(catalogue.DEFAULT_EMBEDDING), folder))
    tools = installed(options.tools)
    began = time.process_time()
    Shortlist(embedder).warm(tools)
    print(f"{len(tools)} tools read in {time.process_time() - began:.1f} CPU-seconds, once\n")
    print("| offered | by | right one among them | CPU ms (median) | CPU ms (95 %) |\n|---|---|---|---|---|")
    for most in SIZES:
        for by, used in (("meaning and words", embedder), ("words alone", None)):
            row = measure(used, tools, most)
            late = statistics.quantiles(row.cpu_ms, n=20)[-1]
            right = f"{row.recall:.1%} of {row.asked}"
            print(f"| {most} | {by} | {right} | {statistics.median(row.cpu_ms):.1f} | {late:.1f} |")
            if options.mistakes and most == MOST and used is not None:
                for question in row.missed:
                    print(f"  missed: {question.text} -> {', '.join(sorted(question.right))}")
    embedder.close()


if __name__ == "__main__":
    main()
