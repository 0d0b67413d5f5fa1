"""Errors a user may meet: what happened, what was got, what was wanted, what to change."""

DONE = 0
FAILED = 1  # bad numbers, a save that failed
MISTAKE = 2  # configuration, data, flags: one message, no traceback
RESUMABLE = 75  # stopped early; the same command goes on


class SeirenesError(Exception):
    """An error with a message for the user and an exit code."""

    exit_code = FAILED


class ConfigError(SeirenesError):
    """A knob, flag or combination that cannot work."""

    exit_code = MISTAKE


class DataError(SeirenesError):
    """A file of problems or hints that cannot be used."""

    exit_code = MISTAKE


class CheckpointError(SeirenesError):
    """A save or restore that did not hold."""


class SaveError(CheckpointError):
    """Nothing was lost that was saved before, but this save failed."""


class NumbersError(SeirenesError):
    """Loss, gradient or logprob went bad."""


class JudgeError(SeirenesError):
    """The judge itself (not an answer) is broken."""


class PlayError(SeirenesError):
    """A game or a sampler broke the agreement between them."""


class Stopped(SeirenesError):
    """Asked to stop (SIGTERM, Ctrl-C, preemption); everything needed to go on is on disk."""

    exit_code = RESUMABLE
