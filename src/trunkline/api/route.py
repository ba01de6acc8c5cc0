"""What a resource file declares: its routes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from trunkline.api.request import Request
from trunkline.api.respond import Response

Handler = Callable[[Request, Any], Awaitable[Response]]
"""`async def handler(request, app) -> Response`; `app` is the `Services` that the API was built with."""

METHODS = frozenset({"GET", "POST", "DELETE", "PUT"})


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `product` is the first label of Twilio's host (`api`, `messaging`, `lookups`, `monitor`).

    `template` is the path with its version and `{Names}`, without a format suffix, e.g.
    `/2010-04-01/Accounts/{AccountSid}/Messages/{Sid}`. HEAD comes with GET.
    """

    product: str
    method: str
    template: str
    handler: Handler
    test_credentials: bool = False
    """Whether the handler knows test credentials (`request.principal.is_test`); else they get 20008."""
    public: Callable[[str], bool] | None = None
    """Tells the paths that are served without a login where the operator allows it; then there is no
    `request.principal`."""

    def __post_init__(self) -> None:
        if self.method not in METHODS or not self.template.startswith("/"):
            raise ValueError(f"no route: {self.method} {self.template}")
