"""Exams of every kind on a tiny checkpoint: layouts, protocols, chance, resume, words for what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mengya.data.exams.config import ExamSource
from mengya.data.exams.folders import CMMLU, read_questions
from mengya.data.exams.items import read_exams
from mengya.data.exams.local import read_local_exam
from mengya.data.training_record import TrainedOn, write_training_record
from mengya.errors import UserError
from mengya.evaluation.exams.benchmarks import BENCHMARKS, find_benchmark
from mengya.evaluation.exams.exam import ExamSettings, ask_exam
from mengya.evaluation.exams.model.journal import Journal, model_digest
from mengya.evaluation.exams.result import ExamResult
from mengya.evaluation.subject import Subject
from tests.evaluation.exams import exam_files

lm_eval = pytest.importorskip("lm_eval", reason="needs the extra eval")


@pytest.fixture(scope="session")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exam_files.cmmlu(tmp_path_factory.mktemp("exam") / "cmmlu")


def ask(subject: Subject, exam: Path | str, **settings: object) -> ExamResult:
    ((result, _),) = ask_exam(subject, str(exam), ExamSettings(**settings)).values()  # type: ignore[arg-type]
    return result


def test_no_network_no_cache_left_and_no_noise(
    checkpoint: Path, exam: Path, tmp_path: Path
) -> None:
    script = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from mengya.stages.evaluate import EvaluateConfig, measure\n"
        "for _ in range(2):\n"
        "    config = EvaluateConfig(checkpoint=sys.argv[1], exams=sys.argv[2], device='cpu')\n"
        "    print(measure(config).exams['cmmlu'].overall.questions)\n"
    )
    environment = os.environ | {
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[3] / "src"),
    }
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HOME", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint), str(exam)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("24\n24\n", "")
    assert [p for p in tmp_path.rglob("*") if p.suffix in (".arrow", ".parquet")] == []


LAYOUTS: dict[str, tuple[Callable[[Path], Path], str, int, float]] = {
    "cmmlu": (exam_files.cmmlu, "x", 24, 0.25),
    "ceval": (exam_files.ceval, "x", 6, 0.25),
    "mmlu": (exam_files.mmlu, "x", 16, 0.25),
    "agieval": (exam_files.agieval, "x", 8, (6 / 5 + 2) / 8),
    "c3": (exam_files.c3, "x", 6, (3 / 2 + 2 / 2 + 1 / 3) / 6),
    "cmrc": (exam_files.cmrc, "x.json", 2, 1.0),
    "xiezhi": (exam_files.xiezhi, "x.jsonl", 4, 0.25),
    "gaokao_bench": (exam_files.gaokao_bench, "x", 2, 0.25),
    "gsm8k": (exam_files.gsm8k, "x_test.jsonl", 6, 0.0),
    "cmath": (exam_files.cmath, "x.jsonl", 4, 0.0),
    "humaneval": (exam_files.humaneval, "x.jsonl", 1, 0.0),
    "zhoblimp": (exam_files.zhoblimp, "x.jsonl", 6, 0.5),
    "xstorycloze": (exam_files.xstorycloze, "x.jsonl", 6, 0.5),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_local_exam_is_known_by_its_layout(name: str, subject: Subject, tmp_path: Path) -> None:
    make, file, questions, chance = LAYOUTS[name]
    path = make(tmp_path / file)
    assert read_local_exam(path).benchmark == name
    result = ask(subject, path, num_fewshot=0, run_code=True)
    assert result.overall.questions == questions
    assert result.chance == pytest.approx(chance)
    assert result.title == BENCHMARKS[name].title
    assert sum(score.questions for score in result.subjects.values()) == questions
    assert result.chance is not None
    assert result.above_chance == (result.overall.interval[0] > result.chance)


def test_both_protocols_next_to_each_other(subject: Subject, exam: Path) -> None:
    settings = ExamSettings(protocols=["letters", "answers"], limit=4)
    asked = ask_exam(subject, str(exam), settings)
    letters, answers = asked["letters"], asked["answers"]
    assert (letters[0].metric, answers[0].metric) == ("acc", "acc_norm")
    assert letters[1][0]["choices"] == [" A", " B", " C", " D"]
    assert answers[1][0]["choices"] == ["0", "1.50", "甲，乙", "NA"]
    assert "1.50" in letters[1][0]["prompt"] and "1.50" not in answers[1][0]["prompt"]
    item = answers[1][0]
    best = max(range(4), key=lambda n: item["logps"][n] / len(item["choices"][n]))
    assert item["score"] == (best == item["target"])


def test_an_exam_that_has_no_such_protocol_is_asked_in_its_own(
    subject: Subject, tmp_path: Path
) -> None:
    path = exam_files.gsm8k(tmp_path / "x.jsonl", 2)
    settings = ExamSettings(protocols=["letters"], num_fewshot=0)
    assert list(ask_exam(subject, str(path), settings)) == ["generation"]


def test_scores_by_subject_and_category(subject: Subject, exam: Path, tmp_path: Path) -> None:
    result = ask(subject, exam)
    assert list(result.subjects) == ["agronomy", "小镇 people"]
    assert result.categories == {"Other": result.subjects["agronomy"]}
    grades = ask(subject, exam_files.cmath(tmp_path / "x.jsonl")).categories
    assert {name: score.questions for name, score in grades.items()} == {"grade 1": 2, "grade 2": 2}


def test_subjects_and_limit(subject: Subject, exam: Path) -> None:
    assert ask(subject, exam, subjects=["agronomy"], limit=5).overall.questions == 5
    assert ask(subject, exam, limit=5).overall.questions == 10


def test_prompts_that_were_cut_are_counted(subject: Subject, exam: Path) -> None:
    assert ask(subject, exam, num_fewshot=0).cut_prompts == 0
    assert ask(subject, exam, num_fewshot=3).cut_prompts == 24


def test_other_metrics_and_filters_are_given_too(subject: Subject, tmp_path: Path) -> None:
    result = ask(subject, exam_files.gsm8k(tmp_path / "x.jsonl", 2), num_fewshot=0)
    assert list(result.others) == ["exact_match/flexible-extract"]


@pytest.mark.parametrize("make", [exam_files.cmmlu, exam_files.gsm8k])
def test_an_interrupted_exam_goes_on_and_gives_the_same_items(
    make: Callable[[Path], Path], subject: Subject, tmp_path: Path
) -> None:
    path, file = str(make(tmp_path / "exam")), tmp_path / "journal.jsonl"
    path = str(Path(path).rename(tmp_path / "exam.jsonl")) if Path(path).is_file() else path
    settings = ExamSettings(batch_size=3, num_fewshot=1)
    digest = model_digest(subject.model)
    first = ask_exam(subject, path, settings, Journal(file, digest))
    lines = file.read_text("utf-8").splitlines(keepends=True)
    assert len(lines) > 2
    file.write_text("".join(lines[:2]) + lines[2][:20], "utf-8")  # a crash in the third line
    journal = Journal(file, digest)
    assert ask_exam(subject, path, settings, journal) == first and journal.reused == 1
    full = Journal(file, digest)
    assert ask_exam(subject, path, settings, full) == first and full.reused == len(lines) - 1
    other = Journal(file, "another model")
    assert ask_exam(subject, path, settings, other) == first and other.reused == 0


def test_the_digest_of_a_model_changes_with_its_weights(subject: Subject) -> None:
    before = model_digest(subject.model)
    weight = subject.model.model.norm.weight
    with torch.no_grad():
        weight[0] += 1
        changed = model_digest(subject.model)
        weight[0] -= 1
    assert changed != before == model_digest(subject.model)


def test_the_data_reach_the_harness_as_text(exam: Path) -> None:
    row = read_local_exam(exam, ["小镇 people"]).subjects["小镇 people"].rows[1]
    assert row == {
        "Question": "第1题，1加1是几？",
        "A": "1",
        "B": "1.50",
        "C": "甲，乙",
        "D": "NA",
        "Answer": "A",
    }


def test_every_name_is_one_of_the_harness_or_ours() -> None:
    from lm_eval.tasks import TaskManager

    from mengya.evaluation.exams.definitions import HUB_DATA, OWN, PROTOCOLS

    known = set(TaskManager().all_tasks)
    for name, benchmark in BENCHMARKS.items():
        names = (benchmark.hub,) if isinstance(benchmark.hub, str) else benchmark.hub or ()
        assert name in HUB_DATA or set(names) <= known, name
        assert name in OWN or benchmark.file or name == "gaokao", name
        for protocol in benchmark.protocols[1:]:
            assert (name, protocol) in PROTOCOLS


def test_an_unknown_name_lists_what_there_is_and_the_closest() -> None:
    with pytest.raises(UserError, match=r"did you mean exams=ceval\?") as error:
        find_benchmark("C-Evall")
    assert all(f"  {name} " in str(error.value) for name in BENCHMARKS)
    with pytest.raises(UserError, match=r"^exams=NAME loads") as error:
        find_benchmark("list")
    assert "did you mean" not in str(error.value)


def test_a_benchmark_without_hub_data_and_a_hub_out_of_reach_are_said(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="Xiezhi is read from local files only; write exams=FOLDER"):
        ask(subject, "xiezhi")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"cannot load .*XCOPA|cannot load cambridgeltl/xcopa"):
        ask(subject, "xcopa")
    with pytest.raises(UserError, match="no subject chemistryy; it has"):
        ask(subject, "agieval", subjects=["chemistryy"])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("0,问,一,二,三,四,E", "line 2: answer 'E'"),
        ("0,问,一,,三,四,A", "line 2: B is empty"),
        ("0,问,一,二,三,四,", "answer is empty"),
        ("0,问,一,二", "C, D, Answer is empty"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: str, reason: str) -> None:
    file = tmp_path / "x.csv"
    file.write_text(f",Question,A,B,C,D,Answer\n{row}\n", "utf-8")
    with pytest.raises(UserError, match=reason):
        read_questions(file, CMMLU)


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([{"question": "q", "answer": "no result"}], "record 1 .*no line '#### RESULT'"),
        ([{"question": "q", "answer": "#### 1"}, {"question": "q"}], "record 2: no field answer"),
        ([{"body": "q"}], "holds no exam that is known"),
        (
            [{"question": "q", "labels": [], "options": "一\n二", "answer": "三"}],
            "record 1 is not as those of xiezhi",
        ),
    ],
)
def test_bad_records_are_named(tmp_path: Path, records: list[dict], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read_local_exam(exam_files.jsonl(tmp_path / "x.jsonl", records))


def test_files_of_two_exams_are_refused(tmp_path: Path) -> None:
    exam_files.gsm8k(tmp_path / "a.jsonl")
    exam_files.cmath(tmp_path / "b.jsonl")
    with pytest.raises(UserError, match="holds files of gsm8k and of cmath"):
        read_local_exam(tmp_path)


def test_what_is_no_exam_is_refused(subject: Subject, exam: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        ask(subject, tmp_path / "nothing")
    with pytest.raises(UserError, match="no subject physics; it has agronomy"):
        ask(subject, exam, subjects=["physics"])
    with pytest.raises(UserError, match="num_fewshot=3 or less"):
        ask(subject, exam, num_fewshot=9)
    few = exam_files.gsm8k(tmp_path / "few.jsonl", 3)
    with pytest.raises(UserError, match="num_fewshot=2 or less"):  # not the question itself
        ask(subject, few, num_fewshot=3)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "x.csv").write_text("question,A\n", "utf-8")
    with pytest.raises(UserError, match="no column Question"):
        ask(subject, tmp_path)
    (tmp_path / "test" / "x.csv").write_bytes("Question,名".encode("gb2312"))
    with pytest.raises(UserError, match="UTF-8"):
        ask(subject, tmp_path)


def test_what_gaokao_bench_leaves_out_is_said(subject: Subject, tmp_path: Path) -> None:
    note = ask(subject, exam_files.gaokao_bench(tmp_path / "g")).note
    assert "1 questions whose answer is not one letter" in note and "notes.jsonl" in note


def test_examples_come_from_another_split_where_there_is_one(tmp_path: Path) -> None:
    (c3,) = read_local_exam(exam_files.c3(tmp_path / "c3")).subjects.values()
    assert (len(c3.rows), len(c3.examples)) == (6, 6)
    assert json.loads((tmp_path / "c3/c3-d-test.json").read_text("utf-8"))[0][0] == c3.rows[0][
        "passage"
    ].split("\n")


KEYED = [
    "cmmlu",
    "ceval",
    "mmlu",
    "agieval",
    "c3",
    "cmrc",
    "xiezhi",
    "gaokao_bench",
    "gsm8k",
    "humaneval",
]


@pytest.mark.parametrize("name", KEYED)
def test_prepare_and_evaluate_know_the_same_questions(
    name: str, subject: Subject, tmp_path: Path
) -> None:
    """What `prepare` notes of an exam's files is found again among the questions that were asked."""
    make, file, questions, _ = LAYOUTS[name]
    path = make(tmp_path / file)
    if name == "gaokao_bench":  # a folder with files without questions is refused by prepare
        path = path / "2010-2022_Biology_MCQs.json"
    (read,) = read_exams([ExamSource(path=str(path))])
    names = {each.part.name for each in read_local_exam(path).subjects.values() if each.part}
    scored = [part for part in read.parts if part.name in names]
    noted = {
        "parts": [{"name": part.name, "digest": part.digest} for part in scored],
        "keys": [scored[0].keys[0]],
        "unchecked_keys": [],
    }
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    write_training_record([TrainedOn("pretrain", "text", {"exams": [noted]})], folder)
    trained = Subject(subject.model, subject.tokenizer, folder, chat=False)
    seen = ask(trained, path, num_fewshot=0, run_code=True).contamination
    assert seen.checked == questions and seen.contaminated >= 1
    assert seen.clean is None or seen.clean.questions == questions - seen.contaminated
