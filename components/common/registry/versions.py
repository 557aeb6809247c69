"""How a version comes into a registry: its number is claimed first, its manifest is written last.

    versions/3/claim.json              created if absent: number 3 belongs to the bundle whose digest it holds
    versions/3/learned_embeds...       every file created if absent
    versions/3/manifest.json           created if absent: the version is published

Whoever publishes the same bundle again, after being killed or in another run, finds the claim by the bundle's
digest and goes on there. Every object is a pure function of the claim and the bundle, so two of them at once
write the same, and what is found damaged or missing is written again.

A damaged document stops nothing but its own version: claim and manifest stand in for each other.

Where a tombstone stands for the manifest (see `tombstones.py`), the version is gone and its number stays taken. A
publisher that finds one, be it at its very last write, begins again with another number.
All functions take the store of one concept, `<registry_uri>/<concept>`.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime
import functools
import logging
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from components.common.errors import (
    ArtifactError,
    InputError,
    ObjectNotFoundError,
    PreconditionError,
    StorageError,
)
from components.common.prompts import concept_name
from components.common.registry.documents import from_document, record_from, to_document
from components.common.registry.entry import MANIFEST, Bundle, FileRecord, RegistryEntry
from components.common.registry.tombstones import DeletedVersionError, Tombstone, tombstone_in, write_or_mend
from components.common.storage import ObjectInfo, ObjectStore

logger = logging.getLogger(__name__)

Document = TypeVar("Document")

_KIND = "registry-claim"
_CLAIM = "claim.json"
_TAKEN_KEY = re.compile(rf"versions/([1-9][0-9]*)/(?:{re.escape(_CLAIM)}|{re.escape(MANIFEST)})")
_MANIFEST_KEY = re.compile(rf"versions/([1-9][0-9]*)/{re.escape(MANIFEST)}")
_OBJECT_KEY = re.compile(r"versions/([1-9][0-9]*)/.+")
_READERS = 16
_ATTEMPTS = 10
RENEWED_AFTER = datetime.timedelta(hours=1)
"""Age of a claim from which on who completes its version writes it again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """Who owns a version number: the bundle, the run that took it first, and when (ISO 8601, UTC)."""

    bundle_digest: str
    run_id: str
    created: str


def version_key(number: int, name: str = "") -> str:
    """The key of a version's folder, or of the file `name` in it."""
    return f"versions/{number}/{name}" if name else f"versions/{number}"


def claimed_numbers(store: ObjectStore) -> list[int]:
    """The version numbers that are taken, published or not yet, lowest first."""
    return _numbers_of(_TAKEN_KEY, store)


def objects_by_version(store: ObjectStore) -> dict[int, list[ObjectInfo]]:
    """What lies in the folder of each version number, lowest number first, whatever state it is in."""
    found: dict[int, list[ObjectInfo]] = {}
    for info in store.list("versions/"):
        if match := _OBJECT_KEY.fullmatch(info.key):
            found.setdefault(int(match.group(1)), []).append(info)
    return dict(sorted(found.items()))


def read_tombstones(store: ObjectStore) -> dict[int, Tombstone]:
    """The tombstones by the version numbers that they stand for, lowest first."""
    numbers = _numbers_of(_MANIFEST_KEY, store)
    found = zip(numbers, _read_all(_tombstone, store, numbers), strict=True)
    return {number: tombstone for number, tombstone in found if tombstone}


def read_claim(store: ObjectStore, number: int) -> Claim:
    """The claim of a version number.

    Raises:
        ObjectNotFoundError: when the number is free.
        ArtifactError: when the claim is damaged.
    """
    key = version_key(number, _CLAIM)
    return record_from(_KIND, Claim, from_document(_KIND, store.read(key), store.uri_of(key)), store.uri_of(key))


def read_entries(store: ObjectStore) -> list[RegistryEntry]:
    """The published versions, lowest number first; those that are not complete are left out.

    Those whose manifests are damaged are passed over with a warning.
    """
    return [entry for entry in _read_all(_sound(read_entry), store, _numbers_of(_MANIFEST_KEY, store)) if entry]


def read_entry(store: ObjectStore, number: int) -> RegistryEntry:
    """The published version of that number.

    Raises:
        ObjectNotFoundError: when it is not published, or not yet, or no more.
        ArtifactError: when its manifest is damaged.
    """
    uri = store.uri_of(version_key(number))
    try:
        data = store.read(version_key(number, MANIFEST))
    except ObjectNotFoundError:
        if store.exists(version_key(number, _CLAIM)):
            claim = read_claim(store, number)
            raise ObjectNotFoundError(
                f"version {number} at {uri} was claimed by run {claim.run_id or '(without id)'} at "
                f"{claim.created} but is not complete: run its publish step again, it goes on from there"
            ) from None
        numbers = claimed_numbers(store)
        known = f"versions {numbers[0]} to {numbers[-1]}" if numbers else "no versions"
        raise ObjectNotFoundError(f"found no version {number} at {store.uri}, which has {known}") from None
    if tombstone := tombstone_in(data, uri):
        raise DeletedVersionError(f"version {number} at {uri} was deleted at {tombstone.buried}: use another one")
    entry = RegistryEntry.from_bytes(data, uri)
    if entry.version != number:
        raise ArtifactError(f"{uri}/{MANIFEST} is of version {entry.version}: restore it from a backup")
    return entry


def publish_version(store: ObjectStore, bundle: Bundle, run_id: str) -> RegistryEntry:
    """The entry of the bundle: published now, completed, or found to have been published already.

    Raises:
        InputError: when all versions of the concept were published with other placeholders.
        ArtifactError: when claim and manifest of the version are of different bundles.
        StorageError: when the registry cannot be written, or others keep deleting what this step writes.
    """
    _check_placeholder(store, bundle)
    for _ in range(_ATTEMPTS):
        number, claim = claim_version(store, bundle, run_id)
        if entry := _complete_version(store, bundle, number, claim):
            return entry
        logger.warning("version %d of %s was deleted meanwhile: it takes another number", number, bundle.concept)
    raise StorageError(
        f"{store.uri}: {_ATTEMPTS} versions were deleted while this step wrote them: look for what deletes them, then "
        "run it again"
    )


def _complete_version(store: ObjectStore, bundle: Bundle, number: int, claim: Claim) -> RegistryEntry | None:
    """The entry of the bundle under its number, published now or before; None when the version was buried meanwhile."""
    lineage = {**bundle.facts.lineage, "run_id": claim.run_id}
    entry = RegistryEntry(
        uri=store.uri_of(version_key(number)),
        concept=bundle.concept,
        version=number,
        created=claim.created,
        bundle_digest=bundle.digest,
        facts=dataclasses.replace(bundle.facts, lineage=lineage),
        files={name: FileRecord.of(data) for name, data in bundle.files.items()},
    )
    published = _sound(read_entry)(store, number)
    if published and published.bundle_digest != bundle.digest:
        raise ArtifactError(
            f"{entry.uri}/{MANIFEST} is of other content than {_CLAIM} beside it stands for: something else writes "
            "into the registry; delete the one that is wrong and publish again"
        )
    if not published:
        _renew(store, number, claim)
    for name, data in sorted(bundle.files.items()):
        write_or_mend(store, version_key(number, name), data)
    if published:
        logger.info("version %d of %s is published already: %s", number, bundle.concept, entry.uri)
        return published
    if not write_or_mend(store, version_key(number, MANIFEST), entry.to_bytes()):
        return None
    logger.info("published version %d of %s: %s", number, bundle.concept, entry.uri)
    return entry


def mend_files(store: ObjectStore, entry: RegistryEntry, bundle: Bundle) -> None:
    """Writes again what is damaged of a version, of those files that another bundle of the same embedding has, too.

    Raises:
        StorageError: when the registry cannot be written.
    """
    logger.info("version %d of %s has this embedding already: %s", entry.version, entry.concept, entry.uri)
    for name, data in sorted(bundle.files.items()):
        if entry.files.get(name) == FileRecord.of(data):
            write_or_mend(store, version_key(entry.version, name), data)


def claim_version(store: ObjectStore, bundle: Bundle, run_id: str) -> tuple[int, Claim]:
    """The number of this bundle's version and its claim: the one it has already, or the next free one.

    A number is only tried after every lower one was seen to belong to another bundle, and a lost race is
    followed by a look at the winner: two publishers of one bundle get one number, of two bundles two. A number that
    nobody can say the owner of any more stays as it is, and so does one that a tombstone stands for.
    """
    numbers = claimed_numbers(store)
    for number, claim in zip(numbers, _read_all(_owner, store, numbers), strict=True):
        if claim and claim.bundle_digest == bundle.digest and not _tombstone(store, number):
            write_or_mend(store, version_key(number, _CLAIM), _document(claim))
            return number, claim
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    claim = Claim(bundle_digest=bundle.digest, run_id=run_id, created=now)
    number = max(numbers, default=0) + 1
    while True:
        try:
            store.write(version_key(number, _CLAIM), _document(claim), if_absent=True)
            return number, claim
        except PreconditionError:
            winner = _owner(store, number)
            if winner and winner.bundle_digest == bundle.digest and not _tombstone(store, number):
                return number, winner
            number += 1


def _owner(store: ObjectStore, number: int) -> Claim | None:
    """Who owns a version number by its claim, or where that is damaged or missing by its manifest."""
    if claim := _sound(read_claim)(store, number):
        return claim
    if entry := _sound(read_entry)(store, number):
        run_id = str(entry.facts.lineage.get("run_id", ""))
        return Claim(bundle_digest=entry.bundle_digest, run_id=run_id, created=entry.created)
    return None


def _tombstone(store: ObjectStore, number: int) -> Tombstone | None:
    key = version_key(number, MANIFEST)
    try:
        return tombstone_in(store.read(key), store.uri_of(key))
    except ObjectNotFoundError:
        return None


def _sound(read: Callable[[ObjectStore, int], Document]) -> Callable[[ObjectStore, int], Document | None]:
    """`read`, which gives None where there is no such document, and with a warning where it is damaged."""

    def read_sound(store: ObjectStore, number: int) -> Document | None:
        try:
            return read(store, number)
        except ObjectNotFoundError:
            return None
        except ArtifactError as error:
            logger.warning("passing over a damaged document: %s", error)
            return None

    return read_sound


def _document(claim: Claim) -> bytes:
    return to_document(_KIND, dataclasses.asdict(claim))


def _check_placeholder(store: ObjectStore, bundle: Bundle) -> None:
    found = [entry.facts.placeholder_token for entry in read_entries(store)]
    token = bundle.facts.placeholder_token
    if found and token not in found:
        raise InputError(
            f"the concept {bundle.concept} at {store.uri} was published with the placeholder {found[-1]}, found "
            f"{token}: its users' prompts would mean something else; publish {token} under a name of its own, such as "
            f"concept_name={concept_name(token) if concept_name(token) != bundle.concept else bundle.concept + '-2'}"
        )


def _numbers_of(pattern: re.Pattern[str], store: ObjectStore) -> list[int]:
    matches = (pattern.fullmatch(item.key) for item in store.list("versions/"))
    return sorted({int(match.group(1)) for match in matches if match})


def _read_all(
    read: Callable[[ObjectStore, int], Document], store: ObjectStore, numbers: Sequence[int]
) -> list[Document]:
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(functools.partial(read, store), numbers))


def _renew(store: ObjectStore, number: int, claim: Claim) -> None:
    """Writes the claim of a version that is being completed again when it is old; see `collecting.py`."""
    limit = datetime.datetime.now(datetime.UTC) - RENEWED_AFTER
    for info in store.list(version_key(number, _CLAIM)):
        if info.modified and info.modified < limit:
            store.write(info.key, _document(claim))
