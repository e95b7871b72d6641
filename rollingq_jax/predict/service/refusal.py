"""Answers to requests that were not read to their end."""

import asyncio

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

# That a client may go on sending after it was refused.
_LINGER = 2.0


class Refusal(JSONResponse):
  """An answer that arrives although the client is still sending.

  A socket that is closed with bytes unread loses what was written to it, so
  what comes is thrown away for a moment.
  """

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends all of the answer, then hears the client out."""
    self.headers["connection"] = "close"
    await send(
      {
        "type": "http.response.start",
        "status": self.status_code,
        "headers": self.raw_headers,
      }
    )
    body = bytes(self.body)
    await send({"type": "http.response.body", "body": body, "more_body": True})
    try:
      async with asyncio.timeout(_LINGER):
        while (await receive()).get("more_body", False):
          pass
    except TimeoutError:
      pass
    await send({"type": "http.response.body", "body": b""})
