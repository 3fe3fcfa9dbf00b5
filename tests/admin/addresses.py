"""Every address of an admin site that is not another app's, found by walking its URLs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from django.contrib import admin
from django.urls import URLPattern, URLResolver
from django.urls.resolvers import RoutePattern

OURS = "alya_django/"
SESSIONS = {"login", "logout", "password_change", "password_change_done"}
"""Pages of Django's that are about the session of who asks, and would end it."""
CONVERTED = re.compile(r"<(?:\w+:)?(\w+)>")


@dataclass(frozen=True)
class Address:
    """
    One address, with what it is called.

    ``name`` is that of the URL, empty where it has none, and ``is_ours`` tells whether a page of Alya's answers.
    """

    path: str
    name: str
    is_ours: bool


def walk(
    arguments: Mapping[str, Mapping[str, Sequence[object]]],
    queries: Mapping[str, str],
    site: admin.AdminSite = admin.site,
    root: str = "/admin/",
) -> list[Address]:
    """
    Return the addresses of a site, with each of the arguments that they take.

    Args:
        arguments: The values of each argument, by the name of the model's pages that take it, such as ``batch``, and
            below ``""`` for the pages of no model.
        queries: What is asked for beside the path, by the names of URLs.

    Raises:
        KeyError: An address takes an argument for which there is none.
    """
    found = []
    for pattern, model in _patterns(site):
        routes = _filled(pattern, arguments[model])
        prefix = f"{OURS}{model}/" if model else ""
        name = pattern.name or ""
        query = f"?{queries[name]}" if name in queries else ""
        found += [Address(f"{root}{prefix}{route}{query}", name, bool(model)) for route in routes]
    return found


def _patterns(site: admin.AdminSite) -> Iterator[tuple[URLPattern, str]]:
    """Yield the patterns, each with the model whose pages it is among."""
    for pattern in site.get_urls():
        if isinstance(pattern, URLResolver):
            route = str(pattern.pattern)
            if route.startswith(OURS):
                yield from ((one, route.split("/")[1]) for one in _leaves(pattern))
        elif pattern.name not in SESSIONS:
            yield pattern, ""


def _leaves(resolver: URLResolver) -> Iterator[URLPattern]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            raise TypeError(f"{pattern} is below the pages of a model: walk it, too.")
        yield pattern


def _filled(pattern: URLPattern, arguments: Mapping[str, Sequence[Any]]) -> list[str]:
    if not isinstance(pattern.pattern, RoutePattern):
        (name,) = pattern.pattern.regex.groupindex
        return [str(value) for value in arguments[name]]
    form = CONVERTED.sub("{}", str(pattern.pattern))
    choices = product(*(arguments[name] for name in CONVERTED.findall(str(pattern.pattern))))
    return [form.format(*values) for values in choices]
