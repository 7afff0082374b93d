"""The command `cachelab`, and how JupyterLab is started."""

from cachelab.process.errors import OneSentence


class CommandError(OneSentence):
    """A command cannot do what it was asked for; the text says why, and what to do instead."""
