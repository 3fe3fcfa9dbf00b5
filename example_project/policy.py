"""The content security policy of SECURE_CSP before Django 6, which has a middleware for it."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse


def enforce(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Send the policy with every answer."""

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        policy = "; ".join(f"{name} {' '.join(sources)}" for name, sources in settings.SECURE_CSP.items())
        response["Content-Security-Policy"] = policy
        return response

    return answer
