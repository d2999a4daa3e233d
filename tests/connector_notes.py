"""A connector that changes things: what approvals are tried with. Its service is in `services.py`."""

from typing import Annotated

from pydantic import BaseModel, Field

from trimtab.connect import Connector, Effect, Http, Result

connector = Connector(
    name="notes",
    version="0.3.0",
    description="Keeps short notes on a server.",
    hosts=("notes.example.org",),
)


class Note(BaseModel):
    id: int
    text: str = ""


@connector.tool(
    effect=Effect.WRITE,
    examples=(
        "Add a note that says buy milk",
        "Write down: call the harbour master",
        "Make a note to water the plants",
        "Remember that the key is under the mat",
        "Save a note: meeting at nine",
        "Note that the boat leaves at noon",
    ),
)
async def add(text: Annotated[str, Field(min_length=1, max_length=500), "What the note says"], http: Http) -> Result:
    """Add a note with a given text to the person's notes."""
    note = (await http.post("/notes", json={"text": text})).into(Note)
    return Result(text=f"Note {note.id} was added.", data={"id": note.id, "text": text}, answer=f"Noted: {text}")


@connector.tool(
    effect=Effect.READ,
    examples=(
        "List my notes",
        "What notes do I have?",
        "Show all notes",
        "Read me my notes",
        "Which notes did I write?",
    ),
)
async def list_all(http: Http) -> Result:
    """List all notes of the person."""
    notes = (await http.get("/notes")).into(list[Note])
    said = "; ".join(note.text for note in notes) or "none"
    return Result(data=[note.model_dump() for note in notes], answer=f"Your notes: {said}.")


@connector.tool(
    effect=Effect.IRREVERSIBLE,
    examples=("Delete note 3", "Remove note number 1", "Throw away note 2", "Erase the note with number 4"),
)
async def delete(number: Annotated[int, Field(ge=1), "The note's number"], http: Http) -> Result:
    """Delete one note for good."""
    await http.delete("/notes/{number}", path={"number": number})
    return Result(text=f"Note {number} was deleted.", answer=f"Note {number} was deleted.")
