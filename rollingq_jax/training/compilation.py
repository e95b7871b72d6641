"""Compiled programs that outlive a process."""

import jax
import platformdirs


def keep_compiled_programs() -> None:
  """Turns on jax's persistent compilation cache, unless the user set one."""
  if not jax.config.jax_compilation_cache_dir:  # pyright: ignore
    folder = platformdirs.user_cache_path("rollingq_jax") / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
