"""Clips of all kinds through the Python interface."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rollingq_jax.data.inputs import INPUTS_FILE, ask_data, parse_inputs
from rollingq_jax.errors import UserError
from rollingq_jax.predict import Item, Limits, Predictor, load_predictor
from rollingq_jax.predict.contents import kind_of
from rollingq_jax.predict.items import find_items, item_of


def only(results):
  (result,) = results
  return result


def test_results_come_while_clips_are_still_to_come(predictor, clips):
  seen = []

  def endless():
    for number in range(1000):
      seen.append(number)
      yield Item(str(number), (clips / "clip00.wav",))

  results = predictor(endless())
  assert next(results).clip == "0"
  assert len(seen) < 20
  assert [x.clip for x, _ in zip(results, range(7), strict=False)] == [
    str(x) for x in range(1, 8)
  ]


def test_the_model_is_compiled_once(predictor, clips, compilations):
  list(predictor([clips / "clip00.wav"]))
  compilations.clear()
  assert len(list(predictor([clips]))) == 17
  assert compilations == []


def test_a_clip_says_the_same_in_any_batch(predictor, clips):
  alone = only(predictor([clips / "clip02.png"]))
  among = {x.clip: x for x in predictor([clips / "clip02.png", clips])}
  both = item_of("x", clips / "clip02.wav", clips / "clip02.png")
  assert only(predictor([both])).probability == pytest.approx(
    among[str(clips / "clip02")].probability, abs=1e-6
  )
  assert alone.warnings == ("audio is missing",)


def test_videos_frames_and_features_are_told_apart(
  predictor, clips, write_video, tmp_path
):
  rng = np.random.default_rng(0)
  wave = 0.1 * rng.standard_normal(8000)
  write_video(tmp_path / "talk.mp4", waveform=wave)
  write_video(tmp_path / "mute.mp4")
  (tmp_path / "shots").mkdir()
  shutil.copy(clips / "clip00.png", tmp_path / "shots" / "1.png")
  shutil.copy(clips / "clip00.wav", tmp_path / "shots.wav")
  np.savez(tmp_path / "made.npz", audio=np.ones((20, 64), np.float32))
  results = {Path(x.clip).name: x for x in predictor([tmp_path])}
  warnings = {name: x.warnings for name, x in results.items()}
  assert warnings == {
    "talk.mp4": (),
    "mute.mp4": ("audio is missing",),
    "shots": (),
    "made.npz": ("visual is missing", "audio is the same all over"),
  }
  assert all(x.error is None for x in results.values())


def test_what_is_no_one_clip(predictor, clips, tmp_path):
  for name in ("a.wav", "a.mp3", "b.wav"):
    shutil.copy(clips / "clip00.wav", tmp_path / name)
  np.save(tmp_path / "c.npy", np.ones((4, 64), np.float32))
  np.savez(tmp_path / "b.npz", audio=np.ones((4, 64), np.float32))
  (tmp_path / "d.txt").write_text("hello")
  errors = {Path(x.clip).name: x.error for x in predictor([tmp_path])}
  assert "more than one of them is of kind sound" in errors["a"]
  assert "more than one of them is of kind features" in errors["b"]
  assert "does not say of which modality" in errors["c.npy"]
  assert "has none of audio, visual" in errors["d.txt"]


def test_playlists_open_no_other_file(predictor, clips, tmp_path):
  film = clips / "clip00.wav"
  texts = {
    "a.m3u8": f"#EXTM3U\n#EXTINF:1,\n{film}\n#EXT-X-ENDLIST\n",
    "b.wav": f"ffconcat version 1.0\nfile {film}\n",
    "c.mp4": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\na={film}\n",
  }
  for name, text in texts.items():
    (tmp_path / name).write_text(text)
  for result in predictor([tmp_path]):
    assert "cannot be read" in result.error


@pytest.mark.parametrize(
  ("arrays", "said"),
  [
    ({"audio": np.ones((49, 64))}, "expected (48, 64), or fewer steps"),
    ({"audio": np.ones((4, 63))}, "expected (48, 64), or fewer steps"),
    ({"audio": np.full((4, 64), np.nan)}, "not finite"),
    ({"sound": np.ones((4, 64))}, "an array 'sound'"),
    ({"audio_mask": np.ones(4, bool)}, "no array of a modality"),
    ({"audio": np.array([["a"]])}, "has the shape (1, 1)"),
    ({"visual": np.ones((2, 32, 32, 3))}, "expected uint8"),
    ({"audio": np.array([{}])}, "has the shape (1,)"),
    (
      {"audio": np.ones((4, 64)), "audio_mask": np.zeros(4, bool)},
      "none of audio, visual",
    ),
  ],
)
def test_features_that_do_not_fit(predictor, tmp_path, arrays, said):
  np.savez(tmp_path / "a.npz", **arrays)
  assert said in only(predictor([tmp_path / "a.npz"])).error


def test_features_are_what_media_become(predictor, clips, tmp_path):
  item = item_of("x", clips / "clip02.wav", clips / "clip02.png")
  arrays = predictor.read(item).arrays
  np.savez(tmp_path / "a.npz", **arrays)
  made = only(predictor([tmp_path / "a.npz"]))
  assert made.probabilities == only(predictor([item])).probabilities


def test_a_bomb_is_not_unpacked(predictor, tmp_path):
  path = tmp_path / "a.npz"
  with (
    zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
    archive.open("audio.npy", "w") as file,
  ):
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 64)}
    np.lib.format.write_array_header_1_0(file, header)
    file.write(bytes(1 << 20))
  error = only(predictor([path])).error
  assert "has the shape (1000000000, 64)" in error


def test_limits(workdir, clips):
  small = load_predictor(workdir, limits=Limits(bytes=100))
  assert "more than the 0.0001" in only(small([clips / "clip00.wav"])).error


def test_a_model_of_features_takes_no_media(untrained, prepare, tmp_path):
  rng = np.random.default_rng(0)
  rows = ["id,split,label,audio,frames"]
  for index, split in enumerate(("train", "validation", "test") * 2):
    for name, width in (("a", 2), ("v", 3)):
      values = rng.standard_normal((4, width)).astype(np.float32)
      np.save(tmp_path / f"{name}{index}.npy", values)
    rows.append(f"c{index},{split},{index % 2},a{index}.npy,v{index}.npy")
  (tmp_path / "my.csv").write_text("\n".join(rows))
  model = untrained(
    prepare(tmp_path / "my.csv"),
    "fusion=late",
    data__shapes__audio="(6, 2)",
    data__shapes__visual="(5, 3)",
    model__encoders__audio__kind="sequence",
    model__encoders__visual__kind="sequence",
  )
  predictor = Predictor(model, batch_size=2)
  both = item_of("both", tmp_path / "a0.npy", tmp_path / "v0.npy")
  swapped = item_of("swapped", tmp_path / "v0.npy", tmp_path / "a0.npy")
  picture = item_of("picture", tmp_path / "a0.npy", _picture(tmp_path))
  good, wrong, seen = predictor([both, swapped, picture])
  assert (good.error, good.attention_share) == (None, None)
  assert "audio has 3 features a time step; the model takes 2" in wrong.error
  assert "takes features of frames (.npy), not pictures" in seen.error
  media = Predictor(
    model._replace(inputs=model.inputs._replace(recipe=None)), batch_size=2
  )
  assert "was trained on features" in only(media([both])).error


def _picture(folder):
  image = pytest.importorskip("PIL.Image")
  image.new("RGB", (8, 8)).save(folder / "p.png")
  return folder / "p.png"


def test_a_run_tells_what_its_data_would(workdir, untrained, clips, prepare):
  said = parse_inputs(workdir / INPUTS_FILE)
  model = load_predictor(workdir).model
  assert said == ask_data(model.config) == model.inputs
  assert said.class_names == ("high", "low")


def test_without_data_and_file_it_says_what_is_missing(workdir, tmp_path):
  copy = tmp_path / "copy"
  shutil.copytree(workdir, copy)
  (copy / INPUTS_FILE).unlink()
  where = f"--config.data.data_dir={tmp_path / 'none'}"
  with pytest.raises(UserError, match=r"has no inputs\.json") as caught:
    load_predictor(copy, overrides=[where])
  assert "is not a folder" in str(caught.value)
  assert load_predictor(copy).model.inputs.class_names == ("high", "low")
  (copy / INPUTS_FILE).write_text("{}")
  with pytest.raises(UserError, match="is damaged"):
    load_predictor(copy)
  shutil.rmtree(copy / "checkpoints")
  with pytest.raises(UserError):
    load_predictor(copy)


def test_the_workdir_stays_as_it_was(workdir, predictor, clips):
  before = {x: x.stat().st_mtime_ns for x in workdir.rglob("*")}
  only(load_predictor(workdir)([clips / "clip00.wav"]))
  assert before == {x: x.stat().st_mtime_ns for x in workdir.rglob("*")}


def test_files_of_one_name_are_one_clip(tmp_path):
  for name in ("a.wav", "a.png", "b.wav", "deep/a.wav", "f/1.png", "f.wav"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  found = {
    str(Path(x.name).relative_to(tmp_path)): [y.name for y in x.files]
    for x in find_items([tmp_path])
  }
  assert found == {
    "a": ["a.png", "a.wav"],
    "b.wav": ["b.wav"],
    "deep/a.wav": ["a.wav"],
    "f": ["f", "f.wav"],
  }


def test_folders_in_circles_and_empty_ones(tmp_path):
  (tmp_path / "a.wav").touch()
  (tmp_path / "empty").mkdir()
  (tmp_path / "round").symlink_to(tmp_path)
  names = {Path(x.name).name for x in find_items([tmp_path])}
  assert names == {"a.wav", "round"}


def test_the_content_decides(clips, tmp_path):
  shutil.copy(clips / "clip00.png", tmp_path / "x.wav")
  shutil.copy(clips / "clip00.wav", tmp_path / "y.png")
  assert kind_of(tmp_path / "x.wav") == "frames"
  assert kind_of(tmp_path / "y.png") == "sound"
