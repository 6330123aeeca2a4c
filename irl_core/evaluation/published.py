"""Published figures, each with its source. They are shown apart from measured ones and marked as cited: other
models, other problems, another budget. What could not be seen is named in ``NOT_FOUND`` and not given.

Of 'Learning a Dense Reasoning Reward Model from Expert Demonstration via Inverse Reinforcement Learning' (arXiv
2510.01857 v1) the tables themselves could not be read here. What is given is what its authors' code wrote for them into
their repository on the day of the paper's submission: the table of pass@k, and the figures of reranking, separation and
correlation (vector graphics, whose printed numbers and coordinates are exact).
"""

from __future__ import annotations

from dataclasses import dataclass

from irl_core.evaluation.section import Table

PAPER = "Fanconi, Astorga and van der Schaar 2025, arXiv 2510.01857 v1"
PAPER_ADDRESS = "https://arxiv.org/abs/2510.01857v1"
AUTHORS_FILES = "https://github.com/fanconic/expert_reasoning/tree/1f0dad0ff21acde531a5b1b222a01da3feb8f8ba/figures"
PROCESSBENCH = "Zheng et al. 2024, arXiv 2412.06559"
PROCESSBENCH_ADDRESS = "https://arxiv.org/abs/2412.06559"
LESSONS = "Zhang et al. 2025, arXiv 2501.07301"
FREEPRM = "https://github.com/sunlin-ai/FreePRM"
R_PRM = "https://github.com/NJUNLP/R-PRM"

NOT_FOUND = (
    f"{PAPER}: table 3 (discriminator backbones), table 4 (perturbation) and table 5 (Wasserstein)",
    f"{PAPER}: the p values of the separation beyond 'p < 0.001', Cohen's d, AUC and the numbers of traces",
    f"{PROCESSBENCH}, table 3: error_acc and correct_acc of the process-reward models on GSM8K (F1 alone was seen)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cited(Table):
    """A published table; its cells are as published, an interval is the source's own.

    Attributes:
        beside: the section of the report that it may stand beside.
        source: who published it. address: where. place: which table or figure.
        seen: the address of what was read.
    """

    beside: str
    source: str
    address: str
    place: str
    seen: str


PASS_AT_K = Cited(
    title="GSM8K, test: pass@k of trained policies",
    beside="pass_at_k",
    head=("", "pass@1", "pass@3", "pass@5", "pass@10"),
    rows=(
        ("Llama-3.2-3B, IRL", "0.32 [0.30, 0.33]", "0.53 [0.51, 0.55]", "0.63 [0.61, 0.65]", "0.75 [0.73, 0.77]"),
        ("Llama-3.2-3B, SFT", "0.55 [0.53, 0.57]", "0.76 [0.75, 0.78]", "0.83 [0.82, 0.85]", "0.89 [0.88, 0.91]"),
        ("Llama-3.2-3B, GRPO", "0.57 [0.55, 0.59]", "0.78 [0.77, 0.80]", "0.85 [0.83, 0.86]", "0.91 [0.89, 0.92]"),
        ("Llama-3.1-8B, IRL", "0.49 [0.47, 0.51]", "0.73 [0.71, 0.75]", "0.80 [0.79, 0.82]", "0.88 [0.86, 0.89]"),
        ("Llama-3.1-8B, SFT", "0.55 [0.53, 0.56]", "0.79 [0.78, 0.81]", "0.86 [0.84, 0.87]", "0.91 [0.90, 0.93]"),
        ("Llama-3.1-8B, GRPO", "0.73 [0.71, 0.74]", "0.88 [0.86, 0.89]", "0.91 [0.90, 0.93]", "0.94 [0.93, 0.95]"),
        ("Qwen2.5-3B, IRL", "0.51 [0.49, 0.53]", "0.72 [0.71, 0.74]", "0.80 [0.78, 0.81]", "0.87 [0.85, 0.88]"),
        ("Qwen2.5-3B, SFT", "0.54 [0.53, 0.56]", "0.76 [0.75, 0.78]", "0.83 [0.81, 0.85]", "0.90 [0.88, 0.91]"),
        ("Qwen2.5-3B, GRPO", "0.80 [0.78, 0.82]", "0.90 [0.89, 0.92]", "0.93 [0.91, 0.94]", "0.95 [0.93, 0.96]"),
        ("Qwen2.5-7B, IRL", "0.71 [0.69, 0.73]", "0.88 [0.87, 0.90]", "0.92 [0.91, 0.93]", "0.95 [0.94, 0.96]"),
        ("Qwen2.5-7B, SFT", "0.67 [0.66, 0.69]", "0.87 [0.85, 0.88]", "0.91 [0.90, 0.93]", "0.95 [0.94, 0.96]"),
        ("Qwen2.5-7B, GRPO", "0.88 [0.87, 0.90]", "0.94 [0.93, 0.95]", "0.95 [0.94, 0.96]", "0.96 [0.95, 0.97]"),
    ),
    source=PAPER,
    address=PAPER_ADDRESS,
    place="table 2, as the authors' code wrote it (pass_at_k_table.txt of each backbone)",
    seen=AUTHORS_FILES,
)
RERANKING = Cited(
    title="GSM8K, test: pass@k|16 by the reward over the answer, against a random order",
    beside="reranking",
    head=("", "pass@1|16", "pass@3|16", "pass@5|16", "pass@10|16"),
    rows=(
        ("Llama-3.2-3B, reward", "0.490", "0.672", "0.729", "0.793"),
        ("Llama-3.2-3B, random", "0.315", "0.544", "0.635", "0.754"),
        ("Llama-3.1-8B, reward", "0.632", "0.798", "0.847", "0.897"),
        ("Llama-3.1-8B, random", "0.506", "0.731", "0.815", "0.883"),
        ("Qwen2.5-3B, reward", "0.547", "0.736", "0.810", "0.870"),
        ("Qwen2.5-3B, random", "0.513", "0.733", "0.809", "0.874"),
        ("Qwen2.5-7B, reward", "0.722", "0.885", "0.922", "0.954"),
        ("Qwen2.5-7B, random", "0.724", "0.877", "0.925", "0.953"),
    ),
    source=PAPER,
    address=PAPER_ADDRESS,
    place="the figure of pass@k|N (pass_atkN_expert.pdf of each backbone), from the coordinates of its points",
    seen=AUTHORS_FILES,
    note="Intervals of the figure reach 0.02 to 0.03 to each side at k = 1.",
)
SEPARATION = Cited(
    title="GSM8K, test: Welch's t of mean reward, correct against wrong traces, pooled over problems",
    beside="separation",
    head=("", "t, mean reward", "t, mean discounted reward"),
    rows=(
        ("Llama-3.2-3B", "29.28", "30.11"),
        ("Llama-3.1-8B", "39.93", "40.61"),
        ("Qwen2.5-3B", "21.82", "22.36"),
        ("Qwen2.5-7B", "25.91", "24.84"),
    ),
    source=PAPER,
    address=PAPER_ADDRESS,
    place="the figures of reward distributions (correctness_reward_distribution*.pdf), p < 0.001 each",
    seen=AUTHORS_FILES,
    note="t grows with the number of traces, and takes those of one problem as independent.",
)
CORRELATION = Cited(
    title="GSM8K, test: Pearson's r with correctness, and of the discounted reward with form; reward over the answer",
    beside="correlation",
    head=(
        "",
        "reward, correctness",
        "discounted, correctness",
        "discounted, XML count",
        "discounted, strict format",
        "discounted, integer",
        "integer, correctness",
    ),
    rows=(
        ("Llama-3.2-3B", "0.33", "0.38", "0.33", "0.38", "0.39", "0.61"),
        ("Llama-3.1-8B", "0.27", "0.30", "0.12", "0.11", "0.21", "0.36"),
        ("Qwen2.5-3B", "0.14", "0.18", "0.04", "0.03", "0.20", "0.38"),
        ("Qwen2.5-7B", "0.23", "0.22", "0.09", "0.08", "0.10", "0.46"),
    ),
    source=PAPER,
    address=PAPER_ADDRESS,
    place="the correlation matrices (reward_correlation_matrix.pdf of each backbone)",
    seen=AUTHORS_FILES,
)
PROCESS_MODELS = Cited(
    title="ProcessBench, GSM8K: F1 of process-reward models (percent)",
    beside="localisation",
    head=("", "F1", "seen in"),
    rows=(
        ("Math-Shepherd-PRM-7B", "47.9", "FreePRM, R-PRM"),
        ("RLHFlow-PRM-Mistral-8B", "50.4", "FreePRM"),
        ("RLHFlow-PRM-Deepseek-8B", "38.8", "FreePRM"),
        ("Skywork-PRM-7B", "70.8", "FreePRM, R-PRM"),
        ("EurusPRM-Stage1", "44.3", "FreePRM"),
        ("EurusPRM-Stage2", "47.3", "FreePRM"),
        ("Qwen2.5-Math-7B-Math-Shepherd", "62.5", "FreePRM"),
        ("Qwen2.5-Math-7B-PRM800K", "68.2", "FreePRM, R-PRM"),
        ("Qwen2.5-Math-PRM-7B", "82.4", "R-PRM"),
        ("GPT-4o, asked as a critic", "79.2", "R-PRM"),
        ("o1-mini, asked as a critic", "93.2", "R-PRM"),
    ),
    source=f"{PROCESSBENCH}, and for EurusPRM and the Qwen2.5-Math models of 2025 {LESSONS}",
    address=PROCESSBENCH_ADDRESS,
    place="table 3, as two later repositories repeat it",
    seen=f"{FREEPRM} and {R_PRM} (README)",
    note="A model's threshold is the one with the best F1 on these very GSM8K traces, as our oracle threshold is.",
)

TABLES = (PASS_AT_K, SEPARATION, RERANKING, CORRELATION, PROCESS_MODELS)


def beside(section: str) -> list[Cited]:
    """The published tables that may stand beside a section of the report."""
    return [table for table in TABLES if table.beside == section]
