"""Batches in which a modality is replaced, and what is shown of samples."""

import json

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollingq_jax.analysis.browser import (
  chosen_rows,
  layout,
  shown,
  token_attention,
)
from rollingq_jax.analysis.collect import attention_entropy, join
from rollingq_jax.analysis.conditions import (
  other_rows,
  with_modality,
  with_zeros,
)
from rollingq_jax.analysis.results import write_result
from rollingq_jax.analysis.timing import median_ms
from rollingq_jax.config import load_config
from rollingq_jax.data.dropout import without
from rollingq_jax.models.attention import FusionAux
from rollingq_jax.models.classifier import ClassifierOutput

SIZE = 3


@pytest.fixture
def batch():
  rng = np.random.default_rng(0)
  return {
    "audio": rng.normal(size=(SIZE, 4, 2)).astype(np.float32),
    "audio_mask": np.ones((SIZE, 4), bool),
    "visual": rng.integers(0, 256, (SIZE, 2, 8, 8, 3), dtype=np.uint8),
    "visual_mix": np.full((SIZE, 2), 0.5, np.float32),
    "label": np.arange(SIZE),
    "mask": np.ones(SIZE, bool),
  }


@given(st.integers(2, 50), st.integers(0, 100))
def test_every_row_gets_another_one_and_each_is_used_once(count, seed):
  rows = other_rows(count, seed)
  assert sorted(rows) == list(range(count))
  assert (rows != np.arange(count)).all()


def test_a_single_row_has_no_other():
  assert other_rows(1, 0).tolist() == [0]


def test_a_modality_comes_with_all_that_is_its_own(batch):
  other = {name: np.zeros_like(x) for name, x in batch.items()}
  made = with_modality(batch, other, "audio")
  changed = {name for name in batch if made[name] is other[name]}
  assert changed == {"audio", "audio_mask"}


def test_zeros_are_the_mean_input(batch):
  made = with_zeros(batch, "audio")
  assert not made["audio"].any()
  assert made["audio_mask"].all()
  made = with_zeros(batch, "visual")
  # ImageNet's mean colour, and no noise mixed in by the model.
  assert made["visual"][0, 0, 0, 0].tolist() == [124, 116, 104]
  assert not made["visual_mix"].any()
  batch["visual_quality"] = np.zeros((SIZE, 2, 8, 8), np.float32)
  assert with_zeros(batch, "visual")["visual_quality"].all()


def test_what_is_missing_has_a_mask_without_a_true(batch):
  names = ("audio", "visual")
  made = without(batch, "visual", names)
  assert made["visual_mask"].shape == (SIZE, 2)
  assert not made["visual_mask"].any()
  assert made["audio_mask"] is batch["audio_mask"]
  heard = without(batch, "audio", names)
  assert not heard["audio_mask"].any()
  # One program for both.
  assert heard["visual_mask"].all()
  assert jax.tree.map(np.shape, heard) == jax.tree.map(np.shape, made)


def test_entropy_is_a_share_of_the_largest():
  import jax.numpy as jnp

  weights = jnp.array(
    [
      [[0.25, 0.25, 0.25, 0.25]],
      [[0.5, 0.5, 0.0, 0.0]],
      [[1.0, 0.0, 0.0, 0.0]],
      [[0.75, 0.25, 0.0, 0.0]],
    ]
  )
  own = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
  np.testing.assert_allclose(
    attention_entropy(weights), [1, 1, 0, own], atol=1e-6
  )


def test_padding_is_left_out_of_what_is_joined():
  parts = [
    {"mask": np.array([True, True]), "x": {"a": np.array([1, 2])}},
    {"mask": np.array([True, False]), "x": {"a": np.array([3, 1])}},
  ]
  joined = join(parts)
  assert joined["x"]["a"].tolist() == [1, 2, 3]
  assert "mask" not in joined


def samples_of(right):
  """Right where True: logits of class 0 or 1, label 0."""
  right = np.array(right)
  return {
    "row": np.arange(len(right)),
    "label": np.zeros(len(right), int),
    "logits": np.stack([right, ~right], axis=1).astype(float),
  }


def test_half_of_the_chosen_samples_are_wrong_where_there_are_as_many():
  right = np.arange(100) % 10 > 0
  rows = chosen_rows(samples_of(right), 8)
  assert len(rows) == 8
  assert (~right[rows]).sum() == 4
  assert sorted(rows) == rows.tolist()


@pytest.mark.parametrize("wrong", [0, 1, 5, 6])
def test_what_one_kind_lacks_the_other_fills(wrong):
  rows = chosen_rows(samples_of(np.arange(6) >= wrong), 6)
  assert rows.tolist() == list(range(6))
  assert len(chosen_rows(samples_of(np.arange(6) >= wrong), 4)) == 4


@pytest.mark.parametrize(
  ("config", "name", "shape", "expected"),
  [
    ("av_digits", "audio", (2, 27, 13), ("sequence", [1, 14])),
    ("av_digits", "visual", (2, 1, 28, 28, 1), ("image", [1, 4, 4])),
    ("ks", "audio", (2, 1024, 128), ("spectrogram", [8, 64])),
    ("ks", "visual", (2, 3, 256, 456, 3), ("image", [3, 14, 14])),
  ],
)
def test_tokens_lie_on_a_grid(repo_root, config, name, shape, expected):
  found = layout(load_config(f"{repo_root}/configs/{config}.py"), name, shape)
  assert (found["kind"], list(found["tokens"])) == expected


def test_resnet_tokens_of_a_spectrogram_are_turned(repo_root):
  config = load_config(f"{repo_root}/configs/av_digits.py")
  config.unlock()
  config.model.encoders.audio.kind = "resnet18"
  found = layout(config, "audio", (1, 96, 64))
  assert found["kind"] == "spectrogram"
  # Frequencies x times; the model has times x frequencies.
  assert found["tokens"] == [2, 3]
  made = token_attention(output_of(6), ("audio",), {"audio": found})
  np.testing.assert_allclose(
    made["audio"][0] * 21, [1, 3, 5, 2, 4, 6], rtol=1e-5
  )


def output_of(tokens):
  """Attention to a fusion's class token, the modality's, and its tokens."""
  own = np.arange(1, tokens + 1) / 100
  rest = 1 - own.sum()
  weights = np.concatenate([[rest / 2, rest / 2], own])
  aux = FusionAux(
    query=np.zeros((1, 1, 2)),
    keys=(np.zeros((1, tokens + 1, 1, 2)),),
    key_means=np.zeros((1, 1, 1, 2)),
    present=np.ones((1, 1), bool),
    attention=weights[None, None],
    attention_share={"audio": np.ones(1)},
  )
  return ClassifierOutput(np.zeros((1, 2)), {}, {}, aux)


def test_attention_to_tokens_adds_up_to_the_share():
  where = {"audio": {"kind": "sequence", "tokens": [1, 3]}}
  made = token_attention(output_of(3), ("audio",), where)
  np.testing.assert_allclose(made["audio"], [[1 / 6, 2 / 6, 3 / 6]], rtol=1e-5)


def test_tokens_that_the_attention_does_not_see_are_left_out():
  where = {"audio": {"kind": "sequence", "tokens": [1, 9]}}
  assert token_attention(output_of(3), ("audio",), where) == {}


def test_frames_are_shown_as_bytes_and_features_as_they_are(repo_root, batch):
  config = load_config(f"{repo_root}/configs/av_digits.py")
  assert shown(config, batch, "audio") is batch["audio"]
  images = {"visual": np.linspace(-1, 3, 8).reshape(1, 1, 2, 4, 1)}
  seen = shown(config, images, "visual")
  assert seen.dtype == np.uint8
  assert (seen.min(), seen.max()) == (0, 255)
  constant = {"visual": np.ones((1, 1, 2, 2, 1))}
  assert not shown(config, constant, "visual").any()
  clean = {"visual": batch["visual"]}
  # Normalised and back.
  np.testing.assert_array_equal(shown(config, clean, "visual"), batch["visual"])


def test_the_first_call_is_not_timed():
  clock = iter([0.0, 0.001, 1.0, 1.005, 2.0, 2.002])
  calls = []
  found = median_ms(lambda: calls.append(1), 3, lambda: next(clock))
  assert found == pytest.approx(2.0)
  assert len(calls) == 4


def test_a_file_has_a_reason_in_place_of_what_json_lacks(tmp_path):
  content = {"rows": [{"x": float("nan"), "y": 1.0}], "z": [float("inf"), 2.0]}
  path = write_result(tmp_path, "kind", 7, content)
  assert json.loads(path.read_text()) == {
    "kind": "kind",
    "split": "test",
    "samples": 7,
    "rows": [{"x": None, "y": 1.0, "x_why": "the value is nan"}],
    "z": [None, 2.0],
  }
