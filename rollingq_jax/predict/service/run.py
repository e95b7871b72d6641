"""Starts a service and says where it is."""

import argparse
import socket
import sys

from rollingq_jax.errors import UserError, install_line
from rollingq_jax.predict.predictor import Predictor
from rollingq_jax.predict.service.options import Options


def serve(predictor: Predictor, args: argparse.Namespace) -> int:
  """Serves until it is interrupted; returns the exit status.

  Raises:
    UserError: packages are missing, or the port is taken.
  """
  try:
    import uvicorn

    from rollingq_jax.predict.service.app import make_app
    from rollingq_jax.predict.service.protocol import impatient
  except ImportError as error:
    raise UserError(
      f"a service needs more packages ({error.name}); install them with: "
      f"{install_line('serve')}"
    ) from error
  options = Options(
    host=args.host,
    port=args.port,
    wait=args.wait_ms / 1e3,
    max_requests=args.max_requests,
    max_bytes=int(args.max_mb * 1e6),
    upload_time=args.upload_seconds,
    idle_time=args.idle_seconds,
  )
  listener = listen(options)
  print("compiling", file=sys.stderr, flush=True)
  app = make_app(predictor, options)
  config = uvicorn.Config(
    app,
    http=impatient(options.idle_time),
    ws="none",
    log_level="warning",
    server_header=False,
    # Who asks is not written down.
    access_log=False,
    timeout_graceful_shutdown=10,
  )
  host, port, *_ = listener.getsockname()
  name = f"[{host}]" if ":" in host else host
  print(f"serving {predictor.model.name} at http://{name}:{port}/", flush=True)
  uvicorn.Server(config).run(sockets=[listener])
  return 0


def listen(options: Options) -> socket.socket:
  """The socket, before anything takes time."""
  try:
    family, *_, address = socket.getaddrinfo(
      options.host,
      options.port,
      type=socket.SOCK_STREAM,
      flags=socket.AI_PASSIVE,
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
  except OSError as error:
    raise UserError(
      f"--host {options.host} --port {options.port} cannot be listened on: "
      f"{error.strerror}; choose another, or --port 0"
    ) from error
  listener.listen(128)
  return listener
