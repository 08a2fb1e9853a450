"""The one error that a user caused and can fix; everything else is a bug and keeps its traceback."""


class UserError(Exception):
    """Something the user can fix. The command line prints it without a traceback and exits with 2."""
