"""Everything about access that one running app owns."""

import logging
import sys
from datetime import timedelta

from service.access.browser import LOOPBACK
from service.access.callers import Caller, Callers
from service.access.principal import ANYBODY, Principal
from service.access.rates import Rates
from service.access.signin import SignIn
from service.db.repository import keys
from service.db.session import Database
from service.errors import InspectionError, StartupError
from service.settings import Settings

log = logging.getLogger(__name__)
_BURST_S = 2.0
_GREETING = """\
inlier-service: nobody can sign in yet. This token makes the first admin, at /signin or as an API key.
inlier-service: It is shown once and ends with the first admin, at the latest in 24 hours:
{token}
"""
_SCRAPER = Principal("anybody", "camera", "system")


class Access:
    """Callers, sign-ins, and how often each may ask."""

    def __init__(self, database: Database, settings: Settings) -> None:
        if settings.auth == "off" and settings.host not in LOOPBACK:
            raise StartupError(
                "--auth off is for the loopback address; leave it out, or use --host 127.0.0.1"
            )
        self._settings = settings
        self.callers = Callers(database, timedelta(minutes=settings.session_idle_minutes))
        self.signin = SignIn(database, timedelta(hours=settings.session_hours))
        self._requests = Rates(settings.rate_limit_per_s, _BURST_S * settings.rate_limit_per_s)
        failures, signins = settings.failures_per_minute, settings.signins_per_minute
        self._failures = Rates(failures / 60, failures)
        self._signins = Rates(signins / 60, signins)

    def greet(self, database: Database) -> None:
        """Tell the person at the terminal how to get in: the token for the first admin, printed once."""
        if self._settings.auth == "off":
            log.warning("auth is off: whoever reaches this port may do everything")
            return
        with database.write() as session:
            token = keys.first_start(session)
        if token is not None:
            sys.stderr.write(_GREETING.format(token=token))
            sys.stderr.flush()

    async def close(self) -> None:
        await self.callers.close()

    def anybody(self, path: str) -> Caller | None:
        """The caller that needs no credentials, where the settings allow one."""
        if self._settings.auth == "off":
            return Caller(ANYBODY, "")
        if path == "/metrics" and self._settings.public_metrics:
            return Caller(_SCRAPER, "")
        return None

    def count(self, caller: str, quiet: bool = False) -> None:
        """429 when the caller asks too often."""
        if not quiet and (wait_s := self._requests.take(caller)):
            raise _too_many("requests", wait_s)

    def count_failure(self, address: str) -> None:
        """429 when an address sends too many requests without a valid key."""
        if wait_s := self._failures.take(address):
            raise _too_many("requests without a valid key", wait_s)

    def count_sign_in(self, address: str) -> None:
        """429 when an address tries too many passwords."""
        if wait_s := self._signins.take(address):
            raise _too_many("sign-ins", wait_s)


def _too_many(what: str, wait_s: float) -> InspectionError:
    return InspectionError(
        429, "too-many-requests", f"too many {what}; wait and try again", retry_after_s=wait_s
    )
