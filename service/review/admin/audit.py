"""The audit log: who did what, newest first."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from service.access.principal import Admin
from service.api import audit as api
from service.api.audit import AuditQuery
from service.api.deps import Serving
from service.review.admin.forms import UNTOUCHED, admin_page
from service.review.forms import sent

router = APIRouter(include_in_schema=False)
_PATH = "/admin/audit"


@router.get(_PATH)
async def shown(request: Request, serving: Serving, who: Admin) -> HTMLResponse:
    query = sent(request, AuditQuery)
    found = await api.entries(Response(), serving, who, query)
    return admin_page(
        request,
        "audit.html",
        UNTOUCHED,
        items=found.items,
        following=found.next and found.next.replace(api.router.prefix, _PATH),
        query=query,
        filtered=bool(query.who or query.action or query.target),
    )
