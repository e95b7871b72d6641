"""Session settings, and the fixtures that several test files share.

JAX runs on four virtual CPU devices, or JAX_NUM_CPU_DEVICES, with strict
promotion, and every annotation of the package is checked at run time.
"""

import functools
import gc
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
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

# Fixtures of one kind that many tests share.
pytest_plugins = ("tests.made_data",)

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


@pytest.fixture(scope="session")
def train_run(repo_root: Path) -> Callable[..., Path]:
  """(config, fields, folder): trains to the end, returns the folder."""
  from rollingq_jax.config import load_config, save_config
  from rollingq_jax.data.vocabulary import pin_tokenizer
  from rollingq_jax.training import train_and_evaluate
  from rollingq_jax.training.preemption import StopRequest

  def train(spec: str, fields: Mapping[str, str], folder: Path) -> Path:
    options = [f"--config.{name}={value}" for name, value in fields.items()]
    config = load_config(f"{repo_root}/configs/{spec}", options)
    pin_tokenizer(config)
    save_config(config, folder)
    assert train_and_evaluate(config, folder, StopRequest())
    return folder

  return train


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
