"""Messages by HTTP POST, signed; nothing of the answer but its status is used."""

import asyncio
import ssl
import time

import httpx

from service.outbox.addresses import resolve
from service.outbox.allow import AllowList
from service.outbox.message import CONTENT_TYPE, DeliveryError, Message, sign

_CONNECT_S = 5.0
_MAX_ADDRESSES = 4
_MAX_ANSWER_BYTES = 16 * 1024
_LATER = {429, 502, 503, 504}  # nobody looked at the message
_TRANSIENT = {408, 425}
_ERROR = 400
_SERVER_ERROR = 500
_MAX_RETRY_AFTER_S = 3600.0


class WebhookSender:
    """Posts to one address; connections are kept for the next message."""

    def __init__(
        self, url: str, secret: str, allow: AllowList, timeout_s: float, tls: ssl.SSLContext
    ) -> None:
        self._url = httpx.URL(url)
        self._secret = secret
        self._allow = allow
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            # No proxy from the environment: the address that was checked is the one that is connected to.
            trust_env=False,
            verify=tls,
            follow_redirects=False,
            timeout=httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
        )

    async def send(self, message: Message) -> None:
        """DeliveryError unless the receiver answers 2xx in time."""
        try:
            async with asyncio.timeout(self._timeout_s):
                status, retry_after_s = await self._post(message)
        except TimeoutError:
            raise DeliveryError(f"no answer within {self._timeout_s:g} s") from None
        except httpx.TransportError as error:
            raise DeliveryError(f"the connection failed: {error or type(error).__name__}") from None
        if 200 <= status < 300:
            return
        if status in _LATER:
            raise DeliveryError(f"answered {status}", unreachable=True, retry_after_s=retry_after_s)
        if 300 <= status < _ERROR:
            raise DeliveryError(f"answered {status}; redirects are not followed, register the final address")
        raise DeliveryError(f"answered {status}", rest=status >= _SERVER_ERROR or status in _TRANSIENT)

    async def close(self) -> None:
        await self._client.aclose()

    async def _post(self, message: Message) -> tuple[int, float | None]:
        """Status, and the pause the receiver asks for; tries its addresses in turn until one connects."""
        host, last = self._url.host, ""
        port = self._url.port or (443 if self._url.scheme == "https" else 80)
        for address in (await resolve(self._allow, host, port))[:_MAX_ADDRESSES]:
            try:
                return await self._post_to(address, message)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                last = str(error) or "timeout"
        raise DeliveryError(f"cannot connect to {host}:{port}: {last}", unreachable=True)

    async def _post_to(self, address: str, message: Message) -> tuple[int, float | None]:
        timestamp = int(time.time())
        headers = {
            "Host": self._url.netloc.decode(),
            "Content-Type": CONTENT_TYPE,
            "User-Agent": "inlier-service",
            "webhook-id": message.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self._secret, message.id, timestamp, message.body),
        }
        request = self._client.build_request(
            "POST",
            self._url.copy_with(host=address),
            content=message.body,
            headers=headers,
            # The certificate must be that of the name, although the connection goes to the address.
            extensions={"sni_hostname": self._url.host},
        )
        response = await self._client.send(request, stream=True)
        try:
            seen = 0
            async for chunk in response.aiter_raw():  # read to keep the connection, within bounds
                seen += len(chunk)
                if seen > _MAX_ANSWER_BYTES:
                    break
        finally:
            await response.aclose()
            self._client.cookies.clear()
        return response.status_code, _seconds(response.headers.get("retry-after", ""))


def _seconds(header: str) -> float | None:
    return min(float(header), _MAX_RETRY_AFTER_S) if header.isascii() and header.isdigit() else None
