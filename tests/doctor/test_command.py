"""The command itself, in processes of its own and with mistakes."""

import json
import os
import socket
import subprocess
import sys

import pytest

from rollingq_jax.doctor import hardware
from rollingq_jax.doctor.__main__ import main

FIELDS = ["process", "group", "name", "status", "what", "mend"]


@pytest.fixture
def start(repo_root, tmp_path):
  """Starts the command, with variables of the environment besides."""

  def start(*arguments, **variables):
    environment = {
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "XDG_CACHE_HOME": str(tmp_path / "cache"),
      **variables,
    }
    return subprocess.Popen(
      [sys.executable, "-m", "rollingq_jax.doctor", *arguments],
      cwd=repo_root,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  return start


def _by_name(page):
  return {finding["name"]: finding for finding in page["findings"]}


def test_all_is_well(start, tmp_path):
  workdir = tmp_path / "runs" / "a"
  process = start(
    *("--json", "--megabytes", "1", "--workdir", str(workdir)),
    *("--config", "configs/av_digits.py:fusion=concat"),
    JAX_NUM_CPU_DEVICES="4",
  )
  out, err = process.communicate(timeout=120)
  assert process.returncode == 0, out + err
  page = json.loads(out)
  found = _by_name(page)
  assert all(list(finding) == FIELDS for finding in page["findings"])
  assert {"rollingq_jax", "imports", "host memory", "devices"} < found.keys()
  assert {"mesh", "compilation cache", "workdir", "disk"} < found.keys()
  assert "right over 4 devices" in found["all-reduce"]["what"]
  assert "av_digits: train 1600" in found["data"]["what"]
  assert os.listdir(tmp_path) == []


@pytest.mark.skipif(
  hardware.look().accelerators is not None, reason="there is an accelerator"
)
def test_everything_that_is_wrong_is_said_at_once(start, tmp_path):
  (tmp_path / "file").write_text("")
  process = start(
    *("--megabytes", "1", "--workdir", str(tmp_path / "file")),
    *("--config", "configs/cremad.py", "--config.batch_size=6"),
    *("--config.pretrained.file=nope.npz",),
    JAX_NUM_CPU_DEVICES="4",
    JAX_PLATFORMS="",
  )
  out, err = process.communicate(timeout=120)
  assert process.returncode == 1, err
  assert "Traceback" not in out + err
  for line in (
    "error   devices: 4 x cpu, which was not asked for",
    "error   mesh: config.batch_size 6 does not divide over 4 devices",
    f"error   workdir: {tmp_path}/file is a file",
    "error   data: config.data.name is 'cremad' and config.data.data_dir is",
    "error   weights: ",
  ):
    assert line in out.replace("\n          ", " ")
  assert out.endswith(", 5 errors\n")


def test_a_jax_that_cannot_be_loaded_is_a_line(start, repo_root, tmp_path):
  text = "raise RuntimeError('jaxlib is older than\\nthis jax')"
  (tmp_path / "jax.py").write_text(text)
  process = start(PYTHONPATH=f"{tmp_path}:{repo_root}")
  out, err = process.communicate(timeout=120)
  assert process.returncode == 1
  assert "Traceback" not in out + err
  assert "RuntimeError: jaxlib is older than this jax" in out.replace(
    "\n          ", " "
  )


def test_two_processes_make_one_page(start, tmp_path):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  together = ("--coordinator", address, "--num_processes", "2")
  common = ("--json", "--megabytes", "1", "--workdir", str(tmp_path / "run"))
  config = ("--config", "configs/av_digits.py:fusion=concat")
  processes = [
    start(
      *(*common, *config, *together, "--process_id", str(i)),
      f"--config.data.num_threads={threads}",
      JAX_NUM_CPU_DEVICES="2",
    )
    for i, threads in enumerate((1, 999))
  ]
  (out, err), (other_out, _) = (p.communicate(timeout=180) for p in processes)
  assert [p.returncode for p in processes] == [1, 1], out + err
  assert other_out == ""
  page = json.loads(out)
  found = _by_name(page)
  assert (page["processes"], page["status"]) == (2, "error")
  assert found["devices"]["what"] == "4 x cpu in 2 processes, 2 of this one"
  assert "right over 4 devices" in found["all-reduce"]["what"]
  assert found["shared workdir"]["status"] == "ok"
  # The configs differ, and the second one's is a bad idea.
  assert found["same config"]["status"] == "error"
  other = [f for f in page["findings"] if f["process"] == 1]
  assert [f["name"] for f in other] == ["cpu cores"]
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["--jsn"], "'--jsn' is no option"),
    (["--config.seed=1"], "needs --config FILE"),
    (["--megabytes", "0"], "expected a number above 0"),
    (["--config", "configs/av_digit.py"], "did you mean configs/av_digits.py?"),
    (["--config", "configs/av_digits.py", "--config.sed=1"], "config.seed"),
    (["--num_processes", "2"], "--coordinator is missing"),
  ],
)
def test_mistakes_in_the_command_line(
  arguments, said, capfd, monkeypatch, repo_root
):
  monkeypatch.chdir(repo_root)
  assert main(arguments) == 2
  out, err = capfd.readouterr()
  assert out == ""
  assert err.startswith("error: ")
  assert said in err
  assert err.count("\n") == 1
