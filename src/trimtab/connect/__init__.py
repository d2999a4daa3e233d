"""Wing: the connector SDK. A connector is a module with a declaration and typed async functions.

from trimtab.connect import Connector, Effect

connector = Connector(name="dice", version="1.0.0", description="Throws dice.")
"""

from trimtab.domain.errors import InvalidInput, ToolBusy, ToolError
from trimtab.domain.tool import Effect, Source, ToolInfo, ToolOutcome

from .auth import ApiKey, Basic, Bearer, ClientCredentials, OAuth
from .budget import Rate
from .cache import Cache
from .circuit import Breaker
from .declare import Connector
from .health import CallRecord, Health
from .http import Http, Limits, Reply
from .options import ConnectOptions, Override
from .pages import Listing, Pages
from .result import Result
from .retry import Retry
from .setup import Option, Setup
from .toolbox import CallError, ConnectorStatus, Toolbox, ToolStatus

__all__ = [
    "ApiKey",
    "Basic",
    "Bearer",
    "Breaker",
    "Cache",
    "CallError",
    "CallRecord",
    "ClientCredentials",
    "ConnectOptions",
    "Connector",
    "ConnectorStatus",
    "Effect",
    "Health",
    "Http",
    "InvalidInput",
    "Limits",
    "Listing",
    "OAuth",
    "Option",
    "Override",
    "Pages",
    "Rate",
    "Reply",
    "Result",
    "Retry",
    "Setup",
    "Source",
    "ToolBusy",
    "ToolError",
    "ToolInfo",
    "ToolOutcome",
    "ToolStatus",
    "Toolbox",
]
