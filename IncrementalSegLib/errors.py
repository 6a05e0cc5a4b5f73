"""Errors a person can act on: what is wrong, in which file or organ, and what to do about it."""


class IncrementalSegError(Exception):
    """Base of every error that is the user's to mend; its text is one clear sentence, shown without a traceback."""

    exit_code = 1


class InputError(IncrementalSegError):
    """A scan, label map, organ list or option cannot be used as it is."""

    exit_code = 2


class PackageError(IncrementalSegError):
    """A model package is damaged, too new, or does not fit its own description."""

    exit_code = 3


class StorageError(IncrementalSegError):
    """Something could not be written: disk full, no permission, folder in use."""

    exit_code = 4


class Cancelled(IncrementalSegError):
    """The user stopped the work; the job folder can be resumed."""

    exit_code = 130
