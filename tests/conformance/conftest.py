"""One server for all tests of a run, and one process for each SDK."""

from collections.abc import Iterator

import pytest

from tests.conformance import sdk as sdks
from tests.conformance.air import Air
from tests.conformance.sdk import Sdk
from tests.conformance.site import Site, Tenant


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server with its network, certificate and accounts."""
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.close()


@pytest.fixture(scope="session")
def air(site: Site) -> Iterator[Air]:
    """Its simulated phones."""
    air = Air(site.network.prefix, site.server.port)
    yield air
    air.close()


@pytest.fixture(scope="session", params=list(sdks.COMMANDS))
def sdk_name(request: pytest.FixtureRequest) -> str:
    """Each SDK in turn."""
    reason = sdks.missing(request.param)
    if reason:
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture
def tenant(site: Site) -> Tenant:
    """An account that no other test uses, with two numbers."""
    return site.tenant()


@pytest.fixture
def sdk(site: Site, tenant: Tenant, sdk_name: str) -> Sdk:
    """A client of one SDK, logged in as the tenant."""
    return Sdk(site.program(sdk_name), tenant.login)


@pytest.fixture
def site_tenant(site: Site) -> Tenant:
    """Another account."""
    return site.tenant()
