"""How varied sequences of tokens are: the entropy of their tokens, and the share of n-grams that are different.

A sampler that is surer than it should be writes texts of which a judge thinks well, and which repeat themselves: the
entropy of their tokens falls (Zheng et al., 2409.02908). So no judged figure is read without it. Both depend on how
many sequences they are of, and are set beside as many of the data.

Tokens that only fill a sequence up, ends of documents that follow one another, count nowhere.
"""

from __future__ import annotations

import torch
from torch import Tensor


def counted(sequences: Tensor, end: int) -> Tensor:
    """Which tokens count, (n, length): all but ends of documents that follow another."""
    counts = torch.ones_like(sequences, dtype=torch.bool)
    counts[:, 1:] = (sequences[:, 1:] != end) | (sequences[:, :-1] != end)
    return counts


def unigram_entropy(sequences: Tensor, end: int) -> float:
    """The entropy of the tokens' frequencies, in bits a token."""
    counts = torch.bincount(sequences[counted(sequences, end)]).double()
    return float(torch.special.entr(counts / counts.sum()).sum()) / torch.log(torch.tensor(2.0)).item()


def distinct(sequences: Tensor, end: int, order: int) -> float:
    """Of all n-grams of that order within sequences, the share that are different."""
    kept, size = counted(sequences, end), sequences.shape[1] - order + 1
    grams = torch.stack([sequences[:, k : k + size] for k in range(order)], 2)
    whole = torch.stack([kept[:, k : k + size] for k in range(order)], 2).all(2)
    found = grams[whole]
    return len(torch.unique(found, dim=0)) / max(len(found), 1)
