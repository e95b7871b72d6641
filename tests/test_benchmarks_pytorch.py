"""The models in PyTorch that the benchmarks time; where it is installed."""

import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from benchmarks import plain_torch, pytorch, run  # noqa: E402
from benchmarks.authors_code import load_authors_model, logits_of  # noqa: E402
from benchmarks.synthetic import QUICK, load_synthetic  # noqa: E402
from rollingq_jax.errors import UserError  # noqa: E402

# Their repository in form: the module, the class, arguments by name.
CHECKOUT = """
import torch
from benchmarks.plain_torch import PlainTorch, Sizes

class MMTransformerAttn(PlainTorch):
  def __init__(self, args, {argument}):
    audio = {{"CREMAD": 176, "KineticSound": 512}}[args.dataset]
    super().__init__(Sizes(
      args.edim, args.depth, 12, n_classes, audio, 196 * args.frames))
    self.dropout = torch.nn.Dropout(0.5)

  def forward(self, audio, video):
    *probes, logits = super().forward(audio, video)
    return *probes, self.dropout(logits), (audio, logits[:, None])
"""


def _checkout(folder, argument="n_classes, unused=1"):
  (folder / "models").mkdir()
  text = CHECKOUT.format(argument=argument)
  (folder / "models" / "mm_transformer.py").write_text(text)
  return folder


@pytest.fixture
def their_modules(monkeypatch):
  """What importing a checkout leaves behind is taken back."""
  monkeypatch.setattr("sys.path", list(run.sys.path))
  yield
  for name in ("models", "models.mm_transformer"):
    run.sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["mt_cremad", "mt_ks"])
def test_the_plain_model_is_theirs(name, golden_dir):
  with np.load(golden_dir / f"{name}.npz", allow_pickle=False) as file:
    golden = dict(file)
  config = json.loads(str(golden["meta"]))["cases"][""]["config"]
  draws = json.loads(str(golden["meta"]))["cases"][""]["inputs"]
  rng = np.random.RandomState(draws["seed"])
  audio, video = (
    torch.from_numpy(rng.standard_normal(x["shape"]).astype(np.float32))
    for x in draws["draws"][:2]
  )
  params = {
    key.removeprefix("param/"): torch.from_numpy(value)
    for key, value in golden.items()
    if key.startswith("param/")
  }
  for fused in (False, True):
    model = plain_torch.PlainTorch(
      plain_torch.Sizes(
        config["edim"],
        config["depth"],
        12,
        config["n_classes"],
        params["encoder.pos_embed_audio"].shape[1] - 1,
        params["encoder.pos_embed_video"].shape[1] - 1,
        fused,
      )
    )
    plain_torch.load(model, params)
    outputs = model(audio, video)
    for key, value in zip(("out_a", "out_v", "logits"), outputs, strict=True):
      np.testing.assert_allclose(value.detach(), golden[key], atol=1e-5)
    loss = plain_torch.loss_of(
      outputs, torch.from_numpy(golden["label"]).long()
    )
    assert loss.item() == pytest.approx(float(golden["train/loss"]), abs=1e-5)


def test_a_quick_run_times_all_models(tmp_path, monkeypatch, their_modules):
  monkeypatch.setattr(pytorch, "MODELS", {"configs/cremad.py": 2})
  file = tmp_path / "results.json"
  words = ["--quick", "--suite=pytorch", f"--json={file}"]
  assert run.main([*words, f"--reference={_checkout(tmp_path)}"]) == 0
  rows = json.loads(file.read_text())["tables"]["pytorch"]["rows"]
  assert [row["against"] for row in rows[::2]] == [
    "plain", "plain, fused attention", "the authors' code"
  ]  # fmt: skip
  for row in rows:
    assert row["agree"]
    assert 0 < row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert math.isfinite(row["torch_s_a_sample"])


def test_other_weights_do_not_agree(monkeypatch):
  def load(model, weights):
    plain_torch.load(model, {key: 1.1 * x for key, x in weights.items()})

  monkeypatch.setattr(pytorch, "load", load)
  rows = pytorch.measure("configs/cremad.py", 2, QUICK)
  # Ours has the first model's; the second's are 1.1 times those.
  assert [row["agree"] for row in rows] == [True, True, False, False]


def test_their_class_is_built_from_the_configs_sizes(tmp_path, their_modules):
  config = load_synthetic("configs/ks.py", 2, fields=QUICK)
  model = load_authors_model(_checkout(tmp_path), config)
  assert model.encoder.pos_embed_video.shape == (1, 589, QUICK["model.width"])
  assert model.dropout.p == 0.0
  outputs = model(torch.zeros(2, 1, 1024, 128), torch.zeros(2, 3, 3, 224, 224))
  assert [x.shape for x in logits_of(outputs, 2)] == [(2, 31)] * 3


def test_a_class_that_takes_more_is_a_line(tmp_path, their_modules):
  config = load_synthetic("configs/ks.py", 2, fields=QUICK)
  folder = _checkout(tmp_path, "n_classes, temperature")
  with pytest.raises(UserError, match="takes 'temperature', which"):
    load_authors_model(folder, config)


def test_a_folder_without_their_code_is_a_line(tmp_path):
  with pytest.raises(UserError, match=r"has no models/mm_transformer\.py"):
    load_authors_model(tmp_path, None)
