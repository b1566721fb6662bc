"""The one exception that means "the user can fix this".

The CLI prints its text on one line and exits with status 2, without a traceback. Anything else that escapes is our bug.
"""


class UserError(Exception):
    """A mistake in a recipe, a file, a name or the machine's size.

    The message is one line and says what, where, the limit, and the remedy, as in
    ``game.responses: 0 is below 1; set game.responses to at least 1``.
    """
