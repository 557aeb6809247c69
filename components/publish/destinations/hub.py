"""A version as one commit and one tag of a repository on the Hugging Face Hub.

The branch `main` shows the newest version that was put there; `v3` is the tag of version 3. A push first looks at what
is there, so that one that was broken off, or whose answer was lost, goes on where it was; nothing is done twice.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from components.common.base_model import human_size
from components.common.errors import DestinationError
from components.common.registry import registry, versions
from components.common.registry.entry import MANIFEST, RegistryEntry
from components.common.sources.models import hub_api
from components.common.storage.retries import one_line, with_retries
from components.publish.destinations.destination import Destination

if TYPE_CHECKING:
    from huggingface_hub.hf_api import HfApi, ModelInfo

logger = logging.getLogger(__name__)

_MAIN = "main"
_TAG = re.compile(r"v([1-9][0-9]*)")
_TOKEN = "set HF_TOKEN, or HF_TOKEN_PATH to a file with it; pods have it from the secret textual-inversion-hub-token"
_ADVICE = "Check that the Hub is up and can be reached (HF_ENDPOINT, HTTPS_PROXY)"


class Hub(Destination):
    """The Hugging Face Hub, or that of `HF_ENDPOINT`, with the token of `HF_TOKEN` or of the file `HF_TOKEN_PATH`."""

    name = "hub"

    def __init__(self, repository: str, *, private: bool) -> None:
        """Takes `owner/name` or a name of the token's own user, empty for the concept's, and who may see a new one."""
        self._repository = repository
        self._private = private
        self.flags = [*(["--hub-model-id", repository] if repository else []), f"--hub-private={private}".lower()]

    def plan(self, entry: RegistryEntry) -> str:
        """See `Destination.plan`."""
        size = human_size(sum(record.size for record in entry.files.values()))
        repository = self._repository or entry.concept
        if "/" not in repository:
            repository = f"the token's user/{repository}"
        made = "private" if self._private else "public"
        return (
            f"commits {len(entry.files)} files ({size}) to {hub_api().endpoint}/{repository}, made {made} where there "
            f"is none, and tags the commit {_tag(entry)}"
        )

    def push(self, entry: RegistryEntry) -> str:
        """See `Destination.push`."""
        from huggingface_hub import get_token

        if get_token() is None:
            raise DestinationError(f"found no token for the Hugging Face Hub: {_TOKEN}")
        api = hub_api()
        with tempfile.TemporaryDirectory(prefix="hub-") as scratch:
            folder = registry.fetch(entry, Path(scratch) / "version")
            (folder / MANIFEST).unlink()

            def attempt(number: int) -> str:
                repository = self._repository or entry.concept
                if "/" not in repository:
                    repository = f"{api.whoami()['name']}/{repository}"
                return _Push(api, repository, entry, folder).run(private=self._private)

            return with_retries(api.endpoint, attempt, _problem, asked_wait=_asked_wait, advice=_ADVICE)


class _Push:
    """One attempt to bring a version, whose files are in a local folder, into a repository."""

    def __init__(self, api: HfApi, repository: str, entry: RegistryEntry, folder: Path) -> None:
        self._api = api
        self._repository = repository
        self._entry = entry
        self._folder = folder

    def run(self, *, private: bool) -> str:
        api, repository, tag = self._api, self._repository, _tag(self._entry)
        address = f"{api.endpoint}/{repository}/tree/{tag}"
        if not api.repo_exists(repository):
            api.create_repo(repository, private=private, exist_ok=True)
        refs = api.list_repo_refs(repository)
        if tag in {each.name for each in refs.tags}:
            self._check(tag, address)
        else:
            numbers = [int(found[1]) for found in (_TAG.fullmatch(each.name) for each in refs.tags) if found]
            self._add_tag(tag, is_newest=self._entry.version > max(numbers, default=0))
        if self._aside in {each.name for each in api.list_repo_refs(repository).branches}:
            api.delete_branch(repository, branch=self._aside)
        logger.info("the Hub has it: %s", address)
        return address

    @property
    def _aside(self) -> str:
        """The branch on which a version is made that is older than what `main` shows."""
        return f"version-{self._entry.version}"

    def _check(self, tag: str, address: str) -> None:
        found = self._api.model_info(self._repository, revision=tag, files_metadata=True)
        if different := list(self._different(found)):
            raise DestinationError(
                f"{address} has other content than {self._entry.uri} ({', '.join(different[:3])}), expected a tag "
                "that never changes: delete the tag there, or give another hub_model_id"
            )

    def _add_tag(self, tag: str, *, is_newest: bool) -> None:
        if not is_newest:
            self._api.create_branch(self._repository, branch=self._aside, exist_ok=True)
        commit = self._commit(_MAIN if is_newest else self._aside)
        self._api.create_tag(self._repository, tag=tag, revision=commit)

    def _commit(self, branch: str) -> str:
        """The commit at the head of a branch that has the version's files: the one that is there, or a new one."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        head = self._api.model_info(self._repository, revision=branch, files_metadata=True)
        stale = self._files_of_other_versions() & {each.rfilename for each in head.siblings or ()}
        if not stale and not any(self._different(head)):
            return str(head.sha)
        names = sorted(self._entry.files)
        commit = self._api.create_commit(
            self._repository,
            [
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=self._folder / name) for name in names),
                *(CommitOperationDelete(path_in_repo=name) for name in sorted(stale)),
            ],
            commit_message=f"Version {self._entry.version} of {self._entry.concept}",
            commit_description=f"Bundle {self._entry.bundle_digest}",
            revision=branch,
            parent_commit=head.sha,
        )
        return commit.oid

    def _files_of_other_versions(self) -> set[str]:
        """Names that some version of the concept has and this one has not; what else is there is somebody else's."""
        entries = versions.read_entries(registry.store_of(self._entry))
        return {name for entry in entries for name in entry.files} - set(self._entry.files)

    def _different(self, found: ModelInfo) -> Iterable[str]:
        """The version's files that are missing in a commit or have other content there."""
        from huggingface_hub.utils.sha import git_hash

        there = {each.rfilename: each for each in found.siblings or ()}
        for name, record in self._entry.files.items():
            file = there.get(name)
            if file is None:
                yield name
            elif file.lfs:
                if file.lfs.sha256 != record.sha256:
                    yield name
            elif file.blob_id != git_hash((self._folder / name).read_bytes()):
                yield name


def _tag(entry: RegistryEntry) -> str:
    return f"v{entry.version}"


def _asked_wait(error: Exception) -> float:
    """The seconds after which the Hub wants to be asked again; 0 where it does not say."""
    from huggingface_hub.errors import HfHubHTTPError

    told = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    return float(told) if told.isdecimal() else 0.0


def _problem(error: Exception) -> Exception | None:
    """The error to raise for a failure of the client library; None when trying again can help."""
    from huggingface_hub import errors as hub

    match error:
        case hub.OfflineModeIsEnabled():
            return DestinationError("HF_HUB_OFFLINE is set, expected the Hub to be asked: unset it")
        case hub.HFValidationError():
            return DestinationError(f"the Hub takes no such name ({one_line(error)}): give another hub_model_id")
        case hub.HfHubHTTPError():
            return _problem_of_answer(error, error.response.status_code)
        case RuntimeError() if isinstance(error.__cause__, Exception):  # of the upload of a large file
            return _problem(error.__cause__)
        case ConnectionError() | TimeoutError():
            return None
        case ValueError() | KeyError() | TypeError() | OSError():  # an answer that is none, a file that is gone
            return DestinationError(f"the Hub gives no usable answer ({one_line(error)}): is HF_ENDPOINT a Hub?")
    # The HTTP client's own errors; it is httpx for releases 1 of huggingface_hub and httpx2 from 2 on.
    return None if type(error).__module__.partition(".")[0] in ("httpx", "httpx2") else error


def _problem_of_answer(error: Exception, status: int) -> Exception | None:
    match status:
        case 401:
            return DestinationError(f"the Hub does not take the token, which is wrong or has expired: {_TOKEN}")
        case 403:
            return DestinationError(
                f"the Hub does not let the token write there ({one_line(error)}): give it the right to write to the "
                "repository, or another hub_model_id"
            )
        case 408 | 409 | 412 | 429:  # 409, 412: somebody else was there first; the next attempt looks at what they did
            return None
        case _ if status >= 500:
            return None
    return DestinationError(f"the Hub refuses the request: {one_line(error)}")
