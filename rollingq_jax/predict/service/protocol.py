"""HTTP for clients that may never finish their request's head."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_LATE = b"the head of the request did not come in time"
_ANSWER = (
  b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n"
  b"content-type: text/plain\r\ncontent-length: %d\r\n\r\n%s"
) % (len(_LATE), _LATE)


def impatient(seconds: float) -> type[H11Protocol]:
  """A protocol that answers 408 where a head takes longer than this."""

  class Impatient(H11Protocol):
    """Uvicorn waits for ever."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
      super().connection_made(transport)
      self._wait()

    def data_received(self, data: bytes) -> None:
      super().data_received(data)
      # Idle: neither a whole head nor, between two requests, anything at all.
      if self.conn.their_state is h11.IDLE:
        self._wait()
      else:
        self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
      self._stop()
      super().connection_lost(exc)

    def _wait(self) -> None:
      if self._timer is None:
        self._timer = self.loop.call_later(seconds, self._give_up)

    def _stop(self) -> None:
      if self._timer is not None:
        self._timer.cancel()
        self._timer = None

    def _give_up(self) -> None:
      if not self.transport.is_closing():
        self.transport.write(_ANSWER)
        self.transport.close()

  return Impatient
