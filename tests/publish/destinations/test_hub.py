from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from components.common.errors import DestinationError, StorageError, TextualInversionError
from components.common.registry.entry import RegistryEntry
from components.common.storage import open_store
from components.publish.destinations.hub import Hub
from tests.publish.destinations.writable_hub import FIRST_FILES, TOKEN, Fault, WritableHub

# huggingface_hub's own, where it uploads a large file without Xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

Publish = Callable[..., RegistryEntry]


def push(entry: RegistryEntry, repository: str = "", *, private: bool = True) -> str:
    return Hub(repository, private=private).push(entry)


def content(entry: RegistryEntry) -> dict[str, bytes]:
    return {name: open_store(entry.uri).read(name) for name in entry.files}


def test_push_makes_one_commit_and_a_tag_of_the_token_s_user(publish: Publish, writable_hub: WritableHub):
    entry = publish()
    assert push(entry) == f"{writable_hub.url}/someone/cat-toy/tree/v1"
    repository = writable_hub.repositories["someone/cat-toy"]
    assert repository.private
    assert repository.messages == ["initial commit", "Version 1 of cat-toy"]
    assert repository.files("v1") == repository.files("main") == {**FIRST_FILES, **content(entry)}


def test_push_to_a_named_public_repository(publish: Publish, writable_hub: WritableHub):
    assert push(publish(), "team/words", private=False) == f"{writable_hub.url}/team/words/tree/v1"
    assert not writable_hub.repositories["team/words"].private


def test_push_when_it_is_there_already_writes_nothing(publish: Publish, writable_hub: WritableHub):
    entry = publish()
    address = push(entry)
    before = writable_hub.writes()
    assert push(entry) == address
    assert writable_hub.writes() == before


def test_push_of_a_newer_version_replaces_what_an_older_one_brought_and_nothing_else(
    publish: Publish, writable_hub: WritableHub
):
    first = publish(1)
    push(first)
    repository = writable_hub.repositories["someone/cat-toy"]
    mine = {**repository.files("main"), "LICENSE": b"mine"}
    repository.commit("main", mine)
    store = open_store(first.uri)
    second = publish(2)
    assert push(second).endswith("/v2")
    assert repository.files("main") == {**FIRST_FILES, "LICENSE": b"mine", **content(second)}
    assert repository.files("v1")["README.md"] == store.read("README.md")


def test_push_of_an_older_version_leaves_the_newer_one_in_front(publish: Publish, writable_hub: WritableHub):
    first, second = publish(1), publish(2)
    push(second)
    writable_hub.faults = [Fault("DELETE", "/branch/", 0)]
    push(first)
    repository = writable_hub.repositories["someone/cat-toy"]
    assert {**FIRST_FILES, **content(second)} == repository.files("main") == repository.files("v2")
    assert {**FIRST_FILES, **content(first)} == repository.files("v1")
    assert set(repository.branches) == {"main"}


def test_push_when_the_tag_is_of_other_content_is_refused(publish: Publish, writable_hub: WritableHub):
    entry = publish()
    repository = writable_hub.add("someone/cat-toy")
    repository.tags["v1"] = repository.branches["main"]
    with pytest.raises(DestinationError, match=r"cat-toy/tree/v1 has other content than file://.*delete the tag"):
        push(entry)
    assert repository.messages == ["initial commit"]


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(
            [
                Fault("POST", "/repos/create", 0, late=True),
                Fault("PUT", "/large/", 0),
                Fault("POST", "/commit/", 0, late=True),
                Fault("POST", "/tag/", 0, late=True),
            ],
            id="answers-and-upload-lost",
        ),
        pytest.param(
            [Fault("POST", "/commit/", 503), Fault("POST", "/commit/", 412), Fault("POST", "/tag/", 500)], id="refused"
        ),
    ],
)
def test_push_when_something_fails_once_is_right_in_the_end(
    publish: Publish, writable_hub: WritableHub, faults: list[Fault], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("components.common.storage.retries.FIRST_DELAY_S", 0.01)
    monkeypatch.setattr("components.common.storage.retries.LONGEST_DELAY_S", 0.05)
    entry = publish()
    writable_hub.faults = faults
    assert push(entry).endswith("/v1")
    assert not any(fault.times for fault in faults)
    repository = writable_hub.repositories["someone/cat-toy"]
    assert repository.messages == ["initial commit", "Version 1 of cat-toy"]
    assert repository.files("v1") == {**FIRST_FILES, **content(entry)}


def test_push_when_somebody_commits_meanwhile_keeps_their_commit(
    publish: Publish, writable_hub: WritableHub, monkeypatch: pytest.MonkeyPatch
):
    entry = publish()
    repository = writable_hub.add("someone/cat-toy")
    before = Hub.push.__globals__["_Push"]._different

    def different(self: object, found: object) -> object:
        if len(repository.commits) == 1:
            repository.commit("main", {**FIRST_FILES, "LICENSE": b"theirs"}, "theirs")
        return before(self, found)

    monkeypatch.setattr("components.publish.destinations.hub._Push._different", different)
    push(entry)
    assert repository.messages == ["initial commit", "theirs", "Version 1 of cat-toy"]
    assert repository.files("v1") == {**FIRST_FILES, "LICENSE": b"theirs", **content(entry)}


def test_push_when_there_are_too_many_requests_waits_as_long_as_it_is_told(
    publish: Publish, writable_hub: WritableHub, caplog: pytest.LogCaptureFixture
):
    writable_hub.faults = [Fault("POST", "/commit/", 429, {"Retry-After": "2"})]
    push(publish())
    assert "next in 2.0 s" in caplog.text


def test_push_when_the_token_has_expired(publish: Publish, writable_hub: WritableHub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "expired" * 5)
    with pytest.raises(DestinationError, match=r"does not take the token, .*set HF_TOKEN"):
        push(publish())
    assert not writable_hub.repositories


def test_push_when_there_is_no_token(publish: Publish, writable_hub: WritableHub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(DestinationError, match="found no token for the Hugging Face Hub: set HF_TOKEN"):
        push(publish())


def test_push_with_a_token_in_a_file(
    publish: Publish, writable_hub: WritableHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))  # read when it is imported
    assert push(publish()).endswith("/v1")


def test_push_when_the_token_cannot_write(publish: Publish, writable_hub: WritableHub):
    writable_hub.add("someone/cat-toy")
    writable_hub.writable = False
    with pytest.raises(DestinationError, match=r"does not let the token write there .*hub_model_id"):
        push(publish())


def test_push_when_the_hub_takes_no_such_name(publish: Publish, writable_hub: WritableHub):
    with pytest.raises(DestinationError, match=r"takes no such name .*: give another hub_model_id"):
        push(publish(), "größe")


def test_push_when_the_hub_stays_away(publish: Publish, writable_hub: WritableHub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEXTUAL_INVERSION_RETRY_SECONDS", "0.2")
    writable_hub.stop()
    with pytest.raises(StorageError, match=r"no usable answer in 0\.2 s .*Check that the Hub is up"):
        push(publish())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/whoami", "<html>"),
        ("/whoami", "[]"),
        ("/refs", "[]"),
        ("/refs", '{"branches": 3}'),
        ("/models/someone/cat-toy", '{"id": 3, "sha": null, "siblings": [{}]}'),
    ],
)
def test_push_when_an_answer_makes_no_sense_is_one_line(
    publish: Publish, writable_hub: WritableHub, path: str, body: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TEXTUAL_INVERSION_RETRY_SECONDS", "0")
    writable_hub.add("someone/cat-toy")
    writable_hub.faults = [Fault("GET", path, 200, body=body, times=100)]
    with pytest.raises(TextualInversionError) as error:
        push(publish())
    assert len(str(error.value).splitlines()) == 1


def test_card_on_the_hub_has_valid_front_matter_and_pictures_that_are_there(
    publish: Publish, writable_hub: WritableHub
):
    push(publish())
    files = writable_hub.repositories["someone/cat-toy"].files("v1")
    card = ModelCard(files["README.md"].decode())
    assert card.data.base_model == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert card.data.instance_prompt == "<cat-toy>"
    shown = [each["output"]["url"] for each in card.data.widget]
    shown += re.findall(r'<img src="([^"]+)"', card.text) + re.findall(r"\]\(((?!https?:)[^)]+)\)", card.text)
    assert len(shown) > 4 and set(shown) <= set(files)
