"""An exported folder answers as the run that it came from."""

import pytest

from rollingq_jax.config import read_config
from rollingq_jax.errors import UserError
from rollingq_jax.export.write import export_run
from rollingq_jax.predict import load_predictor


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
  out = tmp_path_factory.mktemp("exported") / "model"
  export_run(read_config(workdir), workdir, out)
  return out


def test_its_predictions_are_the_runs(exported, predictor, clips):
  ours = list(load_predictor(exported, batch_size=3)([clips]))
  theirs = list(predictor([clips]))
  assert len(ours) == len(theirs) > 16
  for one, other in zip(ours, theirs, strict=True):
    chances, shares = one.probabilities, one.attention_share
    assert chances == pytest.approx(other.probabilities, abs=1e-5)
    assert shares == pytest.approx(other.attention_share, abs=1e-5)
    assert (one.clip, one.label, one.warnings, one.error) == (
      other.clip, other.label, other.warnings, other.error
    )  # fmt: skip


def test_it_takes_no_options_of_data(exported):
  with pytest.raises(UserError, match="holds all that it needs"):
    load_predictor(exported, overrides=["--config.data.data_dir=elsewhere"])
