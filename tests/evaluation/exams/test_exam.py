import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mengya.evaluation.exams.multiple_choice import multiple_choice

from mengya.data.exams.folders import CMMLU, find_exam, read_questions
from mengya.errors import UserError
from mengya.evaluation.exams.tasks import write_tasks

lm_eval = pytest.importorskip("lm_eval", reason="needs the extra eval")
HARNESS_TASKS = Path(lm_eval.__file__).parent / "tasks"
LETTERS = "ABCD"


def cmmlu_rows(count: int, salt: int) -> str:
    lines = [",Question,A,B,C,D,Answer"]
    lines += [
        f'{i},"第{i}题，{salt}加{i}是几？",{i},1.50,"甲，乙",NA,{LETTERS[(i * 7 + salt) % 4]}'
        for i in range(count)
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One subject that the harness knows, one that it does not."""
    folder = tmp_path_factory.mktemp("exam")
    for split, count in (("dev", 3), ("test", 20)):
        (folder / split).mkdir()
        for salt, subject in enumerate(("agronomy", "小镇 people")):
            text = cmmlu_rows(count, salt)
            (folder / split / f"{subject}.csv").write_text(text, "utf-8-sig")
    return folder


@pytest.mark.parametrize("num_fewshot", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_the_harness_on_the_command_line_gives_the_same_accuracy(
    checkpoint: Path, exam: Path, tmp_path: Path, num_fewshot: int
) -> None:
    ours = multiple_choice(checkpoint, exam, num_fewshot=num_fewshot, batch_size=8)
    names = write_tasks(find_exam(exam), tmp_path / "tasks", HARNESS_TASKS, num_fewshot)
    command = [
        sys.executable, "-m", "lm_eval", "--model", "hf",
        "--model_args", f"pretrained={checkpoint},dtype=float32",
        "--tasks", ",".join(names.values()), "--include_path", str(tmp_path / "tasks"),
        "--device", "cpu", "--batch_size", "8", "--output_path", str(tmp_path / "out"),
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    subprocess.run(command, check=True, env=os.environ | offline, capture_output=True, timeout=300)
    (file,) = (tmp_path / "out").rglob("results_*.json")
    theirs = json.loads(file.read_text("utf-8"))["results"]
    for subject, name in names.items():
        assert ours.subjects[subject].accuracy == theirs[name]["acc,none"]
        assert ours.subjects[subject].questions == 20
    right = sum(score.accuracy * 20 for score in ours.subjects.values())
    assert ours.overall.accuracy == pytest.approx(right / 40)
    assert ours.overall.interval[0] < ours.overall.accuracy < ours.overall.interval[1]
    assert ours.chance == 0.25


def test_no_network_no_cache_left_and_no_noise(
    checkpoint: Path, exam: Path, tmp_path: Path
) -> None:
    script = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from pathlib import Path\n"
        "from mengya.evaluation.exams.multiple_choice import multiple_choice\n"
        "for _ in range(2): print(multiple_choice(Path(sys.argv[1]), Path(sys.argv[2])).overall.questions)\n"
    )
    environment = os.environ | {
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
    }
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HOME", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint), str(exam)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("40\n40\n", "")
    assert [
        p for p in tmp_path.rglob("*") if p.is_file() and p.suffix in (".arrow", ".parquet")
    ] == []


def test_chat_template_and_limit(checkpoint: Path, exam: Path) -> None:
    plain = multiple_choice(checkpoint, exam, limit=5)
    chat = multiple_choice(checkpoint, exam, limit=5, chat_template=True, num_fewshot=1)
    assert plain.overall.questions == chat.overall.questions == 10
    assert chat.chat_template and chat.num_fewshot == 1


def test_prompts_that_were_cut_are_counted(checkpoint: Path, exam: Path) -> None:
    assert multiple_choice(checkpoint, exam, num_fewshot=0).cut_prompts == 0
    assert multiple_choice(checkpoint, exam, num_fewshot=3).cut_prompts == 40


def test_the_data_reach_the_harness_as_text(exam: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    names = write_tasks(find_exam(exam, ["小镇 people"]), tmp_path, HARNESS_TASKS)
    (file,) = tmp_path.glob("*.parquet")
    row = pyarrow.parquet.read_table(file).to_pylist()[1]
    assert row == {
        "Question": "第1题，1加1是几？",
        "A": "1",
        "B": "1.50",
        "C": "甲，乙",
        "D": "NA",
        "Answer": "A",
    }
    task = (tmp_path / f"{names['小镇 people']}.yaml").read_text("utf-8")
    assert "cmmlu_agronomy.yaml" in task and "以下是关于小镇 people的单项选择题" in task


def test_ceval_layout(checkpoint: Path, tmp_path: Path) -> None:
    for split, count in (("dev", 2), ("val", 6)):
        (tmp_path / split).mkdir()
        lines = ["id,question,A,B,C,D,answer" + (",explanation" if split == "dev" else "")]
        lines += [
            f"{i},问{i},一,二,三,四,{LETTERS[i % 4]}" + (",因为" if split == "dev" else "")
            for i in range(count)
        ]
        (tmp_path / split / f"law_{split}.csv").write_text("\n".join(lines), "utf-8")
    (tmp_path / "test").mkdir()  # as in the archive: without answers
    (tmp_path / "test" / "law_test.csv").write_text(
        "id,question,A,B,C,D\n0,问,一,二,三,四\n", "utf-8"
    )
    result = multiple_choice(checkpoint, tmp_path, num_fewshot=2)
    assert list(result.subjects) == ["law"] and result.overall.questions == 6


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


def test_what_is_no_exam_or_no_checkpoint_is_refused(
    checkpoint: Path, exam: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="holds no exam"):
        multiple_choice(checkpoint, tmp_path)
    with pytest.raises(UserError, match="no subject physics; it has agronomy"):
        multiple_choice(checkpoint, exam, subjects=["physics"])
    with pytest.raises(UserError, match="num_fewshot=3 or less"):
        multiple_choice(checkpoint, exam, num_fewshot=9)
    with pytest.raises(UserError, match=r"no config\.json"):
        multiple_choice(tmp_path, exam)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "x.csv").write_text("question,A\n", "utf-8")
    with pytest.raises(UserError, match="no column Question"):
        multiple_choice(checkpoint, tmp_path)
    (tmp_path / "test" / "x.csv").write_bytes("Question,名".encode("gb2312"))
    with pytest.raises(UserError, match="UTF-8"):
        multiple_choice(checkpoint, tmp_path)
