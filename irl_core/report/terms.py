"""What the terms of tables, charts and headlines mean, in plain words: shown where one is pointed at."""

from __future__ import annotations

import re
from typing import Final

TERMS: Final = {
    "AUC": "The chance that a correct trace scores above an incorrect one: 0.5 is a coin, 1 never errs.",
    "Cohen's d": "The difference of the two means, in standard deviations: 0.2 is small, 0.8 large.",
    "Welch's t": "The difference of the two means over its standard error, traces taken as independent.",
    "p of Welch's t": "How often so large a t would come up if there were no difference; traces taken as independent.",
    "errors over problems": "The same test with a standard error over problems, since samples of one are alike.",
    "pairs ranked right": "Of a correct and an incorrect trace of one problem, how often the correct one is higher.",
    "within problems": "Each problem's mean is taken off first: which problems are easy earns nothing.",
    "pooled": "Over all traces, whichever problem they are of.",
    "log-probability": "How likely the policy itself finds the text; it needs no reward.",
    "likelihood": "How likely the policy itself finds the text; it needs no reward.",
    "shortness": "Minus the number of tokens: what a preference for short texts alone would do.",
    "discounted reward": "Rewards standardised, summed backwards with a discount of 0.9 a token, then averaged.",
    "credit": "The change of the reward at a token: what this token alone earns.",
    "lowest reward": "The reward of the trace's worst token.",
    "lowest credit": "The credit of the trace's worst token.",
    "majority": "The answer that most samples of a problem give.",
    "random sample": "One sample drawn at random: what there is without any choice.",
    "random score per distinct text": "A score drawn at random for each different text.",
    "oracle": "Right wherever any sample is: no way to choose can do better.",
    "weighted vote": "Every sample votes for its answer, with more weight the higher it scores.",
    "vote weighted": "Every sample votes for its answer, with more weight the higher it scores.",
    "pass@": "pass@k: the share of problems of which at least one among k samples is right.",
    "Pearson": "How close two columns are to one straight line: from -1 to 1, 0 is none.",
    "Spearman": "The same of their ranks: whether one rises where the other does.",
    "removed": "What the others explain is subtracted from both columns first.",
    "F1": "ProcessBench's: the harmonic mean of the accuracy on wrong and on correct traces.",
    "MCC": "Matthews' correlation of 'wrong' as decided with 'wrong' as labelled: 0 is chance, 1 never errs.",
    "error_acc": "The share of wrong traces whose first wrong step is named.",
    "correct_acc": "The share of correct traces of which no step is named.",
    "held-out": "Of problems that the training never saw.",
    "held out": "Of problems that the training never saw.",
    "policy": "The model that writes the solutions, and learns from the reward.",
    "discriminator": "The model that makes the reward: it tells experts' solutions from the policy's.",
    "exact": "The share of wrong traces whose first wrong step is the one that is named.",
    "r ": "Pearson's correlation: how close two columns are to one straight line, from -1 to 1.",
}  # fmt: skip
LONGEST_FIRST: Final = sorted(TERMS, key=len, reverse=True)


def term_of(words: str) -> str:
    """What the longest term in a heading or label means; empty where it has none."""
    padded = f"{words} "
    for term in LONGEST_FIRST:
        start = r"(?<!\w)" if term[0].isalnum() else ""
        if re.search(start + re.escape(term), padded, re.IGNORECASE if term[0].islower() else 0):
            return TERMS[term]
    return ""
