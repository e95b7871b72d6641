"""Short names of methods."""

import pytest

from rollingq_jax.errors import UserError
from rollingq_jax.study.methods import (
  METHODS,
  find_method,
  folder_name,
  parse_methods,
)


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
