"""Texts with blanks, as the states of a sequence: what is given, and what is to be filled in.

    the [blank] of the [blank:12]

A blank with a number is so many tokens long. What a row's length leaves over is shared out evenly among its blanks
without a number, and the first get one token more where it doesn't come out even. A prompt is the beginning of a text:
it stands for "PROMPT[blank]". Without a length a row without open blanks is as long as it says, any other as long as
the network reads. All rows of a call have one length, for then a row is the same in any batch.

Each piece of text between blanks is tokenized by itself. A piece that the tokenizer can't say is refused.

This file stands alone: it is copied beside the pipeline that uses it.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

FREE = -1
"""In the place of a state that isn't given."""
_BLANK = re.compile(r"\[blank(?::([^\]]*))?\]")
_OPEN = 0  # the length of a blank that has no number


def given_states(
    tokenizer: Any,
    forbidden: set[int],
    batch: int,
    length: int | None,
    longest: int,
    prompt: str | list[str] | None,
    infill: str | list[str] | None,
) -> Tensor:
    """States (batch, length), int64, `FREE` where there is a blank.

    forbidden: tokens that no text may have. longest: how long a sequence may be. Raises `ValueError` where a rule is
    broken.
    """
    if prompt is not None and infill is not None:
        raise ValueError(
            "prompt and infill both say how the text begins. Use infill, with the prompt before a [blank]."
        )
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= longest):
        raise ValueError(f"length must be an integer in 1..{longest}, what the network reads, and is {length!r}.")
    name, texts = ("prompt", prompt) if infill is None else ("infill", infill)
    rows = [texts or ""] * batch if isinstance(texts, str | None) else texts
    seen: dict[str, list[list[int] | int]] = {}
    for text in rows:
        if text not in seen:
            seen[text] = _pieces(tokenizer, forbidden, name, text)
    totals = {text: sum(p or 0 if isinstance(p, int) else len(p) for p in pieces) for text, pieces in seen.items()}
    if length is None:
        closed = all(_OPEN not in pieces for pieces in seen.values())
        length = max(totals.values()) if closed else longest
        if length > longest:
            raise ValueError(f"{name} must have at most {longest} tokens, what the network reads, and has {length}.")
    return torch.tensor([_row(name, text, seen[text], totals[text], length) for text in rows])


def _pieces(tokenizer: Any, forbidden: set[int], name: str, text: str) -> list[list[int] | int]:
    """Tokens, and lengths of blanks."""
    if name == "prompt":
        if _BLANK.search(text):
            raise ValueError(f"prompt must be the beginning of the text, and has a blank: {text!r}. Use infill.")
        return [tokens(tokenizer, forbidden, name, text), _OPEN]
    pieces: list[list[int] | int] = []
    end = 0
    for blank in _BLANK.finditer(text):
        number = blank[1]
        if number is not None and (not re.fullmatch("[0-9]+", number) or int(number) == 0):
            raise ValueError(f"infill must have blanks such as [blank] or [blank:12], and has {blank[0]}.")
        pieces += [tokens(tokenizer, forbidden, name, text[end : blank.start()]), int(number or _OPEN)]
        end = blank.end()
    if not pieces:
        raise ValueError(f"infill must have a [blank] in each text, and {text!r} has none. Use prompt for a beginning.")
    return [*pieces, tokens(tokenizer, forbidden, name, text[end:])]


def tokens(tokenizer: Any, forbidden: set[int], name: str, text: str) -> list[int]:
    """The tokens of a piece of text. Raises `ValueError` for what the tokenizer can't say."""
    try:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    except Exception as error:  # a vocabulary without [UNK] raises what the tokenizers library likes
        listed = ", ".join(repr(c) for c in dict.fromkeys(text) if not _says(tokenizer, c)) or error
        raise ValueError(
            f"{name} must be of what the tokenizer knows, and {text!r} has {listed}. Write it otherwise."
        ) from error
    found: list[int] = encoded["input_ids"]
    spans: list[tuple[int, int]] = encoded["offset_mapping"]
    unknown = [text[a:b] for state, (a, b) in zip(found, spans, strict=True) if state == tokenizer.unk_token_id]
    said = {place for a, b in spans for place in range(a, b)}
    unknown += [c for place, c in enumerate(text) if place not in said and not c.isspace()]
    if unknown:
        listed = ", ".join(repr(piece) for piece in dict.fromkeys(unknown))
        raise ValueError(f"{name} must be of what the tokenizer knows, and {text!r} has {listed}. Write it otherwise.")
    if marks := [tokenizer.convert_ids_to_tokens(state) for state in found if state in forbidden]:
        raise ValueError(f"{name} must not have {marks[0]}, which no text has, and is {text!r}. A blank is [blank].")
    return found


def _says(tokenizer: Any, character: str) -> bool:
    try:
        tokenizer(character, add_special_tokens=False)
    except Exception:
        return False
    return True


def _row(name: str, text: str, pieces: list[list[int] | int], total: int, length: int) -> list[int]:
    opened = sum(piece == _OPEN for piece in pieces)
    left = length - total
    if left < opened or (left and not opened):
        need = f"at least {total + opened}" if opened else f"{total}"
        raise ValueError(
            f"{name} {text!r} takes {need} tokens, a blank's at least 1, and length is {length}. Change length, which "
            "all rows share, or the text; a [blank] without a number takes up what is left."
        )
    row: list[int] = []
    for piece in pieces:
        if isinstance(piece, list):
            row += piece
        elif piece != _OPEN:
            row += [FREE] * piece
        else:
            share = -(-left // opened)
            row += [FREE] * share
            left, opened = left - share, opened - 1
    return row
