"""Arithmetic, worked out here and exactly: language models are bad at it, and need not be."""

from typing import Annotated

from pydantic import Field

from trimtab.connect import Connector, Effect, Result, ToolError
from trimtab_connectors.arithmetic import NotArithmetic, evaluate, tidy, written

connector = Connector(
    name="calculator",
    version="1.0.0",
    description="Works out arithmetic, exactly where that is possible. Runs on this machine.",
)


@connector.tool(
    effect=Effect.READ,
    untrusted=False,
    timeout=5.0,
    examples=(
        "What is 15% of 80?",
        "Calculate 12 times 7",
        "How much is 23 plus 4?",
        "What is the square root of 2?",
        "What is (3 + 4) * 12 / 5?",
        "1250 divided by 8",
        "What is 2 to the power of 10?",
        "What's 99 minus 45.5?",
        "Compute 3 squared plus 4 squared",
        "How much is a 20 percent tip on 45?",
        "What is 17 mod 5?",
        "Work out the average of 3, 5 and 10",
    ),
)
async def calculate(
    expression: Annotated[
        str, Field(min_length=1, max_length=500), "What to calculate, e.g. 15% of 80, (3 + 4) * 12, sqrt(2)"
    ],
) -> Result:
    """Calculate arithmetic: add, subtract, multiply, divide, percentages, powers, roots, logarithms, averages."""
    try:
        value, exact = written(evaluate(expression))
    except NotArithmetic as error:
        raise ToolError(f"{expression[:100]!r} was not calculated. {error}") from None
    asked = tidy(expression)
    return Result(
        text=f"{asked} {'=' if exact else '≈'} {value}",
        data={"expression": asked, "result": value, "exact": exact},
        answer=f"{asked} {'=' if exact else '≈'} {value}.",
    )
