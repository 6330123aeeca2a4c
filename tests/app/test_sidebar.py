"""The sidebar: the machine, the training form with its plan, the jobs with cancel and resume, and what it refuses."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fakes
import pytest
import streamlit
from streamlit.testing.v1 import AppTest

from app import access
from app.inspect import scoring_queue
from app.jobs import machine, store, supervisor, training_form, training_plan
from app.jobs.logs import job_tail
from app.jobs.store import Job, JobError
from app.jobs.supervisor import Wanted
from app.jobs.training_plan import PlanError, TrainingRequest
from irl_core.checkpoints.find import CheckpointInfo
from irl_core.presets import load_config
from train.planning.duration import A100
from train.planning.fitting import settings_that_fit
from train.planning.plan import Device, Plan, make_plan
from train.planning.sources import Origin

MAIN = Path(__file__).resolve().parents[2] / "app" / "main.py"
SLEEP = "import time; print('a line of the log', flush=True); time.sleep(60)"
PRESETS = MAIN.parents[1] / "train" / "configs"
CONFIG = load_config("demo-irl", ["run.steps=180", "run.eval_every=0"], PRESETS)
PLAN = make_plan(CONFIG, Device("the CPU", "cpu", 16e9, 8e9))
PLAN = replace(PLAN, durations=replace(PLAN.durations, step={"policy": 6.0}, evaluations=0.0, start=60.0))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_lens: None) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    training_form.presets.clear()
    yield tmp_path
    with contextlib.suppress(JobError):
        for job in supervisor.list_jobs():
            for process in supervisor.processes_of(job):
                process.kill()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, Any]]]:
    """The commands of the jobs that were started; the jobs themselves sleep."""
    found: list[tuple[list[str], dict[str, Any]]] = []
    real = supervisor.start

    def start(job: Wanted) -> Job:
        found.append((job.command, {name: value for name, value in asdict(job).items() if name != "command"}))
        return real(replace(job, command=[sys.executable, "-c", SLEEP]))

    monkeypatch.setattr(supervisor, "start", start)
    return found


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests that were checked; ``PLAN`` is the answer."""
    asked: list[TrainingRequest] = []

    def plan(request: TrainingRequest) -> Plan:
        asked.append(request)
        if request.overrides == ("run.nonsense=1",):
            raise PlanError("Unknown key 'run.nonsense'.")
        return PLAN

    monkeypatch.setattr(training_plan, "plan", plan)
    return asked


def open_page() -> AppTest:
    page = AppTest.from_file(str(MAIN), default_timeout=30).run()
    assert not page.exception
    return page


def open_form() -> AppTest:
    """The form kept open, with the jobs beside it: AppTest draws all of a page anew, which closes a dialog."""
    script = "from app.jobs import panel, training_form\npanel.show()\ntraining_form.show()"
    page = AppTest.from_string(script, default_timeout=30).run()
    assert not page.exception
    return page


def press(page: AppTest, label: str) -> AppTest:
    next(button for button in page.button if button.label.startswith(label)).click().run()
    assert not page.exception
    return page


def force(page: AppTest, label: str) -> AppTest:
    """Press a disabled button, as a client can that is no browser; streamlit has to refuse it."""
    next(button for button in page.button if button.label == label).proto.disabled = False
    return press(page, label)


def labels(page: AppTest) -> dict[str, bool]:
    """The buttons, and whether each can be pressed."""
    return {button.label: not button.disabled for button in page.button}


def texts(page: AppTest) -> str:
    kinds = (page.text, page.caption, page.markdown, page.error, page.sidebar.error)
    return "\n".join(str(one.value) for kind in kinds for one in kind).replace("\\", "")


def a_job(code: str = SLEEP, **more: Any) -> Job:
    command = [sys.executable, "-c", code]
    return supervisor.start(Wanted("train", "mine", command, Path("runs/mine"), "cpu", **more))


def ended(job: Job) -> Job:
    for _ in range(300):
        if not supervisor.get(job.id).active:
            return supervisor.get(job.id)
        time.sleep(0.05)
    raise AssertionError("it goes on")


# ------------------------------------------------------------------------------------------------------------ machine


def test_the_machine_is_told_in_words() -> None:
    page = open_page()
    assert any("memory free" in caption.value for caption in page.sidebar.caption)


def asked(gpus: machine.GpuWatch) -> list[str]:
    """What is known of the GPUs once nvidia-smi has answered."""
    gpus.lines()
    assert gpus.asking is not None
    gpus.asking.join()
    return gpus.lines()


def test_a_gpu_is_asked_for_its_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143000, 143771'\necho 'NVIDIA GB10, [N/A], [N/A]'\n")
    program.chmod(0o755)
    monkeypatch.setattr(machine.shutil, "which", lambda _: str(program))
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "gpus")
    assert asked(machine.GpuWatch()) == ["NVIDIA H200, 149.9 of 150.8 GB free", "NVIDIA GB10"]
    program.write_text("#!/bin/sh\necho 'no driver'; exit 9\n")
    assert asked(machine.GpuWatch()) == []
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    (tmp_path / "gpus" / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA A100\nIRQ: 1\n")
    assert asked(machine.GpuWatch()) == ["NVIDIA A100"]


def test_a_slow_answer_holds_up_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.05; done\necho 'NVIDIA H200, 143000, 143771'\n")
    program.chmod(0o755)
    monkeypatch.setattr(machine.shutil, "which", lambda _: str(program))
    gpus = machine.GpuWatch()
    assert gpus.lines() == machine.names_of_driver()  # although there is no answer yet
    (tmp_path / "go").touch()
    assert asked(gpus) == ["NVIDIA H200, 149.9 of 150.8 GB free"]


# --------------------------------------------------------------------------------------------------------------- form


def test_the_button_opens_the_form() -> None:
    page = press(open_page(), "Train")
    assert page.selectbox(key="train1_preset").value == "demo-irl"


def test_a_form_that_is_opened_again_is_of_one_preset(planned: list[Any]) -> None:
    page = press(open_page(), "Train")
    page.selectbox(key="train1_preset").set_value("demo-sft").run()
    page.text_input(key="train1_demo-sft_name").set_value("walk").run()
    page.number_input(key="train1_demo-sft_run.steps").set_value(60).run()
    assert page.selectbox(key="train1_preset").value == "demo-sft"
    assert page.text_input(key="train1_demo-sft_name").value == "walk"
    press(page, "Check")
    assert [(request.preset, request.name, request.overrides) for request in planned] == [
        ("demo-sft", "walk", ("run.steps=60",))
    ]
    press(page, "Train")
    assert page.selectbox(key="train2_preset").value == "demo-irl"
    assert page.text_input(key="train2_demo-irl_name").value == "demo-irl"
    assert page.selectbox(key="train2_demo-irl_run.method").value == "irl"
    assert labels(page)["Start training (check it first)"] is False  # of what was checked before nothing is left


def test_what_is_typed_while_the_fields_of_a_new_preset_are_on_their_way_is_kept(planned: list[Any]) -> None:
    """A person who chooses a preset and types at once types into a field of the preset before."""
    page = press(open_page(), "Train")
    page.selectbox(key="train1_preset").set_value("demo-sft")
    page.number_input(key="train1_demo-irl_run.steps").set_value(3)
    page.text_input(key="train1_demo-irl_name").set_value("my-tiny").run()
    assert page.number_input(key="train1_demo-sft_run.steps").value == 3
    assert page.text_input(key="train1_demo-sft_name").value == "my-tiny"
    press(page, "Check")
    assert [(one.preset, one.name, one.overrides) for one in planned] == [("demo-sft", "my-tiny", ("run.steps=3",))]
    page.selectbox(key="train1_preset").set_value("demo-irl").run()  # chosen alone, a preset begins as it is
    assert page.number_input(key="train1_demo-irl_run.steps").value == 140


def test_of_fields_that_the_server_has_forgotten_only_what_was_typed_is_taken(planned: list[Any]) -> None:
    """A browser that has not drawn the new preset's fields yet sends all of the preset before once more."""
    page = press(open_page(), "Train")
    page.selectbox(key="train1_preset").set_value("demo-sft")
    page.number_input(key="train1_demo-irl_run.steps").set_value(3)
    late = page._tree.get_widget_states()
    page.number_input(key="train1_demo-irl_run.steps").set_value(140)
    page.run()
    page._run(late)
    assert not page.exception
    assert page.number_input(key="train1_demo-sft_run.steps").value == 3
    assert page.text_input(key="train1_demo-sft_name").value == "demo-sft"
    assert page.selectbox(key="train1_demo-sft_run.method").value == "sft"


def test_the_form_stays_when_the_page_is_drawn_anew() -> None:
    """As it is when a job has ended: what was filled in is not lost."""
    page = press(open_page(), "Train")
    page.number_input(key="train1_demo-irl_run.steps").set_value(20).run()
    page.run()
    assert page.number_input(key="train1_demo-irl_run.steps").value == 20
    page.session_state[training_form.OPEN] = False
    assert not [one for one in page.run().selectbox if one.key == "train1_preset"]


def test_nothing_can_be_started_before_it_was_checked(planned: list[Any]) -> None:
    page = open_form()
    assert labels(page)["Start training (check it first)"] is False
    assert page.selectbox(key="train_preset").value == "demo-irl"
    press(page, "Check what it takes")
    assert labels(page)["Start training"] is True
    assert "In all about 46 min on 2 CPU cores" in texts(page)  # with what is trained before it
    assert "irl, 180 steps: about 20 min\n" in texts(page)
    page.number_input(key="train_demo-irl_run.steps").set_value(20).run()
    assert labels(page)["Start training (check it first)"] is False
    assert [request.overrides for request in planned] == [()]


def test_the_choices_are_those_of_the_configuration() -> None:
    page = open_form()
    assert page.selectbox(key="train_demo-irl_run.method").options == ["sft", "irl", "grpo", "process"]
    assert page.selectbox(key="train_demo-irl_discriminator.loss").options[:3] == ["bce", "wasserstein", "sequence"]
    assert len(page.multiselect(key="train_demo-irl_discriminator.perturbations").options) == 8
    assert page.number_input(key="train_demo-irl_policy.num_generations").value == 8
    page.selectbox(key="train_preset").set_value("demo-sft").run()
    assert page.selectbox(key="train_demo-sft_run.method").value == "sft"
    assert page.number_input(key="train_demo-sft_run.steps").value == 1500


def test_a_training_is_started_with_what_was_chosen(planned: list[Any], started: list[Any]) -> None:
    page = open_form()
    page.number_input(key="train_demo-irl_run.steps").set_value(20)
    page.number_input(key="train_demo-irl_policy.num_generations").set_value(4)
    page.text_area(key="train_demo-irl_more").set_value("policy.gamma=0.8\n")
    page.text_input(key="train_demo-irl_name").set_value("mine").run()
    press(press(page, "Check"), "Start training")
    ((command, more),) = started
    assert command[3:] == [
        "train", "demo-irl", "--set=run.steps=20", "--set=policy.num_generations=4", "--set=policy.gamma=0.8",
        "--run-dir=runs/mine",
    ]  # fmt: skip
    assert (more["title"], more["run_dir"], more["device"]) == ("mine", Path("runs/mine"), "cpu")
    assert (more["user"], more["grace"]) == ("local", 120)
    (job,) = supervisor.list_jobs()
    page.run()
    assert job.active and "mine" in texts(page) and labels(page)["Cancel"] is True


def test_a_refusal_is_shown_and_nothing_can_be_started(planned: list[Any]) -> None:
    page = open_form()
    page.text_area(key="train_demo-irl_more").set_value("run.nonsense=1").run()
    press(page, "Check")
    assert "Unknown key 'run.nonsense'." in texts(page)
    assert labels(page)["Start training"] is False


def test_what_does_not_fit_needs_a_word_more(
    planned: list[Any], started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = replace(PLAN, device=replace(PLAN.device, free=PLAN.memory.total - 1e6))
    monkeypatch.setattr(training_plan, "plan", lambda request: tight)
    page = press(open_form(), "Check")
    assert f"It does not fit. {settings_that_fit(tight)}." in texts(page) and settings_that_fit(tight).startswith(
        "Set "
    )
    assert labels(page)["Start training"] is False
    page.checkbox(key="train_force").check().run()
    press(page, "Start training")
    assert started[0][0][-1] == "--force"


def test_what_cannot_be_had_cannot_be_started(planned: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    offline = replace(PLAN, origins=(*PLAN.origins[:-1], Origin("data", "openai/gsm8k", "missing")))
    monkeypatch.setattr(training_plan, "plan", lambda request: offline)
    page = press(open_form(), "Check")
    assert "Not on this machine, and the hub was not reached: openai/gsm8k." in texts(page)
    assert labels(page)["Start training"] is False


def test_on_a_busy_device_a_training_waits_and_can_be_taken_out(planned: list[Any]) -> None:
    page = press(open_form(), "Check")
    a_job()  # from another tab, meanwhile
    press(page, "Start training")
    waiting, running = supervisor.list_jobs()
    assert (waiting.state, running.state) == ("queued", "running")
    page = open_page()
    assert "demo-irl** waits for cpu" in texts(page) and "Number 1 in the queue" in texts(page)
    assert training_plan.free_name("demo-irl") == "demo-irl-2"  # though there is no folder yet
    press(page, "Take out of the queue")
    assert supervisor.get(waiting.id).state == "cancelled" and supervisor.get(running.id).active


def test_a_second_click_is_shown_the_job_of_the_first(planned: list[Any], started: list[Any]) -> None:
    pages = [press(open_form(), "Check") for _ in range(2)]
    for page in pages:
        press(page, "Start training")
    assert len(started) == len(supervisor.list_jobs()) == 1
    assert "cpu is busy with job 1, demo-irl; wait for it, or cancel it" in texts(pages[1])


def test_a_name_that_was_taken_meanwhile_is_told(planned: list[Any], started: list[Any]) -> None:
    page = press(open_form(), "Check")
    Path("runs/demo-irl").mkdir(parents=True)
    press(page, "Start training")
    assert "There is a run demo-irl already" in texts(page) and started == []


def test_presets_that_cannot_be_listed_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def presets() -> None:
        raise PlanError("demo-irl.yaml: not YAML.")

    monkeypatch.setattr(training_plan, "presets", presets)
    assert "demo-irl.yaml: not YAML." in texts(open_form())


def test_who_may_not_train_can_neither_start_nor_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "may", lambda action: action != "train")
    monkeypatch.setattr(access, "reason", lambda action: "Only named users may train.")
    job = a_job()
    page = open_page()
    assert labels(page)["Train \u2026"] is False and labels(page)["Cancel"] is False
    force(page, "Cancel")
    assert (supervisor.get(job.id).state, supervisor.get(job.id).asked) == ("running", None)


def test_a_start_that_is_sent_all_the_same_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, planned: list[Any], started: list[Any]
) -> None:
    monkeypatch.setattr(access, "may", lambda action: action != "train")
    monkeypatch.setattr(access, "reason", lambda action: "Only named users may train.")
    page = open_form()
    press(page, "Check what it takes")
    assert labels(page)["Start training"] is False
    force(page, "Start training")
    assert started == [] and supervisor.list_jobs() == []


# --------------------------------------------------------------------------------------------------------------- jobs


def test_a_job_is_cancelled_and_resumed() -> None:
    job = a_job()
    page = open_page()
    assert "mine" in texts(page)
    press(page, "Cancel")
    assert ended(job).state == "cancelled"
    page.run()
    assert "cancelled" in texts(page) and "Cancel" not in labels(page)
    press(page, "Resume")
    assert (supervisor.get(job.id).state, supervisor.get(job.id).attempt) == ("running", 2)


def test_a_job_that_was_asked_to_stop_says_so_in_the_very_run_of_the_click(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    job = a_job(deaf)
    while "up" not in job_tail(job):
        time.sleep(0.05)
    page = open_page()
    monkeypatch.setattr(streamlit, "rerun", lambda **_: pytest.fail("the page is drawn anew to say it"))
    press(page, "Cancel")
    assert labels(page)["Stopping \u2026"] is False and "Cancel" not in labels(page)
    assert "It finishes its step and saves" in texts(page) and supervisor.get(job.id).asked

    def refuse(_: int) -> Job:
        raise JobError("job 1 runs on another machine; cancel it there")

    monkeypatch.setattr(supervisor, "cancel", refuse)
    monkeypatch.setattr(supervisor, "get", lambda _: replace(job, asked=None))
    page.run()
    press(page, "Cancel")
    assert "job 1 runs on another machine; cancel it there" in texts(page)


def test_a_training_that_loads_says_for_how_long() -> None:
    a_job()
    (bar,) = open_page().get("progress")
    assert re.fullmatch(
        r"starting: loading the programs, the problems and the policy, \d+ s so far", bar.proto.text.replace("\\", "")
    )


def test_a_scoring_shows_its_last_line_and_belongs_to_who_may_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "may", lambda action: action == "upload")
    job = supervisor.start(Wanted("score", "my traces", [sys.executable, "-c", SLEEP], Path("runs/up"), "cpu"))
    while "a line of the log" not in job_tail(job):
        time.sleep(0.05)
    page = open_page()
    (bar,) = page.get("progress")
    assert bar.proto.text == "a line of the log" and bar.proto.value == 0
    with job.log.open("a") as log:
        log.write("Scored 1,200 of 2,400\n")
    page.run()
    (bar,) = page.get("progress")
    assert bar.proto.text == "Scored 1,200 of 2,400" and bar.proto.value == 50
    press(page, "Cancel")
    assert ended(job).state == "cancelled"


def test_cancelling_what_has_just_ended_is_harmless() -> None:
    job = a_job("import time; time.sleep(1)")
    page = open_page()
    ended(job)
    press(page, "Cancel")
    assert "Cancel" not in labels(page)


def test_a_failed_job_says_why_in_text_that_is_no_markup() -> None:
    ended(a_job("import sys; sys.exit('irl-lens: ![x](http://example.com/x.png) :red[y]')"))
    page = open_page()
    shown = next(caption.value for caption in page.sidebar.caption if "example" in caption.value)
    assert shown == "\\!\\[x\\]\\(http\\:\u2060//example\\.com/x\\.png\\) \\:red\\[y\\]"
    assert labels(page)["Resume"] is True


def test_resuming_on_a_busy_device_is_refused_in_words() -> None:
    ended(a_job("import sys; sys.exit(1)"))
    supervisor.start(Wanted("score", "other", [sys.executable, "-c", SLEEP], Path("runs/other"), "cpu"))
    page = press(open_page(), "Resume")
    assert "cpu is busy with job 2, other" in texts(page)


def test_a_finished_training_appears_among_the_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    status = "import json; json.dump({'state': 'finished', 'step': 9, 'steps': 9}, open('runs/mine/status.json', 'w'))"
    assert ended(a_job(status)).state == "finished"
    made = CheckpointInfo("mine/final", Path("runs/mine/final"), True, "", {}, {"kind": "tiny", "localisation": {}})
    sources = scoring_queue.Sources(fakes.load, lambda: [*fakes.catalogue(), made])
    monkeypatch.setattr(scoring_queue, "sources", sources)
    page = open_page()
    assert page.selectbox(key="checkpoint").options == ["fake", "mine/final"]
    assert "mine/final is among the checkpoints." in texts(page) and "Resume" not in labels(page)


def test_earlier_jobs_are_folded_away() -> None:
    for _ in range(3):
        ended(a_job("pass"))
    page = open_page()
    assert any(expander.label == "Earlier jobs (2)" for expander in page.expander)


def test_a_cancelled_job_stays_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    ended(a_job("pass"))
    ended(a_job("pass"))
    first, second = supervisor.list_jobs()
    told = [replace(first, state="cancelled", ended="2026-01-01"), replace(second, ended="2026-01-02")]
    monkeypatch.setattr(supervisor, "list_jobs", lambda: told)
    page = open_page()
    assert "cancelled" in texts(page) and not [one for one in page.expander if one.label.startswith("Earlier jobs")]


def test_the_job_in_the_way_is_said_at_the_top_of_the_form(planned: list[Any]) -> None:
    a_job()
    page = open_form()
    assert any("cpu is busy with job 1, mine" in one.value for one in page.info)
    press(page, "Check what it takes")
    assert labels(page)["Put it in the queue"] is True


def test_a_preset_for_a_gpu_is_refused_where_there_is_none(planned: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = replace(PLAN, durations=replace(PLAN.durations, machine=A100))
    monkeypatch.setattr(training_plan, "plan", lambda request: elsewhere)
    page = press(open_form(), "Check")
    assert "is made for a GPU, and this machine has none" in texts(page)
    assert "on an A100 40 GB, which this machine does not have" in texts(page)
    assert labels(page)["Start training"] is False
    assert "llama-8b-1b  (irl" in str(page.selectbox(key="train_preset").options)
    assert "on A100 40 GB)" in str(page.selectbox(key="train_preset").options)


def test_a_damaged_table_leaves_the_page_and_starts_nothing(folder: Path) -> None:
    (folder / "runs").mkdir()
    (folder / "runs" / store.FILE).write_bytes(b"no database, " * 200)
    page = open_page()
    assert "jobs.sqlite is damaged" in texts(page)
    assert labels(page)["Train \u2026"] is False
    assert labels(page)["Inspect"] is True
