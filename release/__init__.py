"""What `.ci/release` checks before a version is given out."""
