"""Wing: the connector SDK. A connector is a module with a declaration and typed async functions.

from trimtab.connect import Connector, Effect

connector = Connector(name="dice", version="1.0.0", description="Throws dice.")
"""

from trimtab.domain.errors import InvalidInput, ToolError
from trimtab.domain.tool import Effect, Source, ToolInfo, ToolOutcome

from .declare import ApiKey, Connector
from .http import Http, Limits, Reply
from .result import Result
from .retry import Retry
from .toolbox import CallError, ConnectOptions, ConnectorStatus, Override, Toolbox, ToolStatus

__all__ = [
    "ApiKey",
    "CallError",
    "ConnectOptions",
    "Connector",
    "ConnectorStatus",
    "Effect",
    "Http",
    "InvalidInput",
    "Limits",
    "Override",
    "Reply",
    "Result",
    "Retry",
    "Source",
    "ToolError",
    "ToolInfo",
    "ToolOutcome",
    "ToolStatus",
    "Toolbox",
]
