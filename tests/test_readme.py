"""The README's commands and code are those that work."""

import argparse
import re

import jax.numpy as jnp
import numpy as np
import pytest

from rollingq_jax.cluster import add_options
from rollingq_jax.config import load_config


@pytest.fixture
def readme(repo_root):
  return (repo_root / "README.md").read_text()


def _blocks(readme, language):
  return re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL)


def test_the_code_runs_inside_an_attention(readme):
  rng = np.random.default_rng(0)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  names = {
    "heads": 2,
    "width": 8,
    "query": normal(4, 2, 8),
    "audio_k": normal(4, 5, 2, 8),
    "video_k": normal(4, 3, 2, 8),
  }
  code, _ = _blocks(readme, "python")
  exec(code, names)
  assert names["query"].shape == (4, 2, 8)
  assert float(names["rolling"].weight) == 4.0
  assert not names["info"].rolled.any()


def test_the_code_that_looks_for_bias_runs(readme, monkeypatch, tmp_path):
  pytest.importorskip("matplotlib")
  monkeypatch.chdir(tmp_path)
  rng = np.random.default_rng(0)
  names = {
    "queries": rng.normal(size=(2, 3, 2, 8)),
    "keys": rng.normal(size=(2, 85, 2, 8)),
  }
  _, code = _blocks(readme, "python")
  exec(code, names)
  assert names["found"].token_share[0, 1] == pytest.approx(20 / 84)
  assert (tmp_path / "bias.png").is_file()


def test_the_test_command_is_what_ci_runs(readme, repo_root):
  install_and_test = _blocks(readme, "sh")[1]
  script = (repo_root / ".ci" / "run").read_text()
  assert "pip install -e '.[dev]' && python -m pytest" in install_and_test
  assert "pip install --quiet --editable '.[dev]'" in script
  assert "\npython -m pytest ||" in script


def test_every_run_that_the_readme_names_has_a_config(
  readme, monkeypatch, repo_root
):
  monkeypatch.chdir(repo_root)
  commands = [
    line.split("rollingq_jax.main ")[1].split()
    for block in _blocks(readme, "sh")
    for line in block.splitlines()
    if "rollingq_jax.main" in line
  ]
  assert len(commands) >= 5
  parser = argparse.ArgumentParser(allow_abbrev=False)
  parser.add_argument("--config", required=True)
  parser.add_argument("--workdir", required=True)
  add_options(parser)
  for words in commands:
    args, overrides = parser.parse_known_args(words)
    load_config(args.config, overrides)
  for option in re.findall(r"`(--config\.[^`]+)`", readme):
    load_config("configs/av_digits.py", [option])


def test_files_that_the_readme_names_exist(readme, repo_root):
  for link in re.findall(r"\]\(([^)h][^)]*)\)", readme):
    path, _, anchor = link.partition("#")
    assert (repo_root / path).is_file(), path
    if anchor:
      heading = rf"^#+ {anchor.replace('-', ' ')}$"
      text = (repo_root / path).read_text().lower()
      assert re.search(heading, text, re.MULTILINE), link
  for path in re.findall(r"`((?:rollingq_jax|tests|configs)/[^`*]+)`", readme):
    assert (repo_root / path).is_file(), path
  for path in re.findall(r"`((?:models|training)/[^`*]+)`", readme):
    assert (repo_root / "rollingq_jax" / path).is_file(), path


def _flat(config, prefix=""):
  flat = {}
  for key, value in config.items():
    if hasattr(value, "items"):
      flat |= _flat(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def test_the_protocols_differ_in_the_fields_that_are_documented(repo_root):
  honest, reference = (
    _flat(load_config(f"{repo_root}/configs/ks.py:protocol={name}"))
    for name in ("honest", "reference")
  )
  changed = {key for key in honest if honest[key] != reference[key]}
  text = (repo_root / "docs" / "reference.md").read_text()
  table = text.partition("## The two protocols")[2].partition("## Weights")[0]
  rows = [line.split("|")[1] for line in table.splitlines() if "|" in line]
  documented = {key for row in rows for key in re.findall(r"`([^`]+)`", row)}
  assert changed == documented
  base = (repo_root / "configs" / "base.py").read_text()
  for key in changed:
    assert f"\n  {key} = " in base


def _table(text, heading):
  """Rows of the table that begins with a heading, by their first cell."""
  lines = iter(text.splitlines())
  head = next(line for line in lines if line.startswith(heading))
  columns = [cell.strip() for cell in head.strip("|").split("|")]
  next(lines)
  rows = {}
  for line in lines:
    if not line.startswith("|"):
      return rows
    name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
    rows[name] = dict(zip(columns[1:], cells, strict=True))
  return rows


# Columns of the README and of the study's page.
COLUMNS = {
  "accuracy": "accuracy",
  "audio with noise .5": "audio noise 0.5",
  "image with noise .5": "visual noise 0.5",
  "AIR": "AIR audio",
  "audio share": "share audio",
  "correlation of share and quality": "correlation audio",
}
MINUS = {
  "minus uniform: accuracy": "accuracy",
  "minus uniform: audio noise .5": "audio noise 0.5",
}


def _short(cell):
  """0.53 as .53, and `(4 of 5)` as (4)."""
  return re.sub(r"\b0\.", ".", cell).replace(" of 5)", ")")


@pytest.mark.parametrize("protocol", ["sensor_failure", "clean_train"])
def test_the_results_are_those_of_the_study(readme, repo_root, protocol):
  page = (repo_root / "docs" / "study" / f"{protocol}.md").read_text()
  means = _table(page, "| method | seeds |")
  differences = _table(page, "| difference | accuracy |")
  section = readme[readme.index(f"\n`{protocol}`: ") :]
  rows = _table(section, "| method | accuracy |")
  assert rows.keys() == means.keys()
  for name, row in rows.items():
    for ours, theirs in COLUMNS.items():
      assert row[ours] == _short(means[name][theirs])
    pair = differences.get(f"{name} - uniform attention")
    for ours, theirs in MINUS.items():
      assert row[ours] == (_short(pair[theirs]) if pair else "-")
  assert f"noise={protocol}" in page
