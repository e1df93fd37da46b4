"""GPT-2's own vocabulary, from a folder or through tiktoken, checked by SHA-256."""

import hashlib
import json
from pathlib import Path

from pipeline.data.tokenizer import Tokenizer
from pipeline.errors import DataError, MissingRequirementError

ADDRESS = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"  # as in tiktoken
SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
MEND = "put GPT-2's encoder.json and vocab.bpe in a folder and set data.tokenizer_dir to it"


def load_gpt2(folder: str | None) -> Tokenizer:
    """GPT-2's tokenizer of 50,257 entries from `folder`, or from tiktoken's cache or download.

    Raises DataError for other files than OpenAI's, MissingRequirementError where there are none.
    """
    contents = {name: _read(name, folder) for name in SHA256}
    vocab: dict[str, int] = json.loads(contents["encoder.json"])
    lines = contents["vocab.bpe"].decode("utf-8").split("\n")[1:]  # the first line is a version
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines if line)]
    return Tokenizer.from_bpe(vocab, merges)


def _read(name: str, folder: str | None) -> bytes:
    if folder is None:
        return _read_with_tiktoken(name)
    path = Path(folder) / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"data.tokenizer_dir={folder}: cannot read {path} ({error.strerror}); {MEND}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        raise DataError(f"{path}: not GPT-2's own file (SHA-256 {digest[:12]}…, must be {SHA256[name][:12]}…); {MEND}")
    return content


def _read_with_tiktoken(name: str) -> bytes:
    from tiktoken.load import read_file_cached

    try:
        return bytes(read_file_cached(ADDRESS + name, SHA256[name]))
    except Exception as error:  # requests' errors, and tiktoken's ValueError on a wrong hash
        raise MissingRequirementError(
            f"GPT-2's {name} is not in tiktoken's cache and cannot be downloaded ({type(error).__name__}); {MEND}"
        ) from error
