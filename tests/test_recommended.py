"""The recommended fusion: what it stands for, and where it is the default."""

import pytest

from rollingq_jax.config import load_config
from rollingq_jax.errors import UserError

NOISE = 0.15
STANDS_FOR = "fusion=attention,rollingq=off,extras=loss+gated,gate=on"


@pytest.fixture
def load(repo_root):
  def of(spec):
    name, _, variant = spec.partition(":")
    path = repo_root / "configs" / f"{name}.py"
    return load_config(f"{path}:{variant}").to_dict()

  return of


@pytest.mark.parametrize("variant", ["", "noise=clean_train"])
def test_on_digits_it_is_a_set_of_variants(load, variant):
  named = load(f"av_digits:{STANDS_FOR},{variant}")
  named["data"]["noise_dropout"] = NOISE
  assert load(f"recommended:{variant}") == named


def test_it_is_the_default_for_data_of_ones_own(load):
  made, named = load("manifest"), load(f"manifest:{STANDS_FOR}")
  named["data"]["noise_dropout"] = NOISE
  assert made == named
  assert made["model"]["heads"]["residual"] == "gated"
  assert not made["rollingq"]["enabled"]


def test_another_fusion_is_what_it_is_elsewhere(load):
  for variant in ("fusion=concat", "fusion=attention"):
    made = load(f"manifest:{variant}")
    assert made["data"]["noise_dropout"] == 0.0
    assert (
      made["model"]["heads"] == load(f"av_digits:{variant}")["model"]["heads"]
    )


@pytest.mark.parametrize("asked", ["rollingq=on", "extras=loss", "gate=on"])
def test_what_it_decides_itself_is_not_asked_for(load, asked):
  with pytest.raises(UserError, match=f"write fusion=attention,{asked}"):
    load(f"manifest:{asked}")
