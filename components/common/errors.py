"""What can go wrong, as one exception tree.

    TextualInversionError        exit code 1
    ├── InputError               exit code 2: what the user gave cannot be used
    │   ├── ConfigError          a parameter has a value that cannot be right
    │   ├── ImageError           a picture or a source of pictures
    │   ├── TokenError           a placeholder or an initializer token
    │   └── BaseModelError       a base-model folder or reference
    ├── ArtifactError            exit code 3: an artifact is damaged, newer, or of another kind
    ├── StorageError             exit code 4: object storage does not do what was asked
    │   ├── ObjectNotFoundError  there is nothing at that address
    │   └── PreconditionError    somebody else changed the object first
    ├── TrainingError            exit code 5: training cannot go on
    │   ├── DivergedError        loss or rows are no longer finite
    │   ├── LostProcessError     another process of the training is gone; the last completed step is kept
    │   └── InterruptedTraining  exit code 143: asked to stop; the last completed step is kept
    ├── ClusterError             exit code 6: Kubernetes does not do what was asked
    ├── DestinationError         exit code 7: a further destination lacks a version, which is in the registry
    └── StoppedRun               exit code 128 + the signal's number: a local run was asked to stop

A message says what was found, what was expected, where, and what to do next.
"""

from __future__ import annotations

from components.common.printable import printable


class TextualInversionError(Exception):
    """Base of every error that this project raises on purpose: one thing that is wrong, or several at once.

    Each is one line that can be shown as it is, whatever it quotes: see `printable`.
    """

    exit_code = 1

    def __init__(self, *mistakes: str) -> None:
        self.mistakes = tuple(dict.fromkeys(map(printable, mistakes)))
        super().__init__("; ".join(self.mistakes))


class InputError(TextualInversionError):
    """What the user gave cannot be used."""

    exit_code = 2


class ConfigError(InputError):
    """A parameter has a value that cannot be right."""


class ImageError(InputError):
    """A picture, or a source of pictures, cannot be used."""


class TokenError(InputError):
    """A placeholder or an initializer token cannot be used."""


class BaseModelError(InputError):
    """A base-model folder or reference cannot be used."""


class ArtifactError(TextualInversionError):
    """An artifact is damaged, newer than this release, or of another kind."""

    exit_code = 3


class StorageError(TextualInversionError):
    """Object storage does not do what was asked."""

    exit_code = 4


class ObjectNotFoundError(StorageError):
    """There is nothing at that address."""


class PreconditionError(StorageError):
    """The object was changed by somebody else first, or exists already."""


class TrainingError(TextualInversionError):
    """Training cannot go on."""

    exit_code = 5


class DivergedError(TrainingError):
    """The loss or the rows are no longer finite."""


class LostProcessError(TrainingError):
    """Another process of the training is gone; the last completed step is kept."""


class InterruptedTraining(TrainingError):
    """Training was asked to stop; the last completed step is kept."""

    exit_code = 143  # what a shell reports for SIGTERM


class ClusterError(TextualInversionError):
    """Kubernetes does not do what was asked."""

    exit_code = 6


class DestinationError(TextualInversionError):
    """A further destination lacks a version, which is in the registry."""

    exit_code = 7


class StoppedRun(TextualInversionError):
    """A local run was asked to stop by a signal."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number  # what a shell reports
