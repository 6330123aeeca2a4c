"""Write the samples of outside formats that the tests read, each by the library whose format it is.

``python tests/samples/write.py`` with lm-eval, inspect-ai and trl installed; the tests need none of them. Problems and
solutions are our own. The versions that wrote what is committed are in docs/data.md.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEMO = HERE.parents[1] / "assets" / "demo"

PEARS = "Mira packs 3 crates of 12 pears and gives 6 pears away. How many pears are left?"
TILES = "A floor of 5 rows holds 8 tiles in each row. Nine tiles are cracked. How many are whole?"
RIGHT = ["3 crates of 12 pears are 3 * 12 = 36 pears.", "After the gift 36 - 6 = 30 are left.", "The answer is 30."]
WRONG = ["3 crates of 12 pears are 3 * 12 = 36 pears.", "After the gift 36 + 6 = 42 are left.", "The answer is 42."]
LATE = ["5 rows of 8 tiles are 5 * 8 = 40 tiles.", "Whole ones: 40 - 9 = 32.", "The answer is 32."]
SOLVED = [(PEARS, RIGHT, "30"), (PEARS, WRONG, "30"), (TILES, LATE, "31")]
FIRST_WRONG = [-1, 1, 1]  # of each, from 0; -1: none


def jsonl(name: str, rows: list[dict]) -> None:
    (HERE / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def by_hand() -> None:
    """Formats without a writer: as their cards describe them."""
    labels = ([True, True, True], [True, False, False], [True, False, False])
    shepherd = []
    for (problem, steps, _), good in zip(SOLVED, labels, strict=True):
        lines = [f"Step {number}: {step}" for number, step in enumerate(steps, 1)]
        marked = "\n".join(f"{line} ки" for line in lines)
        judged = "\n".join(f"{line} {'+' if right else '-'}" for line, right in zip(lines, good, strict=True))
        shepherd.append({"input": f"{problem} {marked}", "label": f"{problem} {judged}", "task": "GSM8K"})
    jsonl("math_shepherd.jsonl", shepherd)
    jsonl("prm800k.jsonl", prm800k_rows())
    jsonl("processbench.jsonl", [
        {"id": f"own-{number}", "generator": "written", "problem": problem, "steps": steps,
         "final_answer_correct": first < 0, "label": first}
        for number, ((problem, steps, _), first) in enumerate(zip(SOLVED, FIRST_WRONG, strict=True))
    ])  # fmt: skip
    numbered = enumerate(zip(SOLVED, FIRST_WRONG, strict=True))
    jsonl("mr_gsm8k.jsonl", [mr_gsm8k_row(number, *one) for number, one in numbered])


def mr_gsm8k_row(number: int, solved: tuple[str, list[str], str], first: int) -> dict:
    """A row of MR-GSM8K, which counts steps from 1."""
    problem, steps, answer = solved
    wrong = first >= 0
    return {
        "uuid": f"own-{number}", "question": problem, "ground_truth_solution": "", "ground_truth_answer": answer,
        "question_type": "original", "model_output_steps": steps,
        "model_output_answer_correctness": "incorrect" if wrong else "correct",
        "model_output_solution_correctness": "wrong" if wrong else "correct",
        "model_output_solution_first_error_step": first + 1 if wrong else "N/A",
        "model_output_solution_first_error_reason": "the result is another" if wrong else "N/A",
    }  # fmt: skip


def prm800k_rows() -> list[dict]:
    def step(*rated: tuple[str, int | None], chosen: int | None = 0, own: str | None = None) -> dict:
        human = None if own is None else {"text": own, "rating": None, "source": "human", "flagged": False}
        choices = [{"text": text, "rating": rating, "flagged": None} for text, rating in rated]
        return {"completions": choices, "human_completion": human, "chosen_completion": chosen}

    def row(phase: int, problem: str, answer: str, given: list[str] | None, reason: str, *steps: dict) -> dict:
        question = {"problem": problem, "ground_truth_answer": answer}
        if given:
            question |= {
                "pre_generated_steps": given,
                "pre_generated_answer": None,
                "pre_generated_verifier_score": 0.5,
            }
        return {
            "labeler": f"labeler-{phase}", "timestamp": "2026-11-01T09:00:00", "generation": None if phase == 1 else 3,
            "is_quality_control_question": False, "is_initial_screening_question": False, "question": question,
            "label": {"steps": list(steps), "total_time": 41_000, "finish_reason": reason},
        }  # fmt: skip

    return [
        row(2, PEARS, "30", RIGHT, "solution", *(step((text, 1)) for text in RIGHT)),
        row(2, TILES, "31", LATE, "found_error", step((LATE[0], 1)), step((LATE[1], -1), chosen=None)),
        row(1, PEARS, "30", None, "solution", step((WRONG[0], 0), ("So 3 + 12 = 15.", -1)),
            step((WRONG[1], -1), chosen=None, own=RIGHT[1]), step((RIGHT[2], 1))),
        row(2, PEARS, "30", RIGHT, "give_up", step((RIGHT[0], 1))),
        row(2, PEARS, "30", RIGHT, "solution", step((RIGHT[0], 1))),
    ]  # fmt: skip


def by_datasets() -> None:
    """A saved data set, Parquet and CSV by the library datasets: stepwise rows, chats, columns of any name."""
    import datasets

    stepwise = [
        {
            "prompt": problem,
            "completions": steps,
            "labels": [step not in (WRONG[1], WRONG[2], *LATE[1:]) for step in steps],
        }
        for problem, steps, _ in SOLVED
    ]
    for name in ("stepwise", "stepwise_splits"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    saved = datasets.Dataset.from_list(stepwise)
    saved.save_to_disk(HERE / "stepwise")
    datasets.DatasetDict({"test": saved}).save_to_disk(HERE / "stepwise_splits")
    chats = [
        {"messages": [{"role": "system", "content": "Think step by step."}, {"role": "user", "content": problem},
                      {"role": "assistant", "content": "\n".join(steps)}], "answer": answer}
        for problem, steps, answer in SOLVED
    ]  # fmt: skip
    datasets.Dataset.from_list(chats).to_parquet(HERE / "messages.parquet")
    table = [{"ask": problem, "reply": "\n".join(steps), "gold": answer} for problem, steps, answer in SOLVED]
    datasets.Dataset.from_list(table).to_csv(HERE / "named.csv")


def by_lm_eval() -> None:
    """Logged samples of lm-evaluation-harness: its evaluator on a task of ours, two filters, two repeats."""
    from lm_eval import simple_evaluate
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.loggers import EvaluationTracker

    class Written(LM):
        def generate_until(self, requests: list[Instance]) -> list[str]:
            texts = {PEARS: ["\n".join(RIGHT), "\n".join(WRONG)], TILES: ["\n".join(LATE)] * 2}
            asked: dict[str, int] = {}
            replies = []
            for request in requests:
                problem = PEARS if PEARS in request.args[0] else TILES
                replies.append(texts[problem][asked.get(problem, 0) % 2])
                asked[problem] = asked.get(problem, 0) + 1
            return replies

        def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data.jsonl")
        data.write_text(
            "".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in ((PEARS, "30"), (TILES, "31")))
        )
        last = {"function": "regex", "regex_pattern": r"(\d+)", "group_select": -1}
        strict = {"function": "regex", "regex_pattern": r"The answer is (\d+)"}
        task = {
            "task": "own_words", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test", "output_type": "generate_until", "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_target": "{{answer}}", "metric_list": [{"metric": "exact_match"}], "repeats": 2,
            "generation_kwargs": {"until": ["Question:"], "do_sample": False},
            "filter_list": [{"name": "strict-match", "filter": [strict, {"function": "take_first"}]},
                            {"name": "flexible-extract", "filter": [last, {"function": "take_first"}]}],
        }  # fmt: skip
        results = simple_evaluate(Written(), tasks=[task], log_samples=True, bootstrap_iters=0)
        tracker = EvaluationTracker(output_path=folder)
        tracker.general_config_tracker.model_name_sanitized = "written"
        tracker.date_id = "2026-11-01"
        tracker.save_results_samples("own_words", results["samples"]["own_words"])
        (made,) = Path(folder, "written").glob("samples_*.jsonl")
        shutil.copy(made, HERE / "samples_own_words.jsonl")


def by_inspect() -> None:
    """Logs of Inspect AI, zipped and JSON: its evaluator on samples of ours with a model that says what it is given."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.log import read_eval_log, write_eval_log
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import match

    outputs = [ModelOutput.from_content("mockllm/model", "\n".join(steps)) for _, steps, _ in SOLVED]
    for output in outputs:
        output.usage = ModelUsage(input_tokens=20, output_tokens=30, total_tokens=50)  # else it fetches a tokenizer
    outputs[2].choices[0].stop_reason = "max_tokens"
    samples = [Sample(id=f"own-{n}", input=problem, target=answer) for n, (problem, _, answer) in enumerate(SOLVED)]
    with tempfile.TemporaryDirectory() as folder:
        task = Task(name="own_words", dataset=samples, scorer=match(numeric=True))
        model = get_model("mockllm/model", custom_outputs=outputs)
        (log,) = eval(task, model=model, log_dir=folder, display="none", max_connections=1, max_samples=1)
        log = read_eval_log(log.location)
        log.eval.task_file, log.eval.revision, log.eval.packages, log.eval.model_args = None, None, {}, {}
        for sample in log.samples or []:
            sample.events = []
        write_eval_log(log, str(HERE / "inspect.eval"), format="eval")
        write_eval_log(log, str(HERE / "inspect.json"), format="json")


def by_trl() -> None:
    """Completions that trl's GRPOTrainer logged: a step of the bundled demo policy on two problems of ours."""
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    def short_reward(completions: list, **_: object) -> list[float]:
        return [-float(len(str(text))) for text in completions]

    rows = [{"prompt": [{"role": "user", "content": problem}]} for problem in (PEARS, TILES)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            folder, per_device_train_batch_size=4, num_generations=2, max_completion_length=40, max_steps=1,
            logging_steps=1, log_completions=True, report_to=[], use_cpu=True, bf16=False, seed=3,
        )  # fmt: skip
        trainer = GRPOTrainer(
            AutoModelForCausalLM.from_pretrained(DEMO / "policy"), short_reward, arguments,
            train_dataset=datasets.Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(DEMO),
        )  # fmt: skip
        trainer.train()
        (made,) = Path(folder, "completions").glob("*.parquet")
        shutil.copy(made, HERE / "completions_00001.parquet")


if __name__ == "__main__":
    for write in (by_hand, by_datasets, by_lm_eval, by_inspect, by_trl):
        write()
        print(f"{write.__name__}: done")
