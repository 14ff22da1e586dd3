"""The tokenizer of a source as `tokenizer.json` and its companions."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from colbuild.arch.files.json_file import read_object
from colbuild.arch.files.model_files import SETTINGS, TOKENIZER
from colbuild.arch.files.model_folder import CONFIG_FILE
from colbuild.arch.files.tokenizer_file import load_tokenizer
from colbuild.arch.files.tokenizer_files import CONVERTIBLE, SENTENCEPIECE, check_tokenizer_files
from colbuild.arch.files.tokenizer_trial import try_tokenizer
from colbuild.errors import BuildError, short_text
from colbuild.weights.files.checkpoint import COMPANIONS, write_json
from colbuild.weights.files.origin import copy_files

ANY_FAST = "PreTrainedTokenizerFast"
_END = "<|endoftext|>"
_FROM_THIS_RUN = ("name_or_path", "_commit_hash", "is_local", "local_files_only", "trust_remote_code", "gguf_file")
_SAMPLE = "The weather in Zürich is fine today, 1999!"
_PIECES = 256


def copy_tokenizer(folder: Path, output: Path) -> None:
    """Copies a model folder's tokenizer, converting it first where it is of an older form.

    Raises:
        BuildError: There is none, or it needs code of its own, or it cannot be converted.
    """
    present = check_tokenizer_files(folder)
    copy_files(COMPANIONS, folder, output)
    if present == TOKENIZER:
        try_tokenizer(folder / TOKENIZER)
    if present in CONVERTIBLE:
        if (folder / "merges.txt").is_file() and not any((folder / name).is_file() for name in (SETTINGS, CONFIG_FILE)):
            _convert_merges(folder, output)
        else:
            convert(folder, None, output)
        if present == SENTENCEPIECE:
            _compare_pieces(folder, output)
    elif not (folder / SETTINGS).is_file():
        write_json(output / SETTINGS, {"tokenizer_class": ANY_FAST})


def _compare_pieces(folder: Path, output: Path) -> None:
    """Raises BuildError if a converted tokenizer gives other tokens than sentencepiece: its class may be named wrongly."""
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=str(folder / SENTENCEPIECE))
    converted = load_tokenizer(output / TOKENIZER)
    listed = [pieces.id_to_piece(index) for index in range(pieces.get_piece_size())]
    words = [piece.replace("\u2581", " ") for piece in listed if piece.strip("\u2581").isalpha()]
    # Pieces in a row spell texts that the vocabulary cuts in many ways, whatever its language.
    spelled = "".join(words[:: max(1, len(words) // _PIECES)]).strip()
    for text in (_SAMPLE, spelled):
        if converted.encode(text, add_special_tokens=False).ids != pieces.encode(text):
            raise BuildError(
                f"transformers converts {SENTENCEPIECE} of {folder} to a tokenizer that encodes '{text[:60]}' differently",
                hint=f"check 'tokenizer_class' in {SETTINGS}, or put the model's {TOKENIZER} into the folder",
            )


def _convert_merges(folder: Path, output: Path) -> None:
    """Makes a tokenizer of GPT-2's two files, which do not say of what kind they are: there is no other that has them alone."""
    try:
        tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    except Exception as error:  # The library raises nothing narrower.
        raise BuildError(f"the tokenizer of {folder} cannot be read: {error}") from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    settings = {"tokenizer_class": ANY_FAST}
    if tokenizer.token_to_id(_END) is not None:
        tokenizer.add_special_tokens([_END])
        settings |= {"bos_token": _END, "eos_token": _END}
    tokenizer.save(str(output / TOKENIZER))
    write_json(output / SETTINGS, settings)


def convert(folder: Path, gguf_file: str | None, output: Path, architecture: str | None = None) -> None:
    """Lets transformers build a fast tokenizer from the files alone, with no network and no code of theirs.

    Args:
        folder: Where the files are.
        gguf_file: The GGUF file in it that holds the tokenizer, if one does.
        output: Where the tokenizer goes.
        architecture: What transformers is told that the GGUF file's architecture is; by default what it is.
    """
    from colbuild.weights.files.transformers_tokenizer import carried_settings, transformers_tokenizer

    try:
        with transformers_tokenizer(folder, gguf_file, architecture) as tokenizer:
            tokenizer.save_pretrained(output)
    except BuildError:
        raise
    except Exception as error:  # Whatever a class of transformers raises about files that it does not expect.
        what = gguf_file or folder
        raise BuildError(
            f"the tokenizer of {what} cannot be converted to {TOKENIZER}: {short_text(error)}",
            hint=f"put a {TOKENIZER} beside the model's config.json and use that folder",
        ) from error
    if not (output / TOKENIZER).is_file():
        raise BuildError(f"transformers cannot make a {TOKENIZER} from the tokenizer of {gguf_file or folder}")
    settings = read_object(output / SETTINGS)
    if gguf_file is None and (folder / SETTINGS).is_file():
        settings = carried_settings(read_object(folder / SETTINGS)) | settings
    # The same model from another folder is the same model. The class has this name since version 4, and still in 5.
    kept = {key: value for key, value in settings.items() if key not in _FROM_THIS_RUN and key != "backend"}
    if kept.get("tokenizer_class") == "TokenizersBackend":
        kept["tokenizer_class"] = ANY_FAST
    write_json(output / SETTINGS, kept)
