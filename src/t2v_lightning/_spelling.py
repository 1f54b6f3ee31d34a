"""What somebody may have meant who wrote a name that does not exist."""

import difflib
from collections.abc import Iterable


def did_you_mean(got: object, known: Iterable[str], how: str = "; did you mean {}?") -> str:
    """The end of an error, with the nearest of the known names; nothing where none is near.

    >>> did_you_mean("facse", ["digits", "faces"])
    "; did you mean 'faces'?"
    >>> did_you_mean("zebra", ["digits", "faces"])
    ''
    """
    near = difflib.get_close_matches(str(got), list(known), n=1)
    return how.format(repr(near[0])) if near else ""
