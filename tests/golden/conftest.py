"""The authors' models rebuilt from golden files, whatever sizes these have."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

FILES = (
  "mt_cremad",
  "mt_ks",
  "base_concat",
  "base_sum",
  "uni_a",
  "uni_v",
  "mbt",
)
CONFIGS = {"CREMAD": "cremad", "KineticSound": "ks"}
UNIMODAL = {"uni_A": "audio", "uni_V": "visual"}


def draws(spec: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Inputs that are not stored, by the README's recipe."""
  rng = np.random.RandomState(spec["seed"])
  values = {}
  for draw in spec["draws"]:
    if draw["kind"] == "standard_normal":
      value = rng.standard_normal(draw["shape"]).astype(np.float32)
    else:
      value = rng.randint(draw["low"], draw["high"], size=draw["shape"])
    values[draw["name"]] = value
  return values


def batch_of(audio: np.ndarray, video: np.ndarray, label: np.ndarray) -> dict:
  """Our batch; theirs has audio [b, (1,) time, freq], video [b, c, t, h, w]."""
  return {
    "audio": jnp.asarray(audio.reshape(-1, *audio.shape[-2:])),
    "visual": jnp.asarray(video.transpose(0, 2, 3, 4, 1)),
    "label": jnp.asarray(label, jnp.int32),
    "mask": jnp.ones(len(label), bool),
  }


def fusion_heads(weights: Mapping[str, np.ndarray]) -> int:
  """Heads of the fusion, each as wide as the tokens."""
  kernel = weights.get("fusion_module.attn.w_qs.weight", np.eye(1))
  return kernel.shape[0] // kernel.shape[1]


def reference_config(root: Path, sizes: Mapping[str, Any], **fields: Any):
  """Config in the reference protocol of a model with these sizes."""
  from rollingq_jax.config import load_config

  fusion = sizes["fusion_method"]
  variant = f"protocol=reference,fusion={fusion}"
  if fusion in UNIMODAL:
    variant = (
      f"protocol=reference,fusion=unimodal,modalities={UNIMODAL[fusion]}"
    )
  values = {
    "model.width": sizes["edim"],
    "model.depth": sizes["depth"],
    "num_classes": sizes["n_classes"],
    "model.attention.dropout": 0.0,
    **{name.replace("__", "."): value for name, value in fields.items()},
  }
  if sizes.get("backbone") == "mbt":
    values["model.bottleneck.depth"] = sizes["multi_depth"]
  return load_config(
    f"{root}/configs/{CONFIGS[sizes['dataset']]}.py:{variant}",
    [f"--config.{name}={value}" for name, value in values.items()],
  )


def filled(variables: Any, values: Mapping[str, np.ndarray]) -> Any:
  """Variables with converted arrays; statistics of no window yet are 0."""
  from rollingq_jax.pretrained.rules import path_name

  def fill(path, like):
    empty = np.zeros(like.shape, like.dtype)
    return jnp.asarray(values.get(path_name(path), empty))

  return jax.tree_util.tree_map_with_path(fill, variables)


def to_torch(
  conversion: Any, tree: Any, keys: Mapping[str, np.ndarray]
) -> dict:
  """A tree of our parameters in their layout.

  What a rule does to an array of positions tells where each entry came from.
  """
  from rollingq_jax.pretrained.rules import flat_template

  ours = flat_template({"params": tree})
  theirs = {key: np.full(array.size, np.nan) for key, array in keys.items()}
  for rule in conversion.format.rules:
    if rule.target in ours:
      array = keys[rule.source]
      positions = rule.convert(np.arange(array.size).reshape(array.shape))
      theirs[rule.source][positions.ravel()] = np.ravel(ours[rule.target])
  return {key: x.reshape(keys[key].shape) for key, x in theirs.items()}


class Reference:
  """One of their models: our copy of it, and what theirs gave."""

  def __init__(self, path: Path, prefix: str, root: Path):
    with np.load(path, allow_pickle=False) as file:
      arrays = dict(file)
    self.case = json.loads(str(arrays["meta"]))["cases"][prefix]
    self.root = root
    self.arrays = {
      key.removeprefix(prefix): value
      for key, value in arrays.items()
      if key.startswith(prefix)
    }
    self.weights = {
      key.removeprefix("param/"): value
      for key, value in self.arrays.items()
      if key.startswith("param/")
    }
    inputs = draws(self.case["inputs"])
    self.batch = batch_of(inputs["a"], inputs["v"], inputs["label"])

  def __getitem__(self, key: str) -> np.ndarray:
    return self.arrays[key]

  def __contains__(self, key: str) -> bool:
    return key in self.arrays

  def built(
    self, weights: Mapping[str, Any] | None = None, **fields: str
  ) -> tuple[Any, Any, Any]:
    """Model, its variables with their weights, and the conversion."""
    from rollingq_jax.models import build_model
    from rollingq_jax.pretrained.load import convert

    fields = {
      "model__attention__num_heads": fusion_heads(self.weights)
    } | fields
    config = reference_config(self.root, self.case["config"], **fields)
    model = build_model(config)
    shapes = {m: self.batch[m].shape[1:] for m in config.modalities}
    variables = jax.eval_shape(model.init, jax.random.key(0), self.batch)
    made = convert(weights or self.weights, config, variables, shapes, "golden")
    return model, filled(variables, made.values), made

  @functools.cache  # noqa: B019
  def run(self, rotated: bool = False) -> tuple[Any, Any, Any]:
    """Output, losses by head, and gradients of their sum in their layout."""
    from rollingq_jax.evaluation import cross_entropy
    from rollingq_jax.training.loss import total_loss

    rotation = {"fusion_module.rotate": self["rot/R"]} if rotated else {}
    model, variables, made = self.built(self.weights | rotation)
    params = variables.pop("params")
    batch = self.batch

    @jax.jit
    def loss_and_gradients(params):
      def loss(params):
        output = model.apply({"params": params, **variables}, batch)
        return total_loss(output, batch), output

      return jax.value_and_grad(loss, has_aux=True)(params)

    (total, output), grads = loss_and_gradients(params)
    losses = {
      name: cross_entropy(logits, batch["label"], batch["mask"])
      for name, logits in heads(output).items()
    }
    grads = to_torch(made, grads, self.weights)
    return output, {**losses, "": total}, grads


def heads(output: Any) -> dict[str, jax.Array]:
  """Logits by the reference's names."""
  names = {"audio": "a", "visual": "v"}
  probes = {names[m]: x for m, x in output.probe_logits.items()}
  return {"main": output.logits, **probes}


@functools.cache
def load_reference(path: Path, prefix: str, root: Path) -> Reference:
  return Reference(path, prefix, root)


def _models(folder: Path) -> list[tuple[Path, str]]:
  """Files and the prefixes of the models in them."""
  models = []
  for path in (folder / f"{name}.npz" for name in FILES):
    with np.load(path, allow_pickle=False) as file:
      models += [(path, p) for p in json.loads(str(file["meta"]))["cases"]]
  return models


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  if "reference" not in metafunc.fixturenames:
    return
  root = Path(__file__).resolve().parents[2]
  marker = metafunc.definition.get_closest_marker("models")
  cases = [
    (path, prefix, root)
    for path, prefix in _models(metafunc.config.golden_dir)
    if marker is None or marker.args[0] in load_reference(path, prefix, root)
  ]
  ids = [f"{path.stem}{'-' * bool(p)}{p.rstrip('/')}" for path, p, _ in cases]
  metafunc.parametrize("reference", cases, ids=ids, indirect=True)


@pytest.fixture
def reference(request: pytest.FixtureRequest) -> Reference:
  """Each of the authors' models in turn."""
  return load_reference(*request.param)


@pytest.fixture(scope="session")
def attention_references(golden_dir: Path) -> list[Reference]:
  """All of the authors' models that have an attention fusion."""
  root = Path(__file__).resolve().parents[2]
  return [
    load_reference(path, prefix, root)
    for path, prefix in _models(golden_dir)
    if "q_cls" in load_reference(path, prefix, root)
  ]


@pytest.fixture
def golden_tools(repo_root: Path) -> SimpleNamespace:
  """What tests of whole runs need of this file."""
  return SimpleNamespace(
    draws=draws,
    batch_of=batch_of,
    config=functools.partial(reference_config, repo_root),
    filled=filled,
    to_torch=to_torch,
    heads=heads,
  )
