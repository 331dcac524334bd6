"""What the command line reports as one clear line instead of a traceback."""


class TrainerError(Exception):
    """An expected failure; the message says what is wrong and what to do."""
