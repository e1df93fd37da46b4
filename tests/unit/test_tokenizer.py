"""The tokenizer against tiktoken, without loss, and the same each time it is trained."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import Tokenizer, load_tokenizer
from pipeline.data.gpt2 import SHA256, load_gpt2
from pipeline.errors import DataError

GPT2 = Path("../shared/gpt2")
TEXTS = [f"The {n}th river runs past {n * 7} mills, isn't it?\n\n\tdéjà vu {n} — 東京 🙂\r\n" for n in range(200)]


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(TEXTS, 400)


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    if not GPT2.is_dir():
        pytest.skip(f"no GPT-2 vocabulary in {GPT2}")
    return load_gpt2(str(GPT2))


def test_trained_size_and_end_of_text(trained: Tokenizer) -> None:
    assert trained.vocab_size == 400
    assert trained.decode([trained.eot_token]) == "<|endoftext|>"
    assert len(trained.encode(TEXTS[3])) < len(TEXTS[3].encode())


def test_training_twice_gives_the_same_file(trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path / "a")
    Tokenizer.train(TEXTS, 400).save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_survives(trained: Tokenizer, text: str) -> None:
    assert trained.decode(trained.encode(text)) == text


def test_end_of_text_spelled_out_is_text(trained: Tokenizer) -> None:
    tokens = trained.encode("a<|endoftext|>b")
    assert trained.eot_token not in tokens
    assert trained.decode(tokens) == "a<|endoftext|>b"


def test_saved_and_loaded(trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path)
    assert again.encode_batch(TEXTS) == [trained.encode(text) for text in TEXTS]
    assert (again.vocab_size, again.eot_token) == (trained.vocab_size, trained.eot_token)
    assert again.eot_token not in again.encode("<|endoftext|>")


def test_bytes_of_tokens(trained: Tokenizer) -> None:
    sizes = np.fromiter(trained.token_bytes(), dtype=np.int64)
    assert sizes[trained.eot_token] == 0
    for text in TEXTS[:20]:
        assert sizes[trained.encode(text)].sum() == len(text.encode())


def test_missing_and_damaged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.json: no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(DataError, match=r"tokenizer\.json: not a tokenizer"):
        load_tokenizer(tmp_path)


def test_gpt2_equals_tiktoken(gpt2: Tokenizer) -> None:
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    names = (str(GPT2 / "vocab.bpe"), str(GPT2 / "encoder.json"))
    ranks = data_gym_to_mergeable_bpe_ranks(*names, SHA256["vocab.bpe"], SHA256["encoder.json"])
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
    reference = tiktoken.Encoding(
        "gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )
    assert gpt2.encode("Hello world") == [15496, 995]
    assert (gpt2.vocab_size, gpt2.eot_token) == (50257, 50256)
    for text in [*TEXTS, "x <|endoftext|> y", "   ", "\n\n  \n", "don't we'll I'VE", "a" * 5000]:
        assert gpt2.encode(text) == reference.encode_ordinary(text)


def test_gpt2_of_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "encoder.json").write_text("{}")
    (tmp_path / "vocab.bpe").write_text("")
    digest = hashlib.sha256(b"{}").hexdigest()[:12]
    with pytest.raises(DataError, match=f"encoder.json: not GPT-2's own file .SHA-256 {digest}"):
        load_gpt2(str(tmp_path))
    with pytest.raises(DataError, match=r"cannot read .*absent"):
        load_gpt2(str(tmp_path / "absent"))
