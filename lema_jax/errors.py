"""The error that a user can mend; `cli` tells it in one line."""


class UserError(ValueError):
    """Something the user can mend. Its text says what was found, where (file:line, field), and what to do."""
