"""Made-up installations, and what is said of each."""

from rollingq_jax.doctor.findings import ERROR, NOTE, OK, WARNING
from rollingq_jax.doctor.packages import (
  EXTRAS,
  Package,
  accelerator_plugins,
  extras,
  imports,
  installed,
  needed,
  needs,
  not_needed,
)

JAX = Package(
  "0.10.2",
  (
    "jaxlib<=0.10.2,>=0.10.1",
    "libtpu==0.0.42.*; extra == 'tpu'",
    "jax-cuda13-plugin[with-cuda]==0.10.2; extra == 'cuda13'",
  ),
)
OURS = Package(
  "0.1.0",
  (
    "jax<0.13,>=0.10",
    "tensorboardX>=2",
    "av>=15,<19; extra == 'media'",
    "jax[cuda13]; extra == 'cuda'",
    "jax[tpu]; extra == 'tpu'",
    "never>=1; python_version < '3'",
  ),
)
GOOD = {
  "rollingq-jax": OURS,
  "jax": JAX,
  "jaxlib": Package("0.10.2"),
  "tensorboardx": Package("2.6.5", ("protobuf>=3.20",)),
  "protobuf": Package("7.1"),
}


def _by_name(findings):
  return {finding.name: finding for finding in findings}


def test_packages_that_fit_are_one_line():
  (found,) = needed(GOOD)
  assert found.status == OK
  assert "0.1.0, jax 0.10.2, jaxlib 0.10.2" in found.what


def test_the_installed_packages_fit():
  found = needed(installed())
  assert [f.status for f in found] == [OK], found


def test_a_jaxlib_that_jax_does_not_take():
  (found,) = needed({**GOOD, "jaxlib": Package("0.9.0")})
  assert (found.name, found.status) == ("jaxlib", ERROR)
  assert "0.9.0 is installed; jax needs <=0.10.2,>=0.10.1" in found.what
  assert found.mend == "pip install 'jaxlib<=0.10.2,>=0.10.1'"


def test_a_conflict_further_down_names_who_has_it():
  (found,) = needed({**GOOD, "protobuf": Package("3.19")})
  assert (found.name, found.status) == ("protobuf", ERROR)
  assert "tensorboardx needs >=3.20" in found.what


def test_what_is_missing_is_an_error():
  there = {name: p for name, p in GOOD.items() if name != "jaxlib"}
  (found,) = needed(there)
  assert found.what.startswith("not installed; jax needs jaxlib")


def test_without_metadata_nothing_is_claimed():
  assert needed({})[0].status == WARNING


def test_a_circle_of_requirements_ends():
  circle = {"a": Package("1", ("b",)), "b": Package("1", ("a[x]",))}
  assert [need.name for need in needs(circle, "a")] == ["b", "a"]


def test_extras_that_are_missing_are_no_mistake():
  found = _by_name(extras(GOOD))
  assert len(found) == len(EXTRAS)
  assert {f.status for f in found.values()} == {OK, NOTE}
  assert found["extra media"].status == NOTE
  assert "not installed (av)" in found["extra media"].what
  assert "pip install -e '.[media]'" in found["extra media"].what


def test_every_extra_of_the_package_but_dev_is_known(repo_root):
  text = (repo_root / "pyproject.toml").read_text()
  section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
  names = {line.split(" = [")[0] for line in section.splitlines()}
  assert {n for n in names if n.isidentifier()} - {"dev", "docs"} == set(EXTRAS)


def test_an_extra_of_a_wrong_version_is_a_warning():
  found = _by_name(extras({**GOOD, "av": Package("19.1")}))["extra media"]
  assert found.status == WARNING
  assert "av 19.1 is installed; rollingq-jax needs <19,>=15" in found.what
  assert found.mend == "pip install -e '.[media]' in the clone of rollingq_jax"


def test_a_plugin_of_another_version_than_jaxlib_is_an_error():
  old = {**GOOD, "jax-cuda13-plugin": Package("0.10.1")}
  (found,) = accelerator_plugins(old)
  assert (found.name, found.status) == ("jax-cuda13-plugin", ERROR)
  assert found.mend == "pip install 'jax-cuda13-plugin==0.10.2'"


def test_two_cuda_plugins_are_one_too_many():
  both = {f"jax-cuda{v}-plugin": Package("0.10.2") for v in (12, 13)}
  (found,) = accelerator_plugins({**GOOD, **both})
  assert found.mend == "pip uninstall jax-cuda12-plugin jax-cuda12-pjrt"


def test_cuda_libraries_that_another_package_has_pinned():
  plugin = Package(
    "0.10.2", ("nvidia-cudnn-cu13<10,>=9.12; extra == 'with-cuda'",)
  )
  there = {**GOOD, "jax-cuda13-plugin": plugin}
  assert accelerator_plugins(there)[0].status == OK
  there["nvidia-cudnn-cu13"] = Package("9.5")
  (found,) = accelerator_plugins(there)
  assert (found.name, found.status) == ("nvidia-cudnn-cu13", ERROR)


def test_libtpu_is_the_one_that_jax_asks_for():
  (found,) = accelerator_plugins({**GOOD, "libtpu": Package("0.0.42.1")})
  assert (found.name, found.status) == ("libtpu", OK)
  (found,) = accelerator_plugins({**GOOD, "libtpu": Package("0.0.30")})
  assert found.status == ERROR
  assert "jax needs ==0.0.42.*" in found.what


def test_without_plugins_it_is_the_cpu():
  assert "CPU only" in accelerator_plugins(GOOD)[0].what


def test_tensorflow_is_not_needed_and_should_not_be_loaded():
  there = {**GOOD, "tensorflow": Package("2.19")}
  assert [f.status for f in not_needed(there)] == [OK]
  assert [f.status for f in not_needed(there, {"tensorflow"})] == [WARNING]
  assert not_needed(GOOD) == []


def test_imports_that_fail_alike_are_one_line():
  def load(name):
    if name in ("a", "b"):
      raise TypeError("Descriptors cannot\nbe created directly")
    if name == "c":
      raise ImportError("libcuda.so")

  found = imports(("a", "b", "c", "d"), load)
  assert [f.status for f in found] == [ERROR, ERROR]
  assert found[0].what == (
    "a, b cannot be loaded: TypeError: Descriptors cannot be created directly"
  )
  assert imports(("d",), load)[0].status == OK
