"""The service's paths."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import (
  HTMLResponse,
  JSONResponse,
  PlainTextResponse,
  Response,
)
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rollingq_jax import __version__
from rollingq_jax.predict.predictor import Predictor
from rollingq_jax.predict.service.batching import Batcher
from rollingq_jax.predict.service.metrics import (
  CONTENT_TYPE,
  Measured,
  Metrics,
)
from rollingq_jax.predict.service.options import LOCAL, Options
from rollingq_jax.predict.service.page import HEADERS, Pages
from rollingq_jax.predict.service.refusal import Refusal
from rollingq_jax.predict.service.schema import (
  PROBLEMS,
  Answer,
  Health,
  request_body,
)
from rollingq_jax.predict.service.work import Desk

PATHS = (
  *("/", "/card", "/docs", "/health", "/metrics", "/openapi.json"),
  *("/page.css", "/page.js", "/predict"),
)


def make_app(predictor: Predictor, options: Options) -> FastAPI:
  """The application; its model is compiled when this returns.

  Args:
    predictor: that answers.
    options: of the service.
  """
  metrics = Metrics()
  batcher = Batcher(
    predictor.run,
    predictor.blank(),
    predictor.batch_size,
    options.wait,
    metrics.batch_sizes.observe,
  )
  uploads = tempfile.TemporaryDirectory(prefix="rollingq-")
  desk = Desk(predictor, batcher, metrics, options, Path(uploads.name))

  @asynccontextmanager
  async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    desk.close()
    batcher.close()
    uploads.cleanup()

  app = FastAPI(
    title=f"rollingq_jax: {predictor.model.name}",
    version=__version__,
    lifespan=lifespan,
    # Those of the library are loaded from elsewhere.
    docs_url=None,
    redoc_url=None,
  )
  _add_predictions(app, desk)
  _add_facts(app, predictor, batcher, metrics)
  _add_pages(app, desk, Pages(predictor.model, options))
  app.add_exception_handler(HTTPException, _refuse)
  app.add_middleware(WithHeaders)
  hosts = [*LOCAL, "[::1]"] if options.is_local else ["*"]
  # A page of somebody else's that calls itself this machine is not heard.
  app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
  app.add_middleware(Measured, metrics=metrics, paths=PATHS)
  return app


def _add_predictions(app: FastAPI, desk: Desk) -> None:
  @app.post(
    "/predict",
    response_model=Answer,
    response_model_exclude_none=True,
    responses=PROBLEMS,
    openapi_extra=request_body(desk.files, desk.texts),
    response_description="the prediction",
    summary="What the model says of a clip",
  )
  async def predict(request: Request) -> Any:
    """One file as clip, or one of each modality, as multipart/form-data."""
    return (await desk.answer(request)).result.to_json()


def _add_facts(
  app: FastAPI, predictor: Predictor, batcher: Batcher, metrics: Metrics
) -> None:
  model = predictor.model
  facts = {
    "model": model.name,
    "modalities": list(model.modalities),
    "class_names": list(model.inputs.class_names),
  }

  @app.get(
    "/health",
    response_model=Health,
    response_description="it answers",
    responses={503: {"model": Health, "description": "it does not"}},
    summary="Whether it answers",
  )
  async def health() -> JSONResponse:
    """It does while the thread of the model lives."""
    status = "ok" if batcher.is_working else "failed"
    return JSONResponse(
      {"status": status, **facts}, 200 if batcher.is_working else 503
    )

  @app.get(
    "/metrics",
    response_class=PlainTextResponse,
    response_description="Prometheus's text format",
    summary="Counts and times for Prometheus",
  )
  async def show_metrics() -> Response:
    """Requests, seconds, clips in work, sizes of batches."""
    return Response(metrics.render(), media_type=CONTENT_TYPE)


def _add_pages(app: FastAPI, desk: Desk, pages: Pages) -> None:
  texts = {
    "/": (pages.page, "text/html"),
    "/page.css": (pages.style, "text/css"),
    "/page.js": (pages.script, "text/javascript"),
    "/docs": (lambda: pages.docs(app.openapi()), "text/html"),
  }
  for path, (make, kind) in texts.items():
    app.add_api_route(path, _shown(make, kind), include_in_schema=False)

  @app.post("/card", include_in_schema=False)
  async def card(request: Request) -> HTMLResponse:
    return HTMLResponse(pages.card(await desk.answer(request)))


def _shown(make: Any, kind: str) -> Any:
  async def show() -> Response:
    return Response(make(), media_type=kind)

  return show


async def _refuse(request: Request, error: Any) -> Response:
  return Refusal({"detail": error.detail}, error.status_code, error.headers)


class WithHeaders:
  """An application whose answers tell browsers to be careful."""

  def __init__(self, app: ASGIApp):
    self._app = app

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Serves a request."""

    async def careful(message: Message) -> None:
      if message["type"] == "http.response.start":
        headers = MutableHeaders(scope=message)
        for name, value in HEADERS.items():
          headers[name] = value
      await send(message)

    await self._app(scope, receive, careful)
