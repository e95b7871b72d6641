"""Checks of a machine before a run: each finding says how to mend it.

One file a group of checks. A check takes what it looks at as arguments and
returns findings; it changes nothing and leaves nothing behind.
"""
