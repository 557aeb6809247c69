"""What a further destination of a version is."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar

from components.common.registry.entry import RegistryEntry


class Destination(abc.ABC):
    """A place that gets a copy of a published version.

    Attributes:
        name: by which a person asks for it: `hub`, `model-registry`, `full-pipeline`.
        flags: what the command `push` is given to reach the same place.
    """

    name: ClassVar[str]
    flags: Sequence[str]

    @abc.abstractmethod
    def plan(self, entry: RegistryEntry) -> str:
        """What `push` would do with a version, in words; nobody is asked."""

    @abc.abstractmethod
    def push(self, entry: RegistryEntry) -> str:
        """The address of the version there, now that it has it; what is there already is not written again.

        An attempt that was broken off is gone on with. What is found of another content is left as it is.

        Raises:
            TextualInversionError: when the place does not take it, or has something else under that name.
        """
