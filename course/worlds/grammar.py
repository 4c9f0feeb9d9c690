"""A probabilistic context-free grammar whose every quantity has an exact value.

A grammar writes a text by expanding its start symbol, rule by rule. If no text has two
derivations (the grammar is *unambiguous*), then the probability of a text is the product of
the probabilities of its rules, and the entropy of the distribution over texts is the entropy
of the derivation, which solves a small linear system.
Grammars here are free of left recursion: a rule never starts with its own symbol.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from helpers import contract

Rule = tuple[float, tuple[str, ...], float]  # log-probability, right-hand side, score
Stack = tuple[str, ...]  # symbols still to be written, the next one first


class Grammar:
    """Rules with probabilities and scores; texts are words separated by spaces."""

    def __init__(
        self, start: str, weights: Mapping[str, Sequence[tuple[float, str, float]]]
    ) -> None:
        """Normalise the weights of each symbol.

        Args:
            start: the symbol that a text is derived from, one of those that have rules.
            weights: for each symbol its rules (a weight above 0, symbols, score), not empty;
                symbols are separated by spaces, and one without rules of its own is a word.
        Raises:
            ValueError: a weight is not positive, or a symbol has no rule.
        """
        if start not in weights:
            raise ValueError(f"start {start!r} has no rules; weights has {list(weights)}.")
        self.start = start
        self.rules: dict[str, list[Rule]] = {}
        for symbol, options in weights.items():
            if not options:
                raise ValueError(f"the symbol {symbol!r} of weights has no rules; give it one.")
            total = sum(weight for weight, _, _ in options)
            if not all(weight > 0 for weight, _, _ in options):
                raise ValueError(f"every weight of {symbol} must be positive: leave the rule out.")
            self.rules[symbol] = [
                (math.log(weight / total), tuple(right.split()), float(score))
                for weight, right, score in options
            ]
        rights = (right for options in self.rules.values() for _, right, _ in options)
        self.words = sorted({s for right in rights for s in right if s not in self.rules})

    def sample(self, count: int, generator: torch.Generator, prefix: str = "") -> list[str]:
        """Draw texts, or continuations of a prefix: the text given that it starts like that.

        Args:
            count: ≥ 1, how many.
            generator: the source of chance.
            prefix: words that the text starts with; they are left out of the result.
        Returns:
            `count` strings.
        Raises:
            ValueError: no text of this grammar starts with `prefix`.
        """
        starts = self._after(prefix.split())
        weights = torch.tensor(list(starts.values()), dtype=torch.float64).softmax(0)
        picks = torch.multinomial(weights, count, replacement=True, generator=generator)
        stacks, uniforms = list(starts), _uniforms(generator)
        return [self._write(stacks[i], uniforms) for i in picks.tolist()]

    def _write(self, stack: Stack, uniforms: Iterator[float]) -> str:
        pending, words = list(reversed(stack)), []
        while pending:
            symbol = pending.pop()
            if symbol not in self.rules:
                words.append(symbol)
                continue
            options = self.rules[symbol]
            threshold = next(uniforms)
            choice = 0
            while choice < len(options) - 1 and threshold >= math.exp(options[choice][0]):
                threshold -= math.exp(options[choice][0])
                choice += 1
            pending.extend(reversed(options[choice][1]))
        return " ".join(words)

    def derivations(self, text: str) -> list[tuple[float, float]]:
        """Every derivation of a text, as (log-probability, score).

        Returns:
            One pair a derivation: none if the text is not in the language, and never more
            than one if the grammar is unambiguous.
        """
        found: list[tuple[float, float]] = []
        words = text.split()
        open_: list[tuple[int, Stack, float, float]] = [(0, (self.start,), 0.0, 0.0)]
        while open_:
            position, stack, logp, score = open_.pop()
            if not stack:
                if position == len(words):
                    found.append((logp, score))
            elif stack[0] in self.rules:
                open_.extend(
                    (position, right + stack[1:], logp + rule_logp, score + rule_score)
                    for rule_logp, right, rule_score in self.rules[stack[0]]
                )
            elif position < len(words) and words[position] == stack[0]:
                open_.append((position + 1, stack[1:], logp, score))
        return found

    def logprob(self, text: str, prefix: str = "") -> float:
        """Exact log-probability of a text, or of a continuation given a prefix, in nats.

        Args:
            text: what is scored.
            prefix: words that are given.
        Returns:
            log P(text | prefix); −inf if the grammar cannot write it.
        Raises:
            ValueError: no text starts with `prefix`, so that the condition has no meaning.
        """
        log_prefix = _logsumexp(list(self._after(prefix.split()).values()))
        return _logsumexp([logp for logp, _ in self.derivations(f"{prefix} {text}")]) - log_prefix

    def next_word(self, prefix: str) -> dict[str, float]:
        """Exact distribution of the next word after a prefix.

        Returns:
            word → probability; the key "" stands for "the text ends here".
        Raises:
            ValueError: no text of this grammar starts with `prefix`.
        """
        heads: dict[str, list[float]] = {}
        for stack, logp in self._expand(self._after(prefix.split())).items():
            heads.setdefault(stack[0] if stack else "", []).append(logp)
        logps = {word: _logsumexp(values) for word, values in heads.items()}
        total = _logsumexp(list(logps.values()))
        return {word: math.exp(logp - total) for word, logp in logps.items()}

    def _after(self, words: Sequence[str]) -> dict[Stack, float]:
        """What may still have to be written after these words, with joint log-probabilities."""
        stacks: dict[Stack, float] = {(self.start,): 0.0}
        for word in words:
            moved: dict[Stack, list[float]] = {}
            for stack, logp in self._expand(stacks).items():
                if stack and stack[0] == word:
                    moved.setdefault(stack[1:], []).append(logp)
            if not moved:
                raise ValueError(f"no text of this grammar starts with {' '.join(words)!r}.")
            stacks = {stack: _logsumexp(values) for stack, values in moved.items()}
        return stacks

    def _expand(self, stacks: Mapping[Stack, float]) -> dict[Stack, float]:
        """Apply rules until every stack is empty or has a word on top."""
        ready: dict[Stack, list[float]] = {}
        open_ = list(stacks.items())
        while open_:
            stack, logp = open_.pop()
            if stack and stack[0] in self.rules:
                options = self.rules[stack[0]]
                open_.extend((right + stack[1:], logp + rule) for rule, right, _ in options)
            else:
                ready.setdefault(stack, []).append(logp)
        return {stack: _logsumexp(values) for stack, values in ready.items()}

    def entropy(self) -> float:
        """Entropy of the distribution over texts, in nats, exact if the grammar is unambiguous.

        H(symbol) = Σ_rules p (−log p + Σ_children H(child)), solved for all symbols at once.
        Source: Chi (1999), "Statistical Properties of Probabilistic Context-Free Grammars".
        """
        return self._solve(lambda logp, right, score: -logp)

    def expected_score(self) -> float:
        """Expected score of a text (the mean sentiment of the reviews grammar), exact."""
        return self._solve(lambda logp, right, score: score)

    def expected_length(self) -> float:
        """Expected number of words of a text, exact."""
        return self._solve(lambda logp, right, score: sum(s not in self.rules for s in right))

    def _solve(self, value: Callable[[float, tuple[str, ...], float], float]) -> float:
        """Expected sum of `value(logp, right, score)` over the rules of a derivation."""
        index = {symbol: i for i, symbol in enumerate(self.rules)}
        system = torch.eye(len(index), dtype=torch.float64)
        immediate: Tensor = torch.zeros(len(index), dtype=torch.float64)
        for symbol, options in self.rules.items():
            for logp, right, score in options:
                immediate[index[symbol]] += math.exp(logp) * value(logp, right, score)
                for child in right:
                    if child in index:
                        system[index[symbol], index[child]] -= math.exp(logp)
        growth = (
            torch.linalg.eigvals(torch.eye(len(index), dtype=torch.float64) - system).abs().max()
        )
        if growth >= 1:
            raise ValueError("this grammar may never stop writing: it has no finite expectations.")
        return float(torch.linalg.solve(system, immediate)[index[self.start]])


def _uniforms(generator: torch.Generator) -> Iterator[float]:
    while True:  # in blocks: a tensor a number would cost most of the time
        yield from torch.rand(4096, generator=generator, dtype=torch.float64).tolist()


def _logsumexp(values: Sequence[float]) -> float:
    if not values:
        return -math.inf
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


contract.hold(globals())
