"""Session settings, and the fixtures that several test files share.

JAX runs on four virtual CPU devices, or JAX_NUM_CPU_DEVICES, with strict
promotion, and every annotation of the package is checked at run time.
"""

import functools
import gc
import gzip
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import fsspec
import hypothesis
import jax
import jaxtyping
import numpy as np
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

# Not by the environment, which processes that tests start would have too.
num_devices = int(os.environ.get("JAX_NUM_CPU_DEVICES", "4"))
jax.config.update("jax_num_cpu_devices", num_devices)
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


@pytest.fixture(scope="session")
def write_idx() -> Callable[..., Path]:
  """Writes unsigned bytes as an idx file, gzipped where the name says so."""

  def write(path: Path, values: np.ndarray) -> Path:
    header = bytes([0, 0, 8, values.ndim])
    shape = np.asarray(values.shape, ">i4").tobytes()
    content = header + shape + values.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
      gzip.compress(content) if path.suffix == ".gz" else content
    )
    return path

  return write


@pytest.fixture(scope="session")
def write_media(write_idx: Callable[..., Path]) -> Callable[..., Path]:
  """Writes recordings and images of digits 3 and 7 that tell who they are.

  Recording i lasts i + 1 frames; pixel [0, 2] of image i is i. Pixels [0, 0]
  and [0, 1] are 0 and 255 in every image.
  """

  def write(
    root: Path,
    speakers: int = 6,
    takes: int = 2,
    images: int = 12,
    suffix: str = "",
    digits: tuple[int, int] = (3, 7),
  ) -> Path:
    soundfile = pytest.importorskip("soundfile")
    pytest.importorskip("kaldi_native_fbank")
    rng = np.random.default_rng(0)
    folder = root / "recordings"
    folder.mkdir(parents=True)
    for speaker in range(speakers):
      for take in range(takes):
        for place, digit in enumerate(digits):
          frames = 1 + place + 2 * (take + takes * speaker)
          # 10 ms at 8 kHz.
          wave = 0.1 * rng.standard_normal(80 * frames)
          name = f"{digit}_{chr(ord('a') + speaker) * 3}_{take}.wav"
          soundfile.write(folder / name, wave, 8000)
    pixels = rng.integers(0, 256, (images, 28, 28))
    pixels[:, 0, :3] = np.stack(
      [np.zeros(images), np.full(images, 255), np.arange(images)], axis=1
    )
    labels = np.resize([3, 7], images)
    write_idx(root / "mnist" / f"train-images-idx3-ubyte{suffix}", pixels)
    write_idx(root / "mnist" / f"train-labels-idx1-ubyte{suffix}", labels)
    return root

  return write


@pytest.fixture(scope="session")
def small_copy() -> Callable[[str], tuple[str, dict[str, np.ndarray]]]:
  """(data set) -> name and arrays of a file like it, whose classes show."""
  makers = {
    "cremad_votes": ("human_votes.npz", _votes),
    "mfeat": ("mfeat.npz", _views),
    "mmmo": ("mmmo.npz", _reviews),
  }

  def make(name: str) -> tuple[str, dict[str, np.ndarray]]:
    file, maker = makers[name]
    return file, maker(np.random.default_rng(0))

  return make


def _votes(rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Ten actors with 24 clips each, of which every fifth one is in test."""
  row = np.arange(240)
  label = row % 6
  arrays = {
    "name": np.array([f"clip{i}" for i in row]),
    "label": label.astype(np.int8),
    "split": (row % 5 == 0).astype(np.int8),
    "actor": (1001 + row // 24).astype(np.int16),
  }
  for modality, clear in (("voice", 0.3), ("face", 0.6)):
    chances = clear * np.eye(6)[label] + (1 - clear) / 6
    votes = rng.multinomial(9, chances)
    levels = np.where(votes > 0, rng.uniform(20, 90, votes.shape), np.nan)
    arrays[f"{modality}_votes"] = votes.astype(np.int16)
    arrays[f"{modality}_levels"] = levels.astype(np.float32)
  return arrays


def _views(rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Twenty of each digit, in their order; each view has a constant feature."""
  label = np.repeat(np.arange(10), 20)
  widths = {"fac": 216, "fou": 76, "kar": 64, "mor": 6, "pix": 240, "zer": 47}
  views = {}
  for name, width in widths.items():
    centres = rng.uniform(2, 4, (10, width))
    views[name] = centres[label] + 0.3 * rng.standard_normal((200, width))
    views[name][:, 1] = 2.5
  return {
    "label": label.astype(np.int8),
    **{name: x.astype(np.float32) for name, x in views.items()},
    "pix": views["pix"].astype(np.uint8),
    "fac": (100 * views["fac"]).astype(np.uint16),
  }


def _reviews(rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Reviews of up to five steps; those before the first one are 0."""
  arrays = {}
  for split, count in (("train", 40), ("valid", 12), ("test", 16)):
    y = rng.permutation(np.resize([1, 2.5, 3, 3.5, 4, 5], count))
    missing = rng.integers(0, 4, count)
    real = np.arange(5) >= missing[:, None]
    for name, width in (("audio", 74), ("video", 36)):
      signal = 0.3 * (y - 3)[:, None, None]
      x = signal + rng.standard_normal((count, 5, width))
      # A constant, and a tracker that fails now and then.
      x[..., 1] = 2.5
      x[0, -1, 2] = -255
      arrays[f"{name}_{split}"] = (x * real[..., None]).astype(np.float32)
    arrays[f"y_{split}"] = y.astype(np.float32)
  return arrays


class Bucket(DirFileSystem):
  """What gcsfs would be, in a folder of this machine."""

  protocol = ("gcs", "gs")
  cachable = False
  folder = ""

  def __init__(self, **unused: object):
    super().__init__(self.folder, LocalFileSystem(auto_mkdir=True))

  @classmethod
  def _strip_protocol(cls, path: str) -> str:
    return path.removeprefix("gs://").rstrip("/")


@pytest.fixture
def bucket(monkeypatch, tmp_path):
  """An empty gs://bucket, and a cache of this test's own."""
  monkeypatch.setattr(Bucket, "folder", str(tmp_path / "buckets"))
  (tmp_path / "buckets").mkdir()
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  filesystems = backend.fsspec_backend._get_filesystem
  filesystems.cache_clear()
  fsspec.register_implementation("gcs", Bucket, clobber=True)
  yield epath.Path("gs://bucket")
  filesystems.cache_clear()
  fsspec.register_implementation("gcs", "gcsfs.GCSFileSystem", clobber=True)


@pytest.fixture(scope="session")
def every_token() -> Callable[[Any], Any]:
  """(model) -> the same, computing also tokens that its fusion never reads."""

  def whole(model: Any) -> Any:
    encoders = {name: every(x) for name, x in model.encoders.items()}
    return model.clone(encoders=encoders)

  def every(encoder: Any) -> Any:
    if not hasattr(encoder, "transformer"):
      return encoder
    transformer = encoder.transformer.clone(class_token_only=False)
    return encoder.clone(transformer=transformer)

  return whole


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
  """A browser without a window; skips where none is installed."""
  playwright = pytest.importorskip("playwright.sync_api")
  names = ("chromium", "chromium-browser", "google-chrome")
  found = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, names)), None
  )
  if found is None:
    pytest.skip("no Chromium; apt-get install chromium, or set CHROMIUM")
  with playwright.sync_playwright() as driver:
    options = {"executable_path": found, "args": ["--no-sandbox"]}
    browser = driver.chromium.launch(**options)
    yield browser
    browser.close()


@pytest.fixture
def cpu_devices() -> list[jax.Device]:
  """Four virtual devices, whatever accelerator is there."""
  return jax.devices("cpu")[:4]


@pytest.fixture
def all_devices() -> list[jax.Device]:
  """As many virtual devices as there are, an even number."""
  return jax.devices("cpu")


@pytest.fixture
def without_type_checks() -> Iterator[None]:
  """Lets bad shapes through to the package's own errors, as users meet them."""
  jaxtyping.config.update("jaxtyping_disable", True)
  yield
  jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def quickly_compiled() -> Iterator[None]:
  """What runs a few times is not worth optimising."""
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


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
