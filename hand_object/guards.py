"""The guards of hand-object reconstruction, by name; there are none of its own yet."""

NAMES: tuple[str, ...] = ()
