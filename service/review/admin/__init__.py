"""Pages for whoever administrates the service: recipes, keys, people, webhooks, the audit log."""

from fastapi import APIRouter

from service.review.admin import audit, keys, recipes, users, webhooks

router = APIRouter(include_in_schema=False)
for _page in (recipes, keys, users, webhooks, audit):
    router.include_router(_page.router)
