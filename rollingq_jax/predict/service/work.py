"""From an upload to what is said of it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request

from rollingq_jax.errors import UserError
from rollingq_jax.predict.contents import kind_of
from rollingq_jax.predict.items import Item, item_of
from rollingq_jax.predict.predictor import Predictor
from rollingq_jax.predict.result import Result
from rollingq_jax.predict.samples import Sample
from rollingq_jax.predict.service.batching import Batcher, Row
from rollingq_jax.predict.service.metrics import Metrics
from rollingq_jax.predict.service.options import Options
from rollingq_jax.predict.service.upload import Upload, receive

# Field of a clip that is one file.
CLIP = "clip"
# Endings that the readers of files go by.
_ENDINGS = {"frames": ".png", "array": ".npy", "features": ".npz"}


class Answered(NamedTuple):
  """A clip's result, and what it was made of."""

  result: Result
  sample: Sample
  row: Row


class Desk:
  """Where requests are taken in and answered.

  Args:
    predictor: that answers.
    batcher: that runs its model.
    metrics: that count what is in work.
    options: limits.
    folder: for uploads; each has a folder in it, which goes with it.
  """

  def __init__(
    self,
    predictor: Predictor,
    batcher: Batcher,
    metrics: Metrics,
    options: Options,
    folder: Path,
  ):
    self._predictor, self._batcher, self._metrics = predictor, batcher, metrics
    self._options, self._folder = options, folder
    self._readers = ThreadPoolExecutor(4, thread_name_prefix="reader")
    self._count = 0
    names = predictor.model.modalities
    self.files = [CLIP, *(x for x in ("audio", "visual") if x in names)]
    self.texts = ["text"] if "text" in names else []

  def close(self) -> None:
    """Ends the threads."""
    self._readers.shutdown()

  async def answer(self, request: Request) -> Answered:
    """What is said of the clip that a request uploads.

    Raises:
      HTTPException: why nothing is.
    """
    async with self._place(), self._own_folder() as folder:
      upload = await receive(
        request, folder, self.files, self.texts, self._options
      )
      read = lambda: self._read(upload, folder)  # noqa: E731
      sample = await _to_end(self._readers, read)
      return await self._predict(sample)

  @asynccontextmanager
  async def _place(self) -> AsyncIterator[None]:
    """Sends away whom there is no room for."""
    if self._count >= self._options.max_requests:
      raise HTTPException(
        503,
        f"{self._count} clips are in work; try again",
        headers={"retry-after": "1"},
      )
    self._count += 1
    self._metrics.in_work.inc()
    try:
      yield
    finally:
      self._count -= 1
      self._metrics.in_work.dec()

  @asynccontextmanager
  async def _own_folder(self) -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(dir=self._folder) as folder:
      yield Path(folder)

  def _read(self, upload: Upload, folder: Path) -> Sample:
    try:
      item = _item(upload)
    except UserError as error:
      raise _refused(str(error), folder) from error
    found = self._predictor.read(item)
    if isinstance(found, Result):
      raise _refused(found.error or "", folder)
    return found

  async def _predict(self, sample: Sample) -> Answered:
    future = asyncio.wrap_future(self._batcher.submit(sample))
    try:
      async with asyncio.timeout(self._options.answer_time):
        row = await future
    except TimeoutError as error:
      raise HTTPException(
        503, "the model is too busy; try again", headers={"retry-after": "5"}
      ) from error
    result = self._predictor.result(CLIP, sample, row.output, row.row)
    return Answered(result, sample, row)


async def _to_end(pool: ThreadPoolExecutor, function: Callable[[], Any]) -> Any:
  """Waits for a thread even where the client does not.

  The files that it reads must not go before it has.
  """
  task: Awaitable[Any] = asyncio.get_running_loop().run_in_executor(
    pool, function
  )
  try:
    return await asyncio.shield(task)
  except asyncio.CancelledError:
    await asyncio.wait([task])
    raise


def _item(upload: Upload) -> Item:
  """The clip that the fields of a form are.

  Raises:
    UserError: no field, too many, or a file of an unknown kind.
  """
  files = {name: _with_ending(path) for name, path in upload.files.items()}
  clip = files.pop(CLIP, None)
  if clip is None:
    audio, visual = files.get("audio"), files.get("visual")
    return item_of(CLIP, audio, visual, upload.texts.get("text"))
  if files or upload.texts:
    raise UserError(
      f"{CLIP} is a whole clip; send it alone, or each modality in a field "
      "of its own"
    )
  return Item(CLIP, (clip,))


def _with_ending(path: Path) -> Path:
  """The file under an ending that its content has; the name has no say."""
  ending = _ENDINGS.get(kind_of(path), "")
  return path.rename(path.with_suffix(ending)) if ending else path


def _refused(reason: str, folder: Path) -> HTTPException:
  """The reason without the server's own paths."""
  return HTTPException(422, reason.replace(f"{folder}/", ""))
