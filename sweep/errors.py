"""The one exception that means: what was asked for is wrong, and here is what to do."""


class InputError(ValueError):
    """Bad input from the user. The message names the field, the value and the remedy; the command line prints it
    on one line and exits with code 2."""
