"""Short names of methods."""

import pytest

from rollingq_jax.config import load_config
from rollingq_jax.errors import UserError
from rollingq_jax.study.methods import (
  METHODS,
  find_method,
  folder_name,
  parse_methods,
)
from rollingq_jax.training.checks import check_config


def test_every_method_is_found_by_its_name_and_has_a_folder():
  for method in METHODS:
    assert find_method(method.name) == method
  assert len({folder_name(method.name) for method in METHODS}) == len(METHODS)
  assert len({method.label for method in METHODS}) == len(METHODS)
  everything = ",".join(method.name for method in METHODS)
  assert parse_methods(everything) == list(METHODS)


def test_patterns():
  assert find_method("rollingq1").options == (
    "--config.rollingq.max_rotations=1",
  )
  assert find_method("rollingq1").variant == find_method("rollingq").variant
  text = find_method("unimodal:text")
  assert text.variant == "fusion=unimodal,modalities=text,rollingq=off"
  assert folder_name(text.name) == "unimodal_text"


@pytest.mark.parametrize(
  ("name", "has_gate"),
  [
    ("concat", False),
    ("uniform", True),
    ("attention", True),
    ("rollingq", True),
    ("rollingq1", True),
    ("mbt", True),
    ("mmml", False),
    ("mmml+rollingq", True),
    ("mult+attention", True),
    ("pmr", False),
  ],
)
def test_every_method_of_several_modalities_has_extras(
  name, has_gate, repo_root
):
  base, method = find_method(name), find_method(f"{name}+extras")
  assert method.name == f"{name}+extras"
  assert method.options == base.options
  assert method.variant.startswith(f"{base.variant},extras=loss+gated")
  assert method.variant.endswith(",gate=on") == has_gate
  spec = f"{repo_root}/configs/av_digits.py:{method.variant}"
  config = load_config(spec, method.options)
  check_config(config)
  assert config.model.heads.train_encoders
  assert config.model.heads.residual == "gated"
  assert config.model.heads.gate_attention == has_gate


@pytest.mark.parametrize("name", ["unimodal:audio", "late", "late+gate"])
def test_some_have_none(name):
  with pytest.raises(UserError, match="there is no method"):
    find_method(f"{name}+extras")


def test_late_fusion_has_a_gate_of_its_own(repo_root):
  for name, residual in (("late", "none"), ("late+gate", "gated")):
    spec = f"{repo_root}/configs/av_digits.py:{find_method(name).variant}"
    config = load_config(spec)
    check_config(config)
    assert (config.model.fusion, config.model.heads.residual) == (
      "late",
      residual,
    )


def test_a_method_of_ones_own():
  first, own, last = parse_methods(
    "concat, mine=fusion=sum,balance=pmr,--config.balance.alpha=1,rollingq1"
  )
  assert (first.name, last.name) == ("concat", "rollingq1")
  assert own.name == "mine"
  assert own.variant == "fusion=sum,balance=pmr"
  assert own.options == ("--config.balance.alpha=1",)


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("", "names none"),
    ("concatt", "did you mean concat?"),
    ("concat,concat", "would share a folder"),
    ("a:b=fusion=sum,a_b=fusion=sum", "would share a folder"),
    ("balance=pmr", "belongs to no method"),
    ("concat,balance=pmr", "belongs to no method"),
    ("concat,--config.batch_size=1", "belongs to no method"),
    ("Sweep=fusion=sum", "is kept for the sweep"),
  ],
)
def test_a_mistake_is_said(text, words):
  with pytest.raises(UserError, match=words.replace("?", r"\?")):
    parse_methods(text)
