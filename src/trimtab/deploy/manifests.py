"""Files that run a plan elsewhere: for `docker compose` and for Kubernetes.

They hold no secret: keys and the database's password come from the environment, or from a Secret of that name. The
image is one that people build themselves (`pip install trimtab` in Python's), since none is published.
"""

from __future__ import annotations

import json
import re
from typing import Any

from trimtab.domain.errors import InvalidInput

from .estimate import MB
from .plan import SERVED, Deployment

PORT, UI_PORT = 8765, 8501
SECRET = "trimtab"  # noqa: S105  (the name of a Secret, not one)
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:@-]{0,254}")
SPARE = 1.25
"""Memory that is asked for, beyond what the engine was found to take."""
APP_MB = 700
"""What Trimtab takes beside the engine: search, connectors, database."""


def settings(plan: Deployment) -> dict[str, str]:
    """The plan as environment variables.

    Raises:
        InvalidInput: nothing is chosen in it yet.
    """
    chosen, remote = plan.chosen, plan.remote.base_url
    one = None if remote else chosen.variant
    if one is None and not remote:
        raise InvalidInput("Nothing is chosen in this plan yet. Run: trimtab measure, then trimtab plan choose")
    only = [outside.name for outside in (*plan.resources.connectors, *plan.resources.mcp_servers)]
    found = {
        "TRIMTAB_HOME": "/data",
        "TRIMTAB_HOST": "0.0.0.0",  # noqa: S104  (inside a container; what is reachable is said outside)
        "TRIMTAB_EXPOSE": "true",
        "TRIMTAB_MODEL": plan.model,
        "TRIMTAB_FACES": json.dumps([face for face in SERVED if face in plan.interface.faces]),
        **({"TRIMTAB_CONNECTORS_ONLY": json.dumps(only)} if only else {}),
        **({"TRIMTAB_COLLECTIONS": json.dumps(plan.resources.collections)} if plan.resources.collections else {}),
        "TRIMTAB_CONTEXT": str(plan.targets.context),
        "TRIMTAB_PARALLEL": str(min(32, chosen.slots or plan.targets.users)),
    }
    if one is None:
        return found | {"TRIMTAB_BASE_URL": remote}
    found["TRIMTAB_VARIANT"] = one.name
    if chosen.threads:
        found["TRIMTAB_THREADS"] = str(chosen.threads)
    if chosen.batch:
        found["TRIMTAB_BATCH"] = str(chosen.batch)
    return found


def _cores(plan: Deployment) -> int:
    return plan.budget.cores or plan.chosen.threads or 1


def _checked(image: str) -> str:
    if not _IMAGE.fullmatch(image):
        raise InvalidInput(f"{image!r} is no name of an image. It looks like registry/trimtab:0.1.")
    return image


def compose(plan: Deployment, image: str, engine_bytes: int) -> dict[str, Any]:
    """A `compose.yaml` as plain values: Trimtab, and PostgreSQL for its database.

    Args:
        engine_bytes: memory of the engine, measured or estimated.

    Raises:
        InvalidInput: nothing is chosen in the plan yet, or the image has no such name.
    """
    password = "${TRIMTAB_DATABASE_PASSWORD:?set it in the environment}"  # noqa: S105  (where it is, not what)
    web = "web" in plan.interface.faces
    trimtab: dict[str, Any] = {
        "image": _checked(image),
        "command": ["trimtab", "up" if web else "serve"],
        "environment": settings(plan)
        | {"TRIMTAB_DATABASE_URL": f"postgresql+psycopg://trimtab:{password}@database/trimtab"},
        "ports": [f"127.0.0.1:{port}:{port}" for port in ((PORT, UI_PORT) if web else (PORT,))],
        "volumes": ["data:/data"],
        "depends_on": {"database": {"condition": "service_healthy"}},
        "restart": "unless-stopped",
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108  (a container's own)
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "deploy": {"resources": {"limits": {"cpus": str(_cores(plan)), "memory": f"{_memory(engine_bytes)}M"}}},
    }
    database = {
        "image": "postgres:17",
        "environment": {"POSTGRES_USER": "trimtab", "POSTGRES_PASSWORD": password, "POSTGRES_DB": "trimtab"},
        "volumes": ["database:/var/lib/postgresql/data"],
        "healthcheck": {"test": ["CMD", "pg_isready", "-U", "trimtab"], "interval": "5s", "retries": 12},
        "restart": "unless-stopped",
    }
    return {
        "name": "trimtab",
        "services": {"trimtab": trimtab, "database": database},
        "volumes": {"data": {}, "database": {}},
    }


def kubernetes(plan: Deployment, image: str, engine_bytes: int) -> list[dict[str, Any]]:
    """A volume claim, a Deployment and a Service as plain values. Raises as `compose` does.

    The database's URL is read from the Secret `trimtab`, key `database-url`. One replica: several need a database and a
    vector store that they share.
    """
    labels = {"app.kubernetes.io/name": "trimtab"}
    secret = {"secretKeyRef": {"name": SECRET, "key": "database-url", "optional": True}}
    environment: list[dict[str, Any]] = [{"name": k, "value": v} for k, v in settings(plan).items()]
    memory = f"{_memory(engine_bytes)}M"
    container = {
        "name": "trimtab",
        "image": _checked(image),
        "command": ["trimtab", "serve"],
        "env": [*environment, {"name": "TRIMTAB_DATABASE_URL", "valueFrom": secret}],
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": {"requests": {"cpu": str(_cores(plan)), "memory": memory}, "limits": {"memory": memory}},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 20, "failureThreshold": 6},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "trimtab"}}, {"name": "tmp", "emptyDir": {}}]
    pod = {"securityContext": {"fsGroup": 1000}, "containers": [container], "volumes": volumes}
    meta = {"name": "trimtab", "labels": labels}
    disk = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": labels}, "template": template}
    service = {"selector": labels, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]}
    return [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": disk},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
    ]


def _memory(engine_bytes: int) -> int:
    """MB for the whole container."""
    return round(engine_bytes / MB * SPARE) + APP_MB
