from __future__ import annotations

import pytest

from components.common.errors import ConfigError
from components.publish.config import PublishConfig


@pytest.mark.parametrize("name", ["cat-toy", "_x", "Größe", "v1.2", "7"])
def test_concept_name_when_it_can_be_a_folder(name: str) -> None:
    assert PublishConfig(registry_uri="gs://b/r", concept_name=name).concept_name == name


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "-x", "a b", "<cat>", "x\n", "a" * 101])
@pytest.mark.parametrize("field", ["concept_name", "registry_alias"])
def test_names_that_cannot_be_folders_are_refused(field: str, name: str) -> None:
    with pytest.raises(ConfigError, match=field):
        PublishConfig(registry_uri="gs://b/r", **{field: name})


def test_alias_when_it_would_be_taken_for_a_version() -> None:
    with pytest.raises(ConfigError, match="a number stands for a version"):
        PublishConfig(registry_uri="gs://b/r", registry_alias="3")


def test_registry_uri_when_empty() -> None:
    with pytest.raises(ConfigError, match="registry_uri"):
        PublishConfig(registry_uri=" ")


def test_licence_is_called_as_on_the_hub() -> None:
    assert PublishConfig(registry_uri="gs://b/r", license="cc-by-nc-4.0").license == "cc-by-nc-4.0"
    for name in ("Apache 2.0", "Mit", "-x", "a" * 65):
        with pytest.raises(ConfigError, match=r"license: found .*, expected what the Hugging Face Hub calls it"):
            PublishConfig(registry_uri="gs://b/r", license=name)
