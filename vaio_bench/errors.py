"""Every error a user can meet: one line, and an exit status."""

from __future__ import annotations


class VaioBenchError(Exception):
    """Base of the errors that end a command with one line on stderr."""

    exit_status = 1


class InputError(VaioBenchError):
    """A file, policy, option or row of the user is wrong: exit status 2."""

    exit_status = 2


class WorkError(VaioBenchError):
    """The work itself failed (I/O errors, verification, a law broken): exit status 1."""


class FilterHungError(WorkError):
    """A filter of another make lets go of nothing, or its prefill failed: it costs its round."""


class ServerLostError(WorkError):
    """An NBD server went away or cannot be understood any more: it costs its round."""


class ServerSilentError(ServerLostError):
    """An NBD server lets its whole timeout pass: it costs its round, and soon its policy."""
