"""What a command line can say, and what it is told when it cannot mean it."""

import importlib.util
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rollingq_jax.__main__ import COMMANDS
from rollingq_jax.config import (
  check_workdir,
  load_config,
  read_config,
  save_config,
)
from rollingq_jax.errors import UserError
from rollingq_jax.main import main


@pytest.fixture
def spec(repo_root: Path) -> str:
  return str(repo_root / "configs" / "av_digits.py")


@pytest.fixture
def mistake(capsys, spec, tmp_path):
  """Runs the command; returns its one line about what is wrong."""

  def run(*arguments: str, config: str | None = None) -> str:
    status = main(
      ["--config", config or spec, "--workdir", str(tmp_path), *arguments]
    )
    assert status == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
    return err

  return run


@pytest.mark.parametrize(
  ("argument", "hint"),
  [
    ("--config.sed=3", "did you mean --config.seed?"),
    ("--config.lr=3", "did you mean --config.optimizer.learning_rate?"),
    ("--config.learning_rate=3", "--config.optimizer.learning_rate?"),
    ("--config.rolling.beta=.3", "--config.rollingq.beta?"),
    ("--config.model=3", "is a group of fields; set one of them, such as"),
    ("config.seed=1", "did you mean --config.seed=1?"),
    ("-config.seed=1", "did you mean --config.seed=1?"),
    ("--workdri=1", "did you mean --workdir?"),
    ("surplus", "unexpected argument 'surplus'"),
    ("--config.seed", "has no value; write --config.seed=VALUE"),
    ("--config.seed=1.5", "expected a value of type int"),
    ("--config.seed=None", "expected a value of type int"),
    ("--config.optimizer.learning_rate=fast", "of type float"),
    ("--config.rollingq.enabled=maybe", "expected a value of type bool"),
    ("--config.evaluation.noise_levels=(0.1", "expected a value of type tuple"),
  ],
)
def test_a_wrong_argument_is_one_line_with_the_nearest_right_one(
  mistake, argument, hint
):
  assert hint in mistake(argument)


def test_a_field_given_twice_is_refused(mistake):
  said = mistake("--config.seed=1", "--config.seed=2")
  assert "--config.seed is given twice" in said


@pytest.mark.parametrize(
  ("arg", "hint"),
  [
    ("fuson=concat", "did you mean fusion?; keys are fusion, modalities"),
    ("fusion=atention", "did you mean attention?"),
    ("fusion", "is not key=value"),
    ("fusion=sum,fusion=concat", "'fusion' is given twice"),
    ("rollingq=yes", "expected one of auto, on, off"),
  ],
)
def test_a_wrong_variant_is_named(mistake, spec, arg, hint):
  assert hint in mistake(config=f"{spec}:{arg}")


def test_a_config_file_that_is_not_there_is_named(mistake):
  said = mistake(config="configs/av_digit.py")
  assert "did you mean configs/av_digits.py?" in said


def test_a_file_without_get_config_is_refused(mistake, tmp_path_factory):
  path = tmp_path_factory.mktemp("configs") / "empty.py"
  path.write_text("")
  assert "does not define get_config" in mistake(config=str(path))


@pytest.mark.parametrize("option", ["--config", "--workdir"])
def test_a_missing_option_is_named(capsys, spec, tmp_path, option):
  given = {"--config": spec, "--workdir": str(tmp_path)}
  del given[option]
  assert main([word for pair in given.items() for word in pair]) == 2
  err = capsys.readouterr().err
  assert option in err
  assert err.count("\n") == 1


@pytest.mark.parametrize(
  ("words", "line"),
  [
    (
      ["--config", "a.py", "--work_dir", "x"],
      "error: unknown option '--work_dir'; did you mean --workdir?\n",
    ),
    (
      ["--confg=a.py", "--workdir", "x"],
      "error: unknown option '--confg'; did you mean --config?\n",
    ),
    (
      ["--config", "a.py", "--config.x=1", "--colour"],
      "error: the following arguments are required: --workdir; see --help\n",
    ),
  ],
)
def test_a_misspelt_option_is_named_and_not_what_is_missing(
  capsys, words, line
):
  assert main(words) == 2
  assert capsys.readouterr().err == line


def test_the_package_itself_lists_its_commands(repo_root):
  def run(*words):
    return subprocess.run(
      [sys.executable, "-X", "importtime", "-m", "rollingq_jax", *words],
      cwd=repo_root,
      capture_output=True,
      text=True,
      check=False,
    )

  for words in ((), ("--help",)):
    done = run(*words)
    assert done.returncode == 0
    assert not re.search(r"\| +(jax|numpy)$", done.stderr, re.MULTILINE)
    for name in COMMANDS:
      assert f"\n  {name} " in done.stdout
      assert importlib.util.find_spec(f"rollingq_jax.{name}")
  done = run("main", "--workdir", "x")
  assert done.returncode == 2
  assert done.stderr.endswith("python -m rollingq_jax.main --workdir x\n")


def test_a_workdir_that_is_a_file_is_named(capsys, spec, tmp_path):
  path = tmp_path / "file"
  path.touch()
  assert main(["--config", spec, "--workdir", str(path)]) == 2
  assert f"--workdir {path} cannot be used" in capsys.readouterr().err


def test_overrides_are_typed_and_placeholders_can_be_given(spec):
  config = load_config(
    spec,
    [
      "--config.seed",
      "3",
      "--config.optimizer.learning_rate=1",
      "--config.rollingq.window_steps=7",
      "--config.data.data_dir=somewhere",
      "--config.evaluation.noise_levels=(0.1, 0.2)",
      "--config.rollingq.enabled=False",
    ],
  )
  assert config.seed == 3
  assert isinstance(config.optimizer.learning_rate, float)
  assert config.rollingq.window_steps == 7
  assert config.data.data_dir == "somewhere"
  assert config.evaluation.noise_levels == (0.1, 0.2)
  assert config.rollingq.enabled is False


@pytest.mark.parametrize(
  ("arg", "rolls"),
  [
    ("", True),
    ("fusion=attention", True),
    ("rollingq=off", False),
    ("fusion=uniform", False),
    ("fusion=concat,noise=clean_train", False),
    ("fusion=sum,noise=none", False),
    ("fusion=unimodal,modalities=audio", False),
  ],
)
def test_every_variant_is_a_locked_config(spec, arg, rolls):
  config = load_config(f"{spec}:{arg}")
  assert config.rollingq.enabled is rolls
  with pytest.raises(AttributeError):
    config.learning_rate = 1.0


def test_the_bare_config_is_the_protocol_of_the_readme(spec):
  config = load_config(spec)
  assert config.data.noise == "sensor_failure"
  assert config.model.fusion == "attention"
  assert config.optimizer.name == "adam"
  assert config.total_epochs == 18
  assert config.rollingq.max_rotations == 3
  assert config.rollingq.patience == 2


def test_every_combination_of_variants_loads(spec):
  fields = {
    "fusion": ("attention", "uniform", "concat", "sum", "unimodal"),
    "modalities": ("audio+visual", "audio", "visual"),
    "rollingq": ("auto", "on", "off"),
    "noise": ("sensor_failure", "clean_train", "none"),
  }
  for values in itertools.product(*fields.values()):
    pairs = dict(zip(fields, values, strict=True))
    arg = ",".join(f"{key}={value}" for key, value in pairs.items())
    config = load_config(f"{spec}:{arg}")
    assert config.model.fusion == pairs["fusion"]
    assert "+".join(config.modalities) == pairs["modalities"]
    assert config.data.noise == pairs["noise"]
    assert config.is_locked


@pytest.fixture
def choices(repo_root):
  """(file, key) -> values of a variant, its default first, as a user is told.

  Without a key: the keys themselves.
  """

  def told(file, key=""):
    with pytest.raises(UserError) as caught:
      load_config(f"{repo_root / 'configs' / file}:{key}=none of them")
    listed = "keys are" if not key else "expected one of"
    return str(caught.value).split(listed)[1].split(";")[0].strip().split(", ")

  return told


TRIO_COMBINATIONS = [
  "text+audio+visual",
  "text",
  "audio",
  "visual",
  "text+audio",
  "text+visual",
  "audio+visual",
]


@pytest.mark.parametrize(
  ("file", "combinations"),
  [
    ("av_digits.py", ["audio+visual", "audio", "visual"]),
    ("ks.py", ["audio+visual", "audio", "visual"]),
    ("av_mnist.py", ["audio+visual", "audio", "visual"]),
    ("cremad_votes.py", ["voice+face", "voice", "face"]),
    ("mmmo.py", ["audio+visual", "audio", "visual"]),
    ("mosi.py", TRIO_COMBINATIONS),
    ("mosei.py", TRIO_COMBINATIONS),
  ],
)
def test_all_modalities_come_first_and_every_combination_can_be_had(
  repo_root, choices, file, combinations
):
  assert choices(file, "modalities") == combinations
  for combination in combinations:
    path = f"{repo_root / 'configs' / file}:modalities={combination}"
    assert load_config(path).modalities == tuple(combination.split("+"))
  bare = load_config(str(repo_root / "configs" / file))
  assert bare.modalities == tuple(combinations[0].split("+"))


@pytest.mark.parametrize("file", ["av_digits.py", "ks.py", "mosi.py"])
def test_layers_and_heads_are_numbers_of_the_attention(
  repo_root, choices, file
):
  for variant, field in (("layers", "depth"), ("heads", "num_heads")):
    values = choices(file, variant)
    assert len(values) == 4
    for value in values:
      path = f"{repo_root / 'configs' / file}:{variant}={value}"
      given = load_config(path).model.attention[field]
      assert given == int(value)
      assert type(given) is int
    bare = load_config(str(repo_root / "configs" / file))
    assert bare.model.attention[field] == 1


@pytest.mark.parametrize(
  "file",
  [
    "av_digits.py",
    "av_mnist.py",
    "cremad.py",
    "cremad_votes.py",
    "ks.py",
    "mfeat.py",
    "mmmo.py",
    "mosei.py",
    "mosi.py",
  ],
)
def test_the_docstring_of_a_config_lists_its_variants(repo_root, choices, file):
  text = (repo_root / "configs" / file).read_text().split('"""')[1]
  # A list of values may go on in the next line.
  text = re.sub(r"\|\n +", "|", text)
  listed = dict(re.findall(r"^    (\w+)=(\S+\|\S+)", text, re.MULTILINE))
  keys = set(choices(file))
  if file == "mfeat.py":
    # 63 combinations are told by their rule.
    assert f"modalities={choices(file, 'modalities')[0]} " in text
    keys -= {"modalities"}
  assert sorted(listed) == sorted(keys)
  for key, values in listed.items():
    assert values.split("|") == choices(file, key)


def test_every_config_file_loads_without_an_argument(repo_root):
  files = sorted((repo_root / "configs").rglob("[!_]*.py"))
  assert len(files) > 2
  for file in files:
    assert load_config(str(file)).is_locked


@pytest.fixture
def trained(monkeypatch):
  """Configs that the command would have trained."""
  configs = []

  def train_and_evaluate(config, *unused):
    configs.append(config)
    return False

  monkeypatch.setattr(
    "rollingq_jax.training.train_and_evaluate", train_and_evaluate
  )
  return configs


def test_options_come_in_any_order_and_with_or_without_equals(
  trained, spec, tmp_path
):
  before = ["--config.seed", "4", "--config.rollingq.max_rotations", "-1"]
  after = ["--config.data.data_dir=a=b c", "--config.compilation_cache=False"]
  options = [f"--workdir={tmp_path}", "--config", spec]
  assert main([*before, *options, *after]) == 0
  (config,) = trained
  assert config.seed == 4
  assert config.rollingq.max_rotations == -1
  assert config.data.data_dir == "a=b c"


def test_a_mended_command_may_use_the_same_workdir(
  monkeypatch, capsys, spec, tmp_path
):
  command = ["--config", spec, "--workdir", str(tmp_path)]
  command.append("--config.compilation_cache=False")
  assert main([*command, "--config.batch_size=0"]) == 2
  assert "config.batch_size is 0" in capsys.readouterr().err
  monkeypatch.setattr(
    "rollingq_jax.training.train_and_evaluate", lambda *_: False
  )
  assert main(command) == 0, capsys.readouterr().err


def test_a_config_that_takes_no_argument_says_so(mistake, repo_root):
  base = repo_root / "configs" / "base.py"
  assert "takes no argument" in mistake(config=f"{base}:fusion=concat")


def test_a_config_outside_the_repository_can_import_its_siblings(tmp_path):
  (tmp_path / "common.py").write_text("VALUE = 5\n")
  (tmp_path / "mine.py").write_text(
    "from ml_collections import ConfigDict\n"
    "from . import common\n"
    "def get_config(arg=''):\n"
    "  return ConfigDict({'value': common.VALUE, 'arg': arg})\n"
  )
  config = load_config(f"{tmp_path / 'mine.py'}:a=b", ["--config.value=6"])
  assert (config.value, config.arg) == (6, "a=b")


def test_config_json_is_written_once_and_then_compared(spec, tmp_path):
  config = load_config(spec)
  save_config(config, tmp_path)
  written = (tmp_path / "config.json").read_text()
  assert json.loads(written)["optimizer"]["learning_rate"] == 1e-3
  save_config(load_config(spec), tmp_path)
  other = load_config(spec, ["--config.seed=1", "--config.model.width=32"])
  with pytest.raises(UserError, match=r"model\.width is 32, there 64, seed is"):
    save_config(other, tmp_path)
  assert (tmp_path / "config.json").read_text() == written


def test_a_damaged_config_json_is_named(spec, tmp_path):
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(UserError, match=r"config\.json is not valid JSON"):
    save_config(load_config(spec), tmp_path)


def test_help_needs_none_of_the_heavy_packages(repo_root):
  code = (
    "import sys\n"
    "from rollingq_jax.main import main\n"
    "try:\n"
    "  main(['--help'])\n"
    "except SystemExit as error:\n"
    "  assert error.code == 0\n"
    "heavy = {'flax', 'orbax', 'grain', 'optax', 'matplotlib'}\n"
    "print(sorted(heavy & set(sys.modules)))\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=repo_root,
    capture_output=True,
    text=True,
    check=True,
  )
  assert "--config FILE[:ARG]" in done.stdout
  assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("def get_config(): return 1\n", "cannot be called with one argument"),
    ("def get_config(arg): return None\n", "returned NoneType"),
    ("def get_config(arg): return {}\n", "returned dict; expected a Config"),
  ],
)
def test_a_file_of_the_user_that_gives_no_config_is_named(
  tmp_path, text, message
):
  path = tmp_path / "mine.py"
  path.write_text(text)
  with pytest.raises(UserError, match=rf"mine\.py: .*{message}"):
    load_config(str(path))


@pytest.mark.parametrize(
  ("option", "field"),
  [("--seed=1", "seed"), ("--pretrained.file=a", "pretrained.file")],
)
def test_a_field_without_its_prefix_is_told_it(spec, option, field):
  with pytest.raises(UserError, match=f"did you mean --config.{field}"):
    load_config(spec, [option])


@pytest.fixture
def old_run(tmp_path):
  """Workdir of a run whose config had fewer fields, on another mesh."""
  config = load_config("configs/av_digits.py", ["--config.mesh.model=2"])
  save_config(config, tmp_path)
  path = tmp_path / "config.json"
  there = json.loads(path.read_text())
  del there["accumulate_steps"], there["model"]["remat"]
  del there["data"]["crop"], there["data"]["flip"]
  path.write_text(json.dumps(there))
  return tmp_path


def test_a_run_goes_on_with_fields_that_came_later_and_on_another_mesh(old_run):
  check_workdir(load_config("configs/av_digits.py"), old_run)
  assert read_config(old_run).mesh.model == 1
  assert read_config(old_run).accumulate_steps == 1
  # As it was always done.
  assert read_config(old_run).data.crop
  assert read_config(old_run).data.flip


def test_a_later_field_that_is_not_its_default_is_another_config(old_run):
  changed = load_config("configs/av_digits.py", ["--config.accumulate_steps=2"])
  with pytest.raises(UserError, match="accumulate_steps is 2, there 1"):
    check_workdir(changed, old_run)
