"""The placeholder's tokens and rows, and the words that cannot be one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from components.common.artifacts import InitialEmbedding
from components.common.base_model import read_reference
from components.common.errors import ArtifactError, BaseModelError, ConfigError, InputError, TokenError
from components.common.prompts import OBJECT_TEMPLATES
from components.common.start_word import StartWord
from components.init_embedding.config import InitConfig
from components.init_embedding.initialize import init_embedding
from tests.init_embedding.conftest import write_text_encoder

Refer = Callable[[Path], Path]


def initialize(reference: Path, placeholder: str = "<cat-toy>", initializer: str = "toy", vectors: int = 1):
    """The initial embedding as it is read back from disk."""
    config = InitConfig(placeholder_token=placeholder, initializer_token=initializer, num_vectors=vectors)
    output = reference.parent / "out"
    given = init_embedding(config, reference, output)
    read = InitialEmbedding.read(output)
    assert given.digest == read.digest
    return read


@pytest.fixture
def reference(model_folder: Path, refer_to: Refer) -> Path:
    """A reference to a model with one text encoder."""
    return refer_to(model_folder)


def test_rows_when_several_vectors_are_copies_of_the_initializers(
    reference: Path, table: np.ndarray, tokenizer_folder: Path, entries: int
) -> None:
    embedding = initialize(reference, vectors=3)
    toy = CLIPTokenizer.from_pretrained(tokenizer_folder).convert_tokens_to_ids("toy</w>")
    assert embedding.placeholder_token == "<cat-toy>"
    assert embedding.tokens == ("<cat-toy>", "<cat-toy>_1", "<cat-toy>_2")
    assert embedding.token_ids == (entries, entries + 1, entries + 2)
    assert (embedding.initializer_token, embedding.initializer_token_id) == ("toy", toy)
    assert embedding.base_model_digest == read_reference(reference).digest
    assert list(embedding.rows) == ["text_encoder"]
    np.testing.assert_array_equal(embedding.rows["text_encoder"], np.stack([table[toy]] * 3))


def test_rows_when_several_words_start_a_vector_each_or_all_from_their_mean(
    reference: Path, table: np.ndarray, tokenizer_folder: Path
) -> None:
    toy, cat = CLIPTokenizer.from_pretrained(tokenizer_folder).convert_tokens_to_ids(["toy</w>", "cat</w>"])
    each = initialize(reference, initializer="toy cat", vectors=2)
    np.testing.assert_array_equal(each.rows["text_encoder"], table[[toy, cat]])
    assert (each.initializer_token, each.initializer_token_id) == ("toy cat", toy)
    for vectors in (1, 3):
        rows = initialize(reference, initializer="toy cat", vectors=vectors).rows["text_encoder"]
        np.testing.assert_allclose(rows, np.tile(table[[toy, cat]].mean(axis=0), (vectors, 1)), rtol=1e-6)


def test_rows_when_the_word_is_found_are_those_of_the_start_word(
    reference: Path, table: np.ndarray, tokenizer_folder: Path, tmp_path: Path
) -> None:
    config = InitConfig(placeholder_token="<x>", initializer_token="auto")
    with pytest.raises(ConfigError, match=r"initializer_token: found auto without a StartWord"):
        init_embedding(config, reference, tmp_path / "out")
    start_word("cat").write(tmp_path / "start")
    embedding = init_embedding(config, reference, tmp_path / "out", start_word=tmp_path / "start")
    cat = CLIPTokenizer.from_pretrained(tokenizer_folder).convert_tokens_to_ids("cat</w>")
    assert (embedding.initializer_token, embedding.initializer_token_id) == ("cat", cat)
    np.testing.assert_array_equal(embedding.rows["text_encoder"], table[[cat]])


def start_word(word: str) -> StartWord:
    return StartWord(
        word=word,
        was_given=False,
        template="a photo of a {}",
        loss=0.1,
        no_word_loss=0.2,
        best={word: 0.1},
        base_model_digest="a",
        latent_set_digest="b",
    )


def start_from(reference: Path, file: Path, vectors: int, sha256: str = "") -> InitialEmbedding:
    config = InitConfig(
        placeholder_token="<x>",
        initializer_token="toy",
        num_vectors=vectors,
        initializer_embedding=str(file),
        initializer_embedding_sha256=sha256,
    )
    return init_embedding(config, reference, file.parent / "out")


@pytest.mark.parametrize("key", ["<old>", "emb_params"])
def test_rows_when_there_is_an_existing_embedding_are_its_rows(key: str, reference: Path, tmp_path: Path) -> None:
    old = np.random.default_rng(5).standard_normal((2, 8)).astype(np.float32)
    file = tmp_path / "old.safetensors"
    safetensors.numpy.save_file({key: old}, file)
    embedding = start_from(reference, file, vectors=2)
    np.testing.assert_array_equal(embedding.rows["text_encoder"], old)
    assert (embedding.initializer_token, embedding.initializer_embedding) == ("toy", str(file))
    np.testing.assert_allclose(
        start_from(reference, file, vectors=3).rows["text_encoder"], np.tile(old.mean(axis=0), (3, 1)), rtol=1e-6
    )
    with pytest.raises(InputError, match=r"initializer_embedding: .* has the SHA-256 .*, expected abc"):
        start_from(reference, file, vectors=2, sha256="abc")


def test_existing_embedding_when_it_does_not_fit_is_refused(reference: Path, tmp_path: Path) -> None:
    file = tmp_path / "old.safetensors"
    safetensors.numpy.save_file({"<old>": np.ones((1, 5), np.float32)}, file)
    with pytest.raises(BaseModelError, match=r"with width 5 for text_encoder, expected .* width 8 for text_encoder,"):
        start_from(reference, file, vectors=1)
    safetensors.numpy.save_file({"clip_l": np.ones((1, 8), np.float32), "clip_g": np.ones((1, 9), np.float32)}, file)
    with pytest.raises(BaseModelError, match=r"width 8 for text_encoder and width 9 for text_encoder_2, expected"):
        start_from(reference, file, vectors=1)
    file.write_bytes(b"{}")
    with pytest.raises(InputError, match=r"old\.safetensors is no safetensors file"):
        start_from(reference, file, vectors=1)
    with pytest.raises(InputError, match=r"old\.pt is pickled, which can run code, and is not opened"):
        start_from(reference, tmp_path / "old.pt", vectors=1)


def test_alias_of_a_registry_is_refused_by_the_step_itself() -> None:
    with pytest.raises(ConfigError, match="preflight step of a run follows an alias"):
        InitConfig(placeholder_token="<x>", initializer_token="toy", initializer_embedding="registry:cat-toy@champion")


def test_digest_when_words_are_the_start_is_that_of_earlier_releases(reference: Path) -> None:
    initialize(reference)
    manifest = json.loads((reference.parent / "out" / "artifact.json").read_text())
    assert "initializer_embedding" not in manifest["content"]


def test_embedding_when_of_a_whole_model_is_that_of_the_reference_script(tiny_sd15: Path, refer_to: Refer) -> None:
    embedding = initialize(refer_to(tiny_sd15), vectors=2)
    tokenizer = CLIPTokenizer.from_pretrained(tiny_sd15 / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(tiny_sd15 / "text_encoder")
    # The set-up of diffusers' examples/textual_inversion/textual_inversion.py.
    tokens = ["<cat-toy>", "<cat-toy>_1"]
    assert tokenizer.add_tokens(tokens) == 2
    (initializer,) = tokenizer.encode("toy", add_special_tokens=False)
    ids = tokenizer.convert_tokens_to_ids(tokens)
    text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    weight = text_encoder.get_input_embeddings().weight.data
    with torch.no_grad():
        for token_id in ids:
            weight[token_id] = weight[initializer].clone()
    assert list(embedding.tokens) == tokens
    assert list(embedding.token_ids) == ids
    assert embedding.initializer_token_id == initializer
    np.testing.assert_array_equal(embedding.rows["text_encoder"], weight[ids].numpy())


def test_token_ids_when_used_in_a_prompt_are_where_the_placeholder_stands(
    reference: Path, tokenizer_folder: Path
) -> None:
    embedding = initialize(reference, vectors=3)
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.add_tokens(list(embedding.tokens))
    for template in OBJECT_TEMPLATES:
        prompt = template.format(" ".join(embedding.tokens))
        assert tuple(tokenizer.encode(prompt)[-4:-1]) == embedding.token_ids


def test_embedding_when_of_two_text_encoders_has_rows_of_both(
    model_folder: Path, table: np.ndarray, refer_to: Refer, entries: int
) -> None:
    wide = np.random.default_rng(3).standard_normal((entries, 12)).astype(np.float16)
    shutil.copytree(model_folder / "tokenizer", model_folder / "tokenizer_2")
    write_text_encoder(model_folder / "text_encoder_2", wide)
    embedding = initialize(refer_to(model_folder), vectors=2)
    toy = embedding.initializer_token_id
    assert sorted(embedding.rows) == ["text_encoder", "text_encoder_2"]
    np.testing.assert_array_equal(embedding.rows["text_encoder"], np.stack([table[toy]] * 2))
    np.testing.assert_array_equal(embedding.rows["text_encoder_2"], np.stack([wide[toy]] * 2).astype(np.float32))


def test_embedding_when_the_two_tokenizers_differ_is_refused(model_folder: Path, refer_to: Refer) -> None:
    shutil.copytree(model_folder / "tokenizer", model_folder / "tokenizer_2")
    tokenizer = CLIPTokenizer.from_pretrained(model_folder / "tokenizer_2")
    tokenizer.add_tokens(["<one-more>"])
    tokenizer.save_pretrained(model_folder / "tokenizer_2")
    shutil.copytree(model_folder / "text_encoder", model_folder / "text_encoder_2")
    with pytest.raises(BaseModelError, match="number the tokens differently"):
        initialize(refer_to(model_folder))


def test_files_when_materialised_are_those_of_tokenizer_and_text_encoder(reference: Path, tmp_path: Path) -> None:
    initialize(reference)
    parts = {path.name for path in (tmp_path / "cache" / "models").glob("*/*/*")}
    assert parts == {"tokenizer", "text_encoder", "model_index.json"}


@pytest.mark.parametrize(
    ("placeholder", "vectors", "named"),
    [
        ("toy", 1, "'toy'"),  # a word
        ("TOY", 1, "'TOY'"),  # the same to CLIP
        ("p", 1, "'p'"),  # a piece of words
        ("*", 1, r"'\*'"),  # what the paper used
        ("<|endoftext|>", 1, "'<|endoftext|>'"),
    ],
)
def test_placeholder_when_in_the_vocabulary_is_refused(
    placeholder: str, vectors: int, named: str, reference: Path
) -> None:
    with pytest.raises(TokenError, match=f"has {named.replace('|', '[|]')} already: choose .*<my-toy>"):
        initialize(reference, placeholder, vectors=vectors)


def test_placeholder_when_only_a_later_token_is_in_the_vocabulary_is_refused(
    model_folder: Path, refer_to: Refer, entries: int
) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(model_folder / "tokenizer")
    tokenizer.add_tokens(["<cat-toy>_1", "<cat-toy>_2"])
    tokenizer.save_pretrained(model_folder / "tokenizer")
    reference = refer_to(model_folder)
    with pytest.raises(TokenError, match="has '<cat-toy>_1', '<cat-toy>_2' already"):
        initialize(reference, vectors=4)
    assert initialize(reference, vectors=1).token_ids == (entries + 2,)


def test_placeholder_when_a_part_of_words_is_refused(reference: Path) -> None:
    with pytest.raises(TokenError, match=r"'hoto' is part of other words and changes how 'a photo of a toy'"):
        initialize(reference, "hoto")


def test_placeholder_when_it_holds_a_special_token_is_refused(reference: Path) -> None:
    with pytest.raises(TokenError, match=r"'new<[|]endoftext[|]>' is not read as tokens of their own: choose"):
        initialize(reference, "new<|endoftext|>")


@pytest.mark.parametrize("placeholder", ["<cat-toy>", "sks-7", "<猫>", "<v1.2_final>", "my_new_word", "<a>_1"])
def test_placeholder_when_unusual_is_read_as_its_own_tokens(placeholder: str, reference: Path, entries: int) -> None:
    embedding = initialize(reference, placeholder, vectors=12)
    assert embedding.token_ids == tuple(range(entries, entries + 12))


def test_placeholder_when_it_has_capital_letters_is_of_one_vector(reference: Path) -> None:
    assert initialize(reference, "<Cat-Toy>").tokens == ("<Cat-Toy>",)
    with pytest.raises(TokenError, match=r"found '<Cat-Toy>' for 2 vectors, .*first alone.*: choose '<cat-toy>'"):
        initialize(reference, "<Cat-Toy>", vectors=2)


@pytest.mark.parametrize("placeholder", ["", " ", "a b", "<x>,", "<x>\n"])
def test_placeholder_when_no_single_word_is_refused(placeholder: str, reference: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"placeholder_token: found .*(expected one word|expected it without white space)"
    ):
        initialize(reference, placeholder)


@pytest.mark.parametrize(
    ("initializer", "message"),
    [
        ("toy cats", r"'cats' is \d tokens .*, expected one"),
        ("zebra", r"'zebra' is \d tokens .*, expected one"),
        ("toy.", "'toy.' is 2 tokens"),
        ("<|endoftext|>", "does not know '<|endoftext|>'".replace("|", "[|]")),
        ("猫", "initializer_token: the tokenizer does not know '猫'"),
    ],
)
def test_initializer_when_not_one_known_token_is_refused(initializer: str, message: str, reference: Path) -> None:
    with pytest.raises(TokenError, match=message):
        initialize(reference, initializer=initializer)


@pytest.mark.parametrize("initializer", ["", "  "])
def test_initializer_when_empty_is_refused(initializer: str, reference: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"initializer_token: found .*expected (a word such as toy|it without white space)"
    ):
        initialize(reference, initializer=initializer)


@pytest.mark.parametrize("vectors", [0, -2])
def test_num_vectors_when_not_positive_is_refused(vectors: int, reference: Path) -> None:
    with pytest.raises(ConfigError, match=f"num_vectors: found {vectors}"):
        initialize(reference, vectors=vectors)


@pytest.mark.parametrize("positions", [24, 77, 1000])
def test_num_vectors_when_too_many_for_a_prompt_says_how_many_fit(
    positions: int, model_folder: Path, table: np.ndarray, refer_to: Refer
) -> None:
    write_text_encoder(model_folder / "text_encoder", table, positions=positions)
    reference = refer_to(model_folder)
    # The tokenizer takes 77. Start and end are two tokens, and the longest prompt has nine words and a placeholder.
    most = min(positions, 77) - 2 - len(["a", "close", "-", "up", "painting", "in", "the", "style", "of"])
    message = rf"num_vectors: found {most + 1}, expected at most {most}: .* 'a close-up painting in the style of"
    with pytest.raises(TokenError, match=message):
        initialize(reference, vectors=most + 1)
    assert len(initialize(reference, vectors=most).tokens) == most


def test_model_when_without_text_encoder_says_what_it_has(model_folder: Path, refer_to: Refer) -> None:
    shutil.rmtree(model_folder / "text_encoder")
    with pytest.raises(
        BaseModelError, match="found the text encoders none among tokenizer, unet, expected text_encoder or "
    ):
        initialize(refer_to(model_folder))


def test_model_when_without_tokenizer_says_so(model_folder: Path, refer_to: Refer) -> None:
    shutil.rmtree(model_folder / "tokenizer")
    with pytest.raises(BaseModelError, match="found no part tokenizer"):
        initialize(refer_to(model_folder))


@pytest.mark.parametrize("content", ["", "{", '{"version": "1.0"}'])
def test_model_when_the_tokenizer_is_damaged_says_so(content: str, model_folder: Path, refer_to: Refer) -> None:
    for file in (model_folder / "tokenizer").iterdir():
        file.write_text(content)
    with pytest.raises(BaseModelError, match=r"tokenizer holds no CLIP tokenizer that can be read"):
        initialize(refer_to(model_folder))


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"max_position_embeddings": null}'])
def test_model_when_the_config_says_no_length_is_refused(config: str, model_folder: Path, refer_to: Refer) -> None:
    (model_folder / "text_encoder" / "config.json").write_text(config)
    with pytest.raises(BaseModelError, match=r"config\.json (does not say max_position_|is no JSON|holds a list)"):
        initialize(refer_to(model_folder))


def test_model_when_the_table_is_smaller_than_the_vocabulary_says_so(
    model_folder: Path, table: np.ndarray, refer_to: Refer
) -> None:
    write_text_encoder(model_folder / "text_encoder", table[:10])
    with pytest.raises(BaseModelError, match="tokenizer and text encoder are not of the same model"):
        initialize(refer_to(model_folder))


def test_reference_when_absent_is_an_artifact_error(tmp_path: Path) -> None:
    config = InitConfig(placeholder_token="<x>", initializer_token="toy")
    with pytest.raises(ArtifactError, match="found nothing at"):
        init_embedding(config, tmp_path / "absent", tmp_path / "out")


def test_errors_when_raised_leave_no_output(reference: Path) -> None:
    for bad in ({"placeholder": "toy"}, {"initializer": "toys"}, {"vectors": 99}):
        with pytest.raises(InputError):
            initialize(reference, **bad)
    assert not (reference.parent / "out").exists()


_WITHOUT_TORCH = """
import sys
class Without:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "diffusers", "accelerate", "jax", "flax"): return None
        return self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from components.init_embedding.__main__ import main
main()
assert "torch" not in sys.modules
from transformers.utils import is_torch_available
assert not is_torch_available()  # the block works
"""


def test_command_when_torch_is_not_installed_writes_the_embedding(reference: Path, tmp_path: Path) -> None:
    flags = {
        "--base-model": reference,
        "--placeholder-token": "<cat-toy>",
        "--initializer-token": "toy",
        "--num-vectors": 2,
        "--output": tmp_path / "out",
    }
    arguments = [str(part) for pair in flags.items() for part in pair]
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert " done in " in done.stderr
    assert InitialEmbedding.read(tmp_path / "out").tokens == ("<cat-toy>", "<cat-toy>_1")


def test_imports_when_only_component_and_config_are_light() -> None:
    code = (
        "import sys, json, components.init_embedding.component, components.ingest_images.component;"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "diffusers", "numpy", "safetensors", "PIL", "huggingface_hub"}
    assert heavy & set(json.loads(done.stdout)) == set()
