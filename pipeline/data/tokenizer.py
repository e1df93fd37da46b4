"""One tokenizer class over Hugging Face `tokenizers`: GPT-2's BPE, or a byte-level BPE trained on the text."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import DataError

if TYPE_CHECKING:
    import tokenizers

FILE = "tokenizer.json"
END_OF_TEXT = "<|endoftext|>"
BYTES = 256


class Tokenizer:
    """Text to token ids and back, without loss: any UTF-8 text decodes to itself.

    Text that spells "<|endoftext|>" is encoded as those characters; only the data stage and
    callers that want it add `eot_token`.
    """

    def __init__(self, backend: "tokenizers.Tokenizer") -> None:
        self._backend = backend
        self._backend.encode_special_tokens = True  # special tokens in a text are plain text
        eot = backend.token_to_id(END_OF_TEXT)
        if eot is None:
            raise DataError(f"the tokenizer has no {END_OF_TEXT} token; it must have one to mark the end of a document")
        self.eot_token: int = eot
        self.vocab_size: int = backend.get_vocab_size()

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read tokenizers' JSON; raises DataError where it is missing or damaged."""
        import tokenizers

        if not path.is_file():
            raise DataError(f"{path}: no tokenizer there; python -m stages.prepare_data writes one")
        try:
            backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # tokenizers raises bare Exception
            raise DataError(f"{path}: not a tokenizer in the form of the tokenizers library ({error})") from error
        return cls(backend)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """A byte-level BPE of at most `vocab_size` entries, end of text first, then the 256 bytes.

        The same texts give the same tokenizer. Raises DataError below 257 entries.
        """
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, pre_tokenizers, trainers

        if vocab_size <= BYTES:
            raise DataError(
                f"data.tokenizer_vocab_size={vocab_size}: a byte-level BPE has at least {BYTES + 1} entries"
            )
        backend = Backend(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return cls(backend)

    @classmethod
    def from_bpe(cls, vocab: dict[str, int], merges: list[tuple[str, str]]) -> "Tokenizer":
        """GPT-2's kind: a vocabulary and its merges over bytes written as printable characters."""
        from tokenizers import AddedToken, decoders, models, pre_tokenizers
        from tokenizers import Tokenizer as Backend

        backend = Backend(models.BPE(vocab=vocab, merges=merges))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
        return cls(backend)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without an end-of-text token."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text; over several threads where TOKENIZERS_PARALLELISM allows."""
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of token ids; ids that are no whole characters give U+FFFD."""
        return str(self._backend.decode([int(token) for token in tokens], skip_special_tokens=False))

    def token_bytes(self) -> Iterator[int]:
        """Bytes of text of each id in order, 0 for end of text: one printable character stands for one byte."""
        for index in range(self.vocab_size):
            token = self._backend.id_to_token(index)
            yield 0 if index == self.eot_token or token is None else len(token)

    def save(self, path: Path) -> None:
        files.write_text(path, self._backend.to_str(pretty=False))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a data folder or of a trained model's folder; raises DataError."""
    return Tokenizer.load(Path(folder) / FILE)
