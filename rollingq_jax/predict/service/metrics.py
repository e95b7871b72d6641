"""Counts and times, as Prometheus reads them."""

import time
from collections.abc import Collection

from prometheus_client import (
  CollectorRegistry,
  Counter,
  Gauge,
  Histogram,
  generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
  """Those of one service."""

  def __init__(self) -> None:
    self._registry = registry = CollectorRegistry()
    self.requests = Counter(
      "rollingq_requests",
      "Answered requests.",
      ("path", "status"),
      registry=registry,
    )
    self.seconds = Histogram(
      "rollingq_request_seconds",
      "From a request's head to its answer.",
      ("path",),
      buckets=_SECONDS,
      registry=registry,
    )
    self.in_work = Gauge(
      "rollingq_requests_in_work",
      "Clips that are uploaded, read or predicted.",
      registry=registry,
    )
    self.batch_sizes = Histogram(
      "rollingq_batch_size",
      "Clips that the model saw at once.",
      buckets=_SIZES,
      registry=registry,
    )

  def render(self) -> bytes:
    """The text that Prometheus reads."""
    return generate_latest(self._registry)


class Measured:
  """An application whose requests are counted.

  Args:
    app: the application.
    metrics: that count them.
    paths: that are told apart; all others are one.
  """

  def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]):
    self._app, self._metrics, self._paths = app, metrics, paths

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Serves a request."""
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    path = scope["path"] if scope["path"] in self._paths else "other"
    start = time.perf_counter()

    async def watched(message: Message) -> None:
      if message["type"] == "http.response.start":
        seconds = time.perf_counter() - start
        self._metrics.requests.labels(path, str(message["status"])).inc()
        self._metrics.seconds.labels(path).observe(seconds)
      await send(message)

    await self._app(scope, receive, watched)
