"""The process that runs llama.cpp's server. Started by `llamacpp.py`, never by a person.

Its whole configuration, the key included, comes as one JSON line on standard input, so no secret is in the argument
list or the environment. Standard input stays open: when it ends, the parent is gone and so is this process. Standard
output carries one line, ``{"ready": ...}`` or ``{"error": ...}``; llama.cpp's own remarks go to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

# libgomp's workers spin while they wait for the next token. On a machine that does anything else, spinning made
# generation 20 times slower. Read by libgomp when it is loaded, hence before the import below.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def main() -> None:
    wires = os.dup(1)
    os.dup2(2, 1)  # whatever a native library prints must not be mistaken for our line
    with os.fdopen(wires, "w") as answer:
        config = json.loads(sys.stdin.readline())
        threading.Thread(target=_leave_with_parent, daemon=True).start()
        try:
            server = _serve(config)
            answer.write(json.dumps({"ready": server.listening_address}) + "\n")
        except Exception as error:
            answer.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
            answer.flush()
            os._exit(3)
        answer.flush()
    threading.Event().wait()


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _serve(config: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = config["model"]
    params.model_alias = {config["name"]}
    params.hostnames = ["127.0.0.1"]
    params.port = config["port"]
    params.api_keys = [config["key"]]
    params.n_parallel = config["slots"]
    params.n_ctx = config["slots"] * config["slot_context"]  # llama.cpp divides it among the slots
    params.n_batch = params.n_ubatch = config["batch"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config["threads"]
    params.n_gpu_layers = config["gpu_layers"]
    if kv := config.get("kv_cache"):
        params.cache_type_k = params.cache_type_v = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{kv.upper()}")
    params.cache_ram_mib = config["cache_mib"]
    params.endpoint_slots = params.endpoint_metrics = params.endpoint_props = False
    params.ui = False
    params.cors_origins = "null"  # no web page has business with it
    params.cors_credentials = False
    params.verbosity = 1
    params.lora_init_without_apply = True
    params.lora_adapters = [_lora(xllamacpp, path) for path in config["adapters"]]
    return xllamacpp.Server(params)


def _lora(xllamacpp: Any, path: str) -> Any:
    adapter = xllamacpp.CommonAdapterLoraInfo()
    adapter.path = path
    adapter.scale = 0.0
    return adapter


if __name__ == "__main__":
    main()
