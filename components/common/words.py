"""Several words in one run: what a step is told, takes and gives is then that of each word, one after the other.

The config of a step is a JSON list of the configs that it would have for each word. An artifact is a folder of the kind
`words` with one ordinary artifact for each word in `0/`, `1/`, ... For one word both are as if there were no others.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from components.common.artifact_folder import kind_of, read_artifact, write_artifact
from components.common.errors import ArtifactError, ConfigError
from components.common.foreign_json import parse_json
from components.common.options import Config

logger = logging.getLogger(__name__)

KIND = "words"
VERSION = 1

AnyConfig = TypeVar("AnyConfig", bound=Config)
Result = TypeVar("Result")


def config_text(configs: Sequence[Config]) -> str:
    """What a step is told of each word: the config's own text for one word, a JSON list for several."""
    texts = [config.to_json() for config in configs]
    return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"


def configs_of(config: type[AnyConfig], text: str) -> tuple[AnyConfig, ...]:
    """The config for each word that `config_text` has written.

    Raises:
        ConfigError: when the text is no such config, naming what is wrong.
    """
    if not text.lstrip().startswith("["):
        return (config.from_json(text),)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"config: found {text!r}, which is no JSON ({error})") from error
    return tuple(config.from_mapping(each) for each in content)


def word_folders(path: Path) -> tuple[Path, ...]:
    """The folder of each word's artifact: those in an artifact of several words, else `path` itself.

    Raises:
        ArtifactError: when there is no artifact, or one of several words is damaged.
    """
    if kind_of(path) != KIND:
        return (path,)
    folder = read_artifact(path, kind=KIND, version=VERSION)
    count = folder.content.get("words")
    if type(count) is not int or count < 2:
        raise folder.refusal(f"words: found {count!r}, expected 2 or more")
    return tuple(path / str(number) for number in range(count))


def write_words(path: Path, writers: Sequence[Callable[[Path], Result]]) -> tuple[Result, ...]:
    """Has each word's artifact written to the folder that its writer is called with; gives what they give.

    Args:
        path: the folder of the artifact: the only word's own, or that of all words.
        writers: one for each word.

    Raises:
        ArtifactError: when it cannot be written.
    """
    if len(writers) == 1:
        return (writers[0](path),)
    with tempfile.TemporaryDirectory(prefix="textual-inversion-") as scratch:
        folder = Path(scratch)
        answers = []
        for number, write in enumerate(writers):
            logger.info("word %d of %d", number + 1, len(writers))
            answers.append(write(folder / str(number)))
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        write_artifact(
            path,
            kind=KIND,
            version=VERSION,
            content={"words": len(writers)},
            files={file.relative_to(folder).as_posix(): file.read_bytes() for file in files},
        )
    return tuple(answers)


def for_each_word(
    step: Callable[..., Result], configs: Sequence[Config], *, output: Path, **inputs: Path
) -> tuple[Result, ...]:
    """What a step gives for each word, its artifact written to `output`.

    Args:
        step: called with a word's config, `output`, and the folders of the inputs by name.
        configs: what the step is told of each word.
        output: the folder of its artifact.
        inputs: the artifacts that it takes: each word's own, or one that all words share.

    Raises:
        ArtifactError: when an input is of another number of words, or damaged.
        TextualInversionError: whatever the step raises.
    """
    if len(configs) == 1:
        return (step(configs[0], output=output, **inputs),)
    folders = {name: word_folders(path) for name, path in inputs.items()}
    for name, found in folders.items():
        if len(found) not in (1, len(configs)):
            raise ArtifactError(
                f"{name}: found {len(found)} words at {inputs[name]}, expected {len(configs)}: pass what the steps "
                "before have made of the same words"
            )

    def writer(number: int) -> Callable[[Path], Result]:
        own = {name: found[number % len(found)] for name, found in folders.items()}
        return lambda path: step(configs[number], output=path, **own)

    return write_words(output, [writer(number) for number in range(len(configs))])


def by_word(numbers: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The numbers of each word by name, which begins with the word's placeholder where there are several."""
    if len(numbers) == 1:
        return dict(*numbers.values())
    return {f"{token} {name}": value for token, own in numbers.items() for name, value in own.items()}


def metadata_of(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The facts that stand beside the artifact of these words: a list where they differ, "" for a word without."""
    names = dict.fromkeys(name for each in facts for name in each)
    by_name = {name: [each.get(name, "") for each in facts] for name in names}
    return {name: found[0] if all(each == found[0] for each in found) else found for name, found in by_name.items()}
