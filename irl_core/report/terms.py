"""What the terms of tables, charts and headlines mean, in plain words: shown where one is pointed at."""

from __future__ import annotations

import re
from typing import Final

TERMS: Final = {
    "AUC": "The chance that a correct solution scores above an incorrect one: 0.5 is a coin, 1 never errs.",
    "Cohen's d": "The difference of the two means, in standard deviations: 0.2 is small, 0.8 large.",
    "Welch's t": "The difference of the two means over its standard error, solutions taken as independent.",
    "p of Welch's t": "How often so large a t would come up without any difference; solutions taken as independent.",
    "errors over problems": "The same test with a standard error over problems, since samples of one are alike.",
    "ranked right": "Of a correct and an incorrect solution of one problem, how often the correct one is higher.",
    "within problems": "Each problem's mean is taken off first: which problems are easy earns nothing.",
    "pooled": "Over all solutions, whichever problem they are of.",
    "log-probability": "How likely the policy itself finds the text; it needs no reward.",
    "likelihood": "How likely the policy itself finds the text; it needs no reward.",
    "length": "The number of tokens; a token is a word, or a part of one.",
    "shortness": "Minus the number of tokens: what a preference for short texts alone would do.",
    "discounted reward": "The mean of the tokens' rewards (standardised), each counting less and less for the tokens "
    "before it: 0.9 of it for the one before, 0.81 for the next.",
    "discounted reward, answer": "The same, over the tokens of the line with the final answer alone.",
    "mean reward": "The mean over the tokens: what the reward makes of the whole solution.",
    "last reward": "The reward of the last token, when all has been read.",
    "product over the tokens": "How likely it is, by the reward, that every single token is an expert's.",
    "sum of credit": "The last token's reward less what it was before the first: what writing the solution earned.",
    "credit": "The change of the reward at a token: what this token alone earns.",
    "lowest reward": "The reward of the solution's worst token.",
    "lowest credit": "The credit of the solution's worst token.",
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
    "F1": "ProcessBench's: the harmonic mean of the accuracy on wrong and on correct solutions.",
    "MCC": "Matthews' correlation of 'wrong' as decided with 'wrong' as labelled: 0 is chance, 1 never errs.",
    "error_acc": "The share of wrong solutions whose first wrong step is named.",
    "correct_acc": "The share of correct solutions of which no step is named.",
    "held-out": "Of problems that the training never saw.",
    "held out": "Of problems that the training never saw.",
    "policy": "The model that writes the solutions, and learns from the reward.",
    "discriminator": "The model that makes the reward: it tells experts' solutions from the policy's.",
    "exact": "The share of wrong solutions whose first wrong step is the one that is named.",
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
