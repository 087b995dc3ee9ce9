"""The one exception of this part: a sentence for the person at the keyboard."""


class WebappError(ValueError):
    """What was found, what was expected, and the way out."""
