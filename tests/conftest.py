"""Session settings, and the fixtures that several test files share.

JAX runs on four virtual CPU devices with strict promotion, and every annotation
of the package is checked at run time.
"""

import functools
import gc
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import jaxtyping
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jaxtyping.install_import_hook("rollingq_jax", "beartype.beartype")

hypothesis.settings.register_profile(
  "rollingq", deadline=None, derandomize=True, max_examples=40, database=None
)
hypothesis.settings.load_profile("rollingq")

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
  config.golden_dir = find_golden_dir(os.environ, ROOT)
  config.addinivalue_line(
    "markers", "models(key): the golden models that have this array"
  )
  config.addinivalue_line(
    "markers",
    "golden(file, pattern, optional=False): runs the test once for each "
    "`case` that `pattern` captures in the keys of a golden file",
  )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  marker = metafunc.definition.get_closest_marker("golden")
  if marker is None or "case" not in metafunc.fixturenames:
    return
  file, pattern = marker.args
  path = metafunc.config.golden_dir / file
  optional = marker.kwargs.get("optional", False)
  keys = () if optional and not path.is_file() else load_golden(path)
  matches = [re.fullmatch(pattern, key) for key in keys]
  cases = sorted({match[1] for match in matches if match})
  # A pattern without a case would turn into a silently skipped test.
  if not cases and not optional:
    raise pytest.UsageError(f"no key of {file} matches {pattern!r}")
  metafunc.parametrize("case", cases)


def find_golden_dir(environ: Mapping[str, str], root: Path) -> Path:
  """$ROLLINGQ_GOLDEN_DIR, else ../shared/golden of root, else tests/golden."""
  if given := environ.get("ROLLINGQ_GOLDEN_DIR"):
    return Path(given)
  shared = root.parent / "shared" / "golden"
  return shared if shared.is_dir() else root / "tests" / "golden"


@functools.cache
def load_golden(path: Path) -> dict[str, np.ndarray]:
  with np.load(path, allow_pickle=False) as file:
    return dict(file)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
  """Folder of the golden files."""
  return find_golden_dir(os.environ, ROOT)


@pytest.fixture(scope="session")
def golden_dir_for() -> Callable[[Mapping[str, str], Path], Path]:
  """The rule behind `golden_dir`: (environment, repository root) -> folder."""
  return find_golden_dir


@pytest.fixture
def golden(request: pytest.FixtureRequest, golden_dir: Path) -> dict:
  """Arrays of the file that the test's `golden` marker names."""
  marker = request.node.get_closest_marker("golden")
  return load_golden(golden_dir / marker.args[0])


@pytest.fixture(scope="session")
def repo_root() -> Path:
  return ROOT


@pytest.fixture(scope="session")
def write_tensor() -> Callable[[Path, np.ndarray], Path]:
  """Writes a matrix of float32 as torch.save does."""
  program = (
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
    b"((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI%d\ntQ"
    b"I0\n(I%d\nI%d\nt(I%d\nI1\nt"
    b"I00\nccollections\nOrderedDict\n)RtR."
  )

  def write(path: Path, matrix: np.ndarray) -> Path:
    rows, columns = matrix.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
      numbers = (matrix.size, rows, columns, columns)
      file.writestr(f"{path.stem}/data.pkl", program % numbers)
      file.writestr(f"{path.stem}/data/0", matrix.astype("<f4").tobytes())
    return path

  return write


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
  """Writes seconds of a grey picture, with the sound of a waveform or none.

  The name's ending decides the format, as in flv and mp4.
  """
  av = pytest.importorskip("av")

  def pictures(stream: Any, seconds: float, level: int) -> Iterator[Any]:
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    pixels = np.full((48, 64, 3), level, np.uint8)
    for index in range(round(10 * seconds)):
      frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
      frame.pts, frame.time_base = index, Fraction(1, 10)
      yield frame

  def sound(stream: Any, waveform: np.ndarray, rate: int) -> list[Any]:
    stream.layout = "mono"
    block = stream.codec_context.frame_size or 1024
    convert = av.AudioResampler(stream.format, "mono", rate, block)
    samples = waveform.astype(np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(samples, "flt", "mono")
    frame.rate, frame.pts = rate, 0
    return [*convert.resample(frame), *convert.resample(None)]

  def write(
    path: Path,
    seconds: float = 2.0,
    level: int = 100,
    waveform: np.ndarray | None = None,
    rate: int = 16000,
  ) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
      codec = "flv" if path.suffix == ".flv" else "mpeg4"
      # The header tells of both, and is written with the first frame.
      stream = container.add_stream(codec, rate=10)
      made = [(stream, pictures(stream, seconds, level))]
      if waveform is not None:
        stream = container.add_stream("aac", rate=rate)
        made.append((stream, sound(stream, waveform, rate)))
      for stream, frames in made:
        for frame in [*frames, None]:
          container.mux(stream.encode(frame))
    return path

  return write


@pytest.fixture
def cpu_devices() -> list[jax.Device]:
  """Four virtual devices, whatever accelerator is there."""
  return jax.devices("cpu")[:4]


@pytest.fixture
def without_type_checks() -> Iterator[None]:
  """Lets bad shapes through to the package's own errors, as users meet them."""
  jaxtyping.config.update("jaxtyping_disable", True)
  yield
  jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def compilations() -> Iterator[list[str]]:
  """Grows by one entry with every compilation while the test runs."""
  seen = []

  def listen(event: str, duration: float, **unused: object) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
      seen.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield seen
  jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="session", autouse=True)
def shared_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
  """Runs of the same shape compile once for all tests."""
  folder = tmp_path_factory.mktemp("compiled")
  jax.config.update("jax_compilation_cache_dir", str(folder))
  yield
  jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="module", autouse=True)
def few_programs() -> Iterator[None]:
  """Lets go of compiled programs after each file.

  Each maps pieces of memory, of which a process may have only so many; past
  that, compiling ends in a segmentation fault.
  """
  yield
  jax.clear_caches()
  gc.collect()
