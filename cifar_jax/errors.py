"""The one exception that a user is meant to see."""


class UserError(Exception):
    """Input, file or environment that the user can mend.

    The message is one line: what was wrong, where, and what is allowed. The command line
    prints it without a traceback and exits with status 2.
    """
