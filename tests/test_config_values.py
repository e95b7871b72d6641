"""Values of the right type that no run can have, found before it starts."""

import pytest

from rollingq_jax.config import load_config
from rollingq_jax.errors import UserError
from rollingq_jax.training.checks import check_config
from rollingq_jax.training.run import prepare

FIELDS = {
  "seed": ["-1"],
  "modalities": ["()", "('audio','audio')"],
  "data.num_threads": ["-1"],
  "data.prefetch_batches": ["-1"],
  "data.num_frames": ["-3", "0"],
  "data.noise_dropout": ["-0.1", "1.0"],
  "data.corrupt_share": ["(0.5,0.2)", "(0.1,)", "(0.0,1.5)"],
  "model.dtype": ["float99", "int32"],
  # Not a multiple of the heads.
  "model.width": ["18", "0"],
  "model.depth": ["-1"],
  "model.num_heads": ["0"],
  "model.mlp_ratio": ["0"],
  "model.attention.num_heads": ["0"],
  "model.attention.dropout": ["1.5", "-0.5"],
  "model.encoders.audio.frames_per_token": ["0"],
  "model.encoders.visual.patch_size": ["(0,7)", "(7,)"],
  "optimizer.learning_rate": ["-1"],
  "optimizer.warmup_epochs": ["-1"],
  "optimizer.momentum": ["-0.9"],
  "optimizer.weight_decay": ["-1"],
  "optimizer.clip_norm": ["-1"],
  "model.attention.cls_std": ["-1"],
  "model.norm_eps": ["-1e-6"],
  "model.gelu": ["relu"],
  "model.attention_kernel": ["flash"],
  "model.remat": ["all"],
  "mesh.data": ["0", "-2"],
  "mesh.model": ["0"],
  "mesh.min_entries": ["-1"],
  "accumulate_steps": ["0"],
  "model.bottleneck.depth": ["-1"],
  "model.bottleneck.num_tokens": ["0"],
  # Not a divisor of the width.
  "model.bottleneck.num_heads": ["0", "3"],
  "model.condition": ["text"],
  "data.synthetic_size": ["0"],
  "pretrained.format": ["torch"],
  "pretrained.channels": ["max"],
  "pretrained.resize": ["nearest"],
  "pretrained.modalities": ["('text',)"],
  "rollingq.mean_over": ["windows"],
  "balance.name": ["omg"],
  "balance.alpha": ["-1"],
  "balance.scope": ["head"],
  "balance.momentum": ["1.0"],
  "balance.observed_share": ["0.0", "1.5"],
  "checkpoint.max_to_keep": ["-1", "0"],
  "evaluation.selection_split": ["train"],
  "evaluation.noise_levels": ["(2.0,)", "(-0.5,)"],
}


@pytest.mark.parametrize(
  ("field", "value"),
  [(field, value) for field, values in FIELDS.items() for value in values],
)
def test_a_value_out_of_range_is_named_with_its_field(repo_root, field, value):
  small = {"model.depth": "1", "model.width": "16"} | {field: value}
  config = load_config(
    str(repo_root / "configs" / "av_digits.py"),
    [f"--config.{key}={given}" for key, given in small.items()],
  )
  with pytest.raises(UserError, match=rf"config\.{field.replace('.', '[.]')}"):
    prepare(config)


def test_a_field_that_is_not_used_is_not_held_against_the_others(repo_root):
  path = str(repo_root / "configs" / "av_digits.py")
  narrow = ["--config.model.width=18", "--config.model.num_heads=3"]
  check_config(load_config(path, narrow))
  with pytest.raises(UserError, match=r"config\.model\.cross\.num_heads 4"):
    check_config(load_config(f"{path}:fusion=mult", narrow))


def test_jmt_cannot_pool_what_a_linear_layer_has_joined(repo_root):
  config = load_config(
    f"{repo_root}/configs/av_digits.py:fusion=jmt,pool=attention",
    ["--config.model.cross.readout=linear"],
  )
  with pytest.raises(UserError, match=r"config\.model\.cross\.readout"):
    check_config(config)


@pytest.mark.parametrize("name", ["audio", "visual"])
def test_an_encoder_lists_the_field_that_its_kind_needs(repo_root, name):
  kind, field = {
    "audio": ("patches", "patch_size"),
    "visual": ("sequence", "frames_per_token"),
  }[name]
  config = load_config(
    str(repo_root / "configs" / "av_digits.py"),
    [f"--config.model.encoders.{name}.kind={kind}"],
  )
  with pytest.raises(UserError, match=rf"encoders\.{name}.*{field}"):
    prepare(config)


def test_an_unknown_fusion_is_told_the_known_ones(repo_root):
  config = load_config(
    str(repo_root / "configs" / "av_digits.py"),
    ["--config.model.fusion=atention"],
  )
  with pytest.raises(UserError, match=r"unimodal.*sum.*concat.*uniform"):
    prepare(config)
