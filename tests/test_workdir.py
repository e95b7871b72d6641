"""A run whose folder is in a bucket: what is written where, and when.

The bucket is a folder of this machine. Arrays go to real buckets by
TensorStore, which knows no stand-in, so checkpoints are redirected.
"""

import pytest
from etils import epath

from rollingq_jax.errors import UserError
from rollingq_jax.main import main
from rollingq_jax.training import loop
from rollingq_jax.training.checkpoint import Checkpoints
from rollingq_jax.workdir import Mirror


def test_what_has_changed_is_pushed_and_what_the_bucket_has_is_fetched(bucket):
  (bucket / "run" / "report").mkdir(parents=True)
  (bucket / "run" / "config.json").write_text("{}")
  (bucket / "run" / "report" / "curves.png").write_bytes(b"png")
  (bucket / "run" / "checkpoints" / "5").mkdir(parents=True)
  mirror = Mirror(bucket / "run")
  mirror.folder.mkdir(parents=True)
  (mirror.folder / "left over").touch()
  mirror.fetch()
  names = sorted(path.name for path in mirror.folder.rglob("*"))
  assert names == ["config.json", "curves.png", "report"]
  (mirror.folder / "metrics.jsonl").write_text("one\n")
  mirror.push()
  assert (bucket / "run" / "metrics.jsonl").read_text() == "one\n"
  # What has not changed is left alone.
  (bucket / "run" / "metrics.jsonl").write_text("theirs\n")
  mirror.push()
  assert (bucket / "run" / "metrics.jsonl").read_text() == "theirs\n"


def test_a_bucket_that_cannot_be_reached_is_one_clear_line(monkeypatch, bucket):
  def refuse(self: object) -> bool:
    raise PermissionError("403")

  mirror = Mirror(bucket / "run")
  monkeypatch.setattr(type(mirror.bucket), "exists", refuse)
  with pytest.raises(UserError, match=r"gs://bucket/run cannot be read: .*403"):
    mirror.fetch()


def test_a_run_in_a_bucket_goes_on_from_it(
  bucket, monkeypatch, tmp_path, capsys, repo_root
):
  seen = []

  class Here(Checkpoints):
    """In the folder of the test, instead of the bucket."""

    def __init__(self, workdir, *arguments):
      assert workdir == epath.Path("gs://bucket/runs/a")
      super().__init__(tmp_path, *arguments)

    def save(self, *arguments):
      super().save(*arguments)
      lines = (bucket / "runs" / "a" / "metrics.jsonl").read_text()
      seen.append(lines.count('"validation"'))

  monkeypatch.setattr(loop, "Checkpoints", Here)
  small = ("model.depth=1", "model.width=16", "total_epochs=2")
  small += ("optimizer.warmup_epochs=0.5", "evaluation.noise_levels=()")
  words = ["--config", str(repo_root / "configs" / "av_digits.py")]
  words += ["--workdir", "gs://bucket/runs/a"]
  words += [f"--config.{field}" for field in small]
  assert main(words) == 0
  # Lines are there before the checkpoint that they belong to.
  assert seen == [1, 2]
  names = {path.name for path in (bucket / "runs" / "a").iterdir()}
  assert {"config.json", "cost.json", "metrics.jsonl", "report"} <= names
  capsys.readouterr()
  assert main(words) == 0
  assert "resuming after step 50" in capsys.readouterr().out
