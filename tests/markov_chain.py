"""A Markov chain of states, of which everything is known: its sequences, their entropy, and the perfect denoiser."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class MarkovChain:
    """Sequences of `length` states: the first by `start` (S,), each next by the row of `rows` (S, S) of the last."""

    rows: Tensor
    start: Tensor
    length: int

    @classmethod
    def of_the_facts(cls) -> MarkovChain:
        """Three states, three places, 2.8946 bits."""
        generator = np.random.default_rng(0)
        rows = generator.dirichlet(np.full(3, 0.4), size=3)
        return cls(torch.from_numpy(rows), torch.from_numpy(generator.dirichlet(np.ones(3))), 3)

    @property
    def sequences(self) -> Tensor:
        """All of them, (S^length, length)."""
        return torch.tensor(list(itertools.product(range(len(self.start)), repeat=self.length)))

    def log_probability(self, sequences: Tensor) -> Tensor:
        """In nats, (n,)."""
        steps = self.rows[sequences[:, :-1], sequences[:, 1:]].log().sum(1)
        return self.start[sequences[:, 0]].log() + steps

    def entropy(self) -> float:
        """In bits, by its rate: the entropy of the start and that of each next state."""
        rate = torch.special.entr(self.rows).sum(1)
        total, now = float(torch.special.entr(self.start).sum()), self.start
        for _ in range(self.length - 1):
            total += float(now @ rate)
            now = now @ self.rows
        return total / math.log(2)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        states = torch.multinomial(self.start, count, replacement=True, generator=generator)
        sequences = [states]
        for _ in range(self.length - 1):
            sequences.append(torch.multinomial(self.rows[sequences[-1]], 1, generator=generator)[:, 0])
        return torch.stack(sequences, 1)

    def denoise(self, sample: Tensor, cumulative: Tensor) -> Tensor:
        """log p(x_0 | x_t) of each place (n, length, K), by the two messages that each place gets of its neighbours.

        `cumulative` is q(x_t | x_0), (K, K) or (n, K, K), K at least S: further states, such as a mask, have no chance.
        """
        count = len(self.start)
        cumulative = cumulative.expand(len(sample), -1, -1)
        seen = cumulative[torch.arange(len(sample))[:, None], :count, sample]  # (n, length, S)
        left, right = [self.start.expand(len(sample), -1)], [torch.ones(len(sample), count, dtype=torch.float64)]
        for i in range(self.length - 1):
            message = (left[-1] * seen[:, i]) @ self.rows
            left.append(message / message.sum(1, keepdim=True))
            message = (right[-1] * seen[:, -1 - i]) @ self.rows.T
            right.append(message / message.sum(1, keepdim=True))
        joint = torch.stack(left, 1) * seen * torch.stack(right[::-1], 1)
        probabilities = torch.zeros(*sample.shape, cumulative.shape[-1], dtype=torch.float64)
        probabilities[..., :count] = joint / joint.sum(-1, keepdim=True)
        return probabilities.log()

    def noised(self, cumulative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Every x_0 with every x_t that it can become by q(x_t | x_0) (K, K), and their joint probability."""
        x_0, states = self.sequences, torch.cartesian_prod(*[torch.arange(len(cumulative))] * self.length)
        x_0, x_t = x_0.repeat_interleave(len(states), 0), states.repeat(len(x_0), 1)
        joint = self.log_probability(x_0).exp() * cumulative[x_0, x_t].prod(1)
        can_be = joint > 0
        return x_0[can_be], x_t[can_be], joint[can_be]
