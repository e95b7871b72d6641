"""Whole models against the authors': tokens, logits, losses, gradients."""

import jax
import numpy as np
import pytest

TOKENS = {"token_a": "audio", "token_v": "visual"}


def close(actual, expected, atol, rtol=0.0, what=""):
  np.testing.assert_allclose(
    actual, expected, rtol=rtol, atol=atol, err_msg=what
  )


def tokens_off(reference, **fields):
  """Largest error of any token of a model with other fields."""
  model, variables, _ = reference.built(**fields)
  tokens = jax.jit(model.apply)(variables, reference.batch).tokens
  return max(
    np.abs(tokens[name].values - reference[key]).max()
    for key, name in TOKENS.items()
    if key in reference
  )


def test_tokens_are_theirs(reference, every_token):
  output, _, _ = reference.run()
  model, variables, _ = reference.built()
  whole = jax.jit(every_token(model).apply)(variables, reference.batch)
  for key, name in TOKENS.items():
    if key in reference:
      close(whole.tokens[name].values, reference[key], 2e-5, what=key)
      first = output.tokens[name].values
      close(first, reference[key][:, : first.shape[1]], 2e-5, what=key)


@pytest.mark.parametrize(
  "fields", [{"model__norm_eps": "1e-5"}, {"model__gelu": "tanh"}], ids=str
)
def test_the_token_tolerance_catches_a_wrong_norm_or_gelu(
  attention_references, fields
):
  wrong = [tokens_off(model, **fields) for model in attention_references]
  assert max(wrong) > 2e-5
  right = [tokens_off(model) for model in attention_references]
  assert all(np.array(wrong) > 2 * np.array(right))


def test_logits_and_losses_are_theirs(reference):
  output, losses, _ = reference.run()
  atol = 5e-6 if "q_cls" in reference else 1e-5
  close(output.logits, reference["logits"], atol)
  for name, modality in (("out_a", "audio"), ("out_v", "visual")):
    if modality in output.probe_logits:
      close(output.probe_logits[modality], reference[name], 1e-5, what=name)
  for name, loss in losses.items():
    key = f"train/loss{'_' * bool(name)}{name}"
    if key in reference:
      close(loss, reference[key], 5e-6, what=key)


def test_gradients_are_theirs(reference):
  _, _, grads = reference.run()
  check_gradients(reference, grads, "")


@pytest.mark.models("q_cls")
def test_the_attention_is_theirs(reference):
  output, _, _ = reference.run()
  check_attention(reference, output.aux, "")
  _, variables, _ = reference.built()
  check_value(reference, variables["params"]["fusion"])
  for key, means in zip(
    ("k_mean_a", "k_mean_v"), output.aux.key_means, strict=True
  ):
    close(means.reshape(len(means), -1), reference[key], 2e-6, what=key)


@pytest.mark.models("rot/R")
def test_the_rotated_model_is_theirs(reference):
  output, losses, grads = reference.run(rotated=True)
  close(output.logits, reference["rot/logits"], 5e-6)
  check_attention(reference, output.aux, "rot/")
  for name, loss in losses.items():
    key = f"rot/train/loss{'_' * bool(name)}{name}"
    close(loss, reference[key], 5e-6, what=key)
  check_gradients(reference, grads, "rot/")


@pytest.mark.models("rot/R")
def test_a_rotation_that_is_lost_or_transposed_is_seen(reference):
  for rotation in (reference["rot/R"].T, np.eye(len(reference["rot/R"]))):
    weights = reference.weights | {"fusion_module.rotate": rotation}
    model, variables, _ = reference.built(weights)
    logits = jax.jit(model.apply)(variables, reference.batch).logits
    assert np.abs(logits - reference["rot/logits"]).max() > 1e-2


def check_value(reference, fusion):
  """The value of the fusion's class token, which is not among our outputs."""
  value = fusion["attention"]["value"]
  ours = np.einsum("bd,dhk->bhk", fusion["cls_token"], value["kernel"])
  ours = (ours + np.asarray(value["bias"])).reshape(1, -1)
  theirs = reference["v_cls"]
  close(np.broadcast_to(ours, theirs.shape), theirs, 2e-6, what="v_cls")


def check_attention(reference, aux, prefix):
  query = aux.query.reshape(len(aux.query), -1)
  close(query, reference[f"{prefix}q_cls"], 2e-6, what="q_cls")
  theirs = reference[f"{prefix}cls_attn"]
  ours = aux.attention.reshape(theirs.shape)
  close(ours, theirs, 2e-6, what="cls_attn")


def check_gradients(reference, grads, prefix):
  """Full gradients, or the first entries and the norm of large ones."""
  seen = 0
  for key in reference.arrays:
    kind, _, name = key.removeprefix(prefix).partition("/")
    if not key.startswith(f"{prefix}grad") or kind not in MEASURES:
      continue
    seen += 1
    ours = MEASURES[kind](grads[name])
    close(ours, reference[key], 5e-6, rtol=1e-3, what=key)
  assert seen
  idle = set(reference.case["params_without_gradient"])
  # Nothing of ours has a gradient where theirs has none, and the reverse.
  assert {name for name, x in grads.items() if np.isnan(x).all()} == idle


MEASURES = {
  "grad": lambda x: x,
  "gradhead": lambda x: x.ravel()[:64],
  "gradnorm": np.linalg.norm,
}
