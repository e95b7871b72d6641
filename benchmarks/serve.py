"""A service under load: latency and throughput, with batching and without.

    python -m benchmarks.serve

The model is that of configs/manifest.py at its full size, untrained: a clip
takes as long whatever the weights are. The service runs in a process of its
own; clients upload a recording of 2 s and a picture of 320 x 240 over loopback,
each its next one when it has its answer. What is measured is what a client
sees: upload, decoding, the wait for a batch, the model, the answer.
"""

import argparse
import http.client
import io
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import Row, format_markdown

CLIENTS = (1, 4, 16)
# Largest batches: one by one, and together.
BATCH_SIZES = (1, 16)
_BOUNDARY = "edge"


def main() -> None:
  """Measures and prints a table, or serves."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument("--requests", type=int, default=400, help="a cell")
  parser.add_argument("--serve", type=int, metavar="BATCH_SIZE", help=(
    "serve, as the measuring process has it done"
  ))  # fmt: skip
  args = parser.parse_args()
  if args.serve:
    _serve(args.serve)
    return
  rows = [row for x in BATCH_SIZES for row in _measure_all(x, args.requests)]
  print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")
  print(format_markdown(rows))


def make_model() -> Any:
  """The model of configs/manifest.py for ten classes, as it is born."""
  import jax
  import jax.numpy as jnp

  from rollingq_jax.config import load_config
  from rollingq_jax.data.inputs import ArraySpec, Inputs
  from rollingq_jax.data.prepare.media import Recipe
  from rollingq_jax.models import build_model
  from rollingq_jax.predict.load import Model, abstract_batch

  config: Any = load_config("configs/manifest.py")
  config.num_classes, config.task = 10, "classification"
  inputs = Inputs(
    tuple(map(str, range(10))),
    {
      "audio": ArraySpec(tuple(config.data.shapes.audio), "float32"),
      "visual": ArraySpec(tuple(config.data.shapes.visual), "uint8"),
    },
    Recipe(),
  )
  model = build_model(config)
  batch = {
    name: jnp.ones(x.shape, x.dtype)
    for name, x in abstract_batch(config, inputs).items()
  }
  variables = jax.jit(model.init)(jax.random.key(0), batch)
  return Model("full size", config, model, variables, inputs)


def _serve(batch_size: int) -> None:
  import uvicorn

  from rollingq_jax.predict.predictor import Predictor
  from rollingq_jax.predict.service.app import make_app
  from rollingq_jax.predict.service.options import Options
  from rollingq_jax.predict.service.protocol import impatient
  from rollingq_jax.predict.service.run import listen

  options = Options(port=0)
  listener = listen(options)
  app = make_app(Predictor(make_model(), batch_size), options)
  print(listener.getsockname()[1], flush=True)
  config = uvicorn.Config(
    app, http=impatient(options.idle_time), log_level="warning"
  )
  uvicorn.Server(config).run(sockets=[listener])


def _measure_all(batch_size: int, requests: int) -> list[Row]:
  """A row for each number of clients."""
  command = [sys.executable, "-m", "benchmarks.serve", "--serve"]
  with subprocess.Popen(
    [*command, str(batch_size)], stdout=subprocess.PIPE, text=True
  ) as process:
    assert process.stdout is not None
    port = int(process.stdout.readline())
    try:
      _measure(port, 4, 40)
      return [
        {"clips_at_once": batch_size, "clients": clients}
        | _measure(port, clients, requests)
        for clients in CLIENTS
      ]
    finally:
      process.terminate()


def _measure(port: int, clients: int, requests: int) -> Row:
  """Latency in milliseconds and clips a second."""
  body, before = make_form(), _batches(port)
  seconds: list[float] = []

  def run(count: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(count):
      seconds.append(_ask(connection, body))

  share = requests // clients
  threads = [
    threading.Thread(target=run, args=(share,)) for _ in range(clients)
  ]
  start = time.perf_counter()
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  total = time.perf_counter() - start
  if len(seconds) != share * clients:
    raise SystemExit(f"{share * clients - len(seconds)} requests were lost")
  cuts = statistics.quantiles(seconds, n=100)
  return {
    "p50_ms": 1e3 * cuts[49],
    "p99_ms": 1e3 * cuts[98],
    "clips_a_second": len(seconds) / total,
    "clips_a_batch": len(seconds) / (_batches(port) - before),
  }


def _ask(connection: http.client.HTTPConnection, body: bytes) -> float:
  """Seconds that a request takes."""
  kind = f"multipart/form-data; boundary={_BOUNDARY}"
  start = time.perf_counter()
  connection.request("POST", "/predict", body, {"content-type": kind})
  answer = connection.getresponse()
  content = answer.read()
  if answer.status != 200:
    raise SystemExit(f"the service answered {answer.status}: {content!r}")
  return time.perf_counter() - start


def _batches(port: int) -> float:
  """How many batches there have been."""
  connection = http.client.HTTPConnection("127.0.0.1", port)
  connection.request("GET", "/metrics")
  text = connection.getresponse().read().decode()
  name = "rollingq_batch_size_count "
  (line,) = [x for x in text.splitlines() if x.startswith(name)]
  return float(line.removeprefix(name))


def make_form() -> bytes:
  """A recording and a picture, as a browser uploads them."""
  import soundfile
  from PIL import Image

  rng = np.random.default_rng(0)
  sound, picture = io.BytesIO(), io.BytesIO()
  wave = 0.1 * rng.standard_normal(32000)
  soundfile.write(sound, wave, 16000, format="WAV")
  pixels = rng.integers(0, 256, (15, 20, 3)).astype(np.uint8)
  Image.fromarray(pixels).resize((320, 240)).save(picture, "JPEG")
  parts = []
  for name, file in (("audio", sound), ("visual", picture)):
    head = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"'
    parts.append(f'{head}; filename="{name}"\r\n\r\n'.encode())
    parts.append(file.getvalue() + b"\r\n")
  return b"".join([*parts, f"--{_BOUNDARY}--\r\n".encode()])


if __name__ == "__main__":
  os.chdir(Path(__file__).resolve().parent.parent)
  main()
