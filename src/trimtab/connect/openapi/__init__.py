"""Any OpenAPI 3.0 or 3.1 or Swagger 2.0 document as a connector.

    document = read_document(Path("petstore.yaml").read_bytes())
    toolbox.add(make(document, "petstore").connector)

`document` and `yamltext` read untrusted text, `merging` and `shaping` make closed schemas of its, `operations` (with
`parameters`, `bodies`, `servers`, `security`) says what can be called, `requests` (with `styles`) writes one request,
`search` finds an operation among hundreds, `connector` makes tools, `imports` keeps them in the data folder.
"""

from .connector import Choices, Imported, connector_name, make
from .document import Document, read_document
from .fault import Fault, Remark
from .fetching import fetch_document
from .imports import Imports, Record, summary
from .operations import Operation, Reading, read_operations
from .requests import Request, build

__all__ = [
    "Choices",
    "Document",
    "Fault",
    "Imported",
    "Imports",
    "Operation",
    "Reading",
    "Record",
    "Remark",
    "Request",
    "build",
    "connector_name",
    "fetch_document",
    "make",
    "read_document",
    "read_operations",
    "summary",
]
