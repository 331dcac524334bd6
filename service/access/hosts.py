"""Only requests for a name of ours: a page elsewhere must not reach the service under a name of its own."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.browser import LOOPBACK
from service.errors import InspectionError


def allowed_hosts(listed: str | None, listening_on: str) -> frozenset[str] | None:
    """The names to answer to; None for all. Who listens on the loopback address answers to loopback names."""
    names = frozenset(name.strip().lower() for name in (listed or "").split(",") if name.strip())
    if "*" in names:
        return None
    if not names:
        return LOOPBACK if listening_on in LOOPBACK else None
    return names


class KnownHosts:
    """400 for a Host header that names somebody else; probes ask by address and are let through."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith("/healthz/"):
            host = _hostname(Headers(scope=scope).get("host", ""))
            if not self._known(host):
                detail = "the Host header is not a name of this service; INLIER_ALLOWED_HOSTS lists them"
                raise InspectionError(400, "unknown-host", detail)
        await self._app(scope, receive, send)

    def _known(self, host: str) -> bool:
        if self._hosts is None or host in self._hosts:
            return True
        return any(name.startswith("*.") and host.endswith(name[1:]) for name in self._hosts)


def _hostname(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")
