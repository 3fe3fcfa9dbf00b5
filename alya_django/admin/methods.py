"""Which methods a page serves: any other is answered with 405, before a session, a person or a batch is looked up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_http_methods

View = Callable[..., HttpResponse]

LOOK = ("GET", "HEAD")
"""A page to look at."""
ASK = ("GET", "POST")
"""A question, and its answer."""
TAKE = ("GET",)
"""A download, which is logged, or what scripts poll: nobody wants its header alone."""
DO = ("POST",)
"""Something that happens at once."""


def page(site: AdminSite, methods: tuple[str, ...], route: str, view: View, *, name: str) -> URLPattern:
    """Return the address of a page of Alya's own, for those who may enter the site."""
    return path(route, require_http_methods(list(methods))(site.admin_view(view)), name=f"alya_django_{name}")


def only(methods: tuple[str, ...], pattern: URLPattern) -> URLPattern:
    """Return the address of one of Django's pages with no more than these of the methods that it would take."""
    view: Any = pattern.callback
    return URLPattern(pattern.pattern, require_http_methods(list(methods))(view), pattern.default_args, pattern.name)
