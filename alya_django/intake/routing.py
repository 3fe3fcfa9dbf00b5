"""Where the rows of one file go: to the only route that it may take, or to the one that its checker says."""

from __future__ import annotations

from collections.abc import Sequence

from alya_django.checkers import BadFile, Route


class Routing:
    """The routes that a file may take, and the one that it takes; ``route`` is None until that is known."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes
        self._is_said = False
        self.route: Route | None = routes[0] if len(routes) == 1 else None

    def say(self, route: Route) -> None:
        """Take what the checker says; raise BadFile if it says it twice, or it is none that the file may take."""
        if self._is_said:
            raise BadFile("Its checker says twice where the file goes.")
        if route not in self._routes:
            raise BadFile(f"Its checker says that the file goes to {route}; it may go to {self._words()}.")
        self._is_said, self.route = True, route

    def settled(self) -> Route:
        """Return where the rows go; raise BadFile if the checker has not said it."""
        if self.route is None:
            raise BadFile(f"Its checker does not say before the first row where the file goes: {self._words()}.")
        return self.route

    def _words(self) -> str:
        return " or ".join(map(str, self._routes))
