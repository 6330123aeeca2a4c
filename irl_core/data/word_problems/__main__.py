"""Prints example problems: ``python -m irl_core.data.word_problems --n 5 --seed 1``."""

from __future__ import annotations

import argparse

from irl_core.data.word_problems.generate import SPLITS, problem, problems


def main() -> None:
    """Parses the command line and prints the problems with their solutions."""
    parser = argparse.ArgumentParser(
        prog="python -m irl_core.data.word_problems", description="Print example word problems."
    )
    parser.add_argument("--n", type=int, default=5, help="how many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--family", help="only this family (not split)")
    arguments = parser.parse_args()
    if arguments.family:
        chosen = [problem(arguments.seed + index, arguments.family) for index in range(arguments.n)]
    else:
        chosen = list(problems(arguments.seed, arguments.n, arguments.split))
    for one in chosen:
        print(f"[{one.problem_id}]\n{one.text}\n\n{one.solution}\n")


if __name__ == "__main__":
    main()
