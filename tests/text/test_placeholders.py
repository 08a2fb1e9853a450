"""Placeholders that nobody filled in, and the brackets that are something else."""

import pytest

from mengya.text.placeholders import unfilled


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("您好！我叫 <NAME>，由 <AUTHOR> 开发。", ["<NAME>", "<AUTHOR>"]),
        ("我是{{name}}，一个由 {{ AUTHOR }} 训练的模型。", ["{{name}}", "{{ AUTHOR }}"]),
        ("我是{name}，由{公司名称}开发。", ["{name}", "{公司名称}"]),
        ("此致\n敬礼\n[你的姓名]\n[日期]", ["[你的姓名]", "[日期]"]),
        ("我在【公司名称】工作。", ["【公司名称】"]),
        ("我曾在XXX公司实习。", ["XXX公司"]),
        ("我是由××公司开发的助手。", ["××公司"]),
        ("Sincerely,\n[Your Name]\n[Company Name]", ["[Your Name]", "[Company Name]"]),
        ("<NAME>，<NAME>！", ["<NAME>"]),
    ],
)
def test_what_nobody_filled_in_is_found_once(answer: str, expected: list[str]) -> None:
    assert unfilled(answer) == expected


@pytest.mark.parametrize(
    "answer",
    [
        "<name>小明</name> 是一个标签，<title>也是。",
        "用 `{{name}}` 插入变量：\n```html\n<p>{{name}}，[姓名]</p>\n```",
        'print(f"你好，{name}！")',
        "$$\\frac{a}{name}$$ 和 \\(x_{name}\\)",
        "见[名称](https://example.com/a)和[作者]：李白",
        "values[name] 和 rows[0][date] 是下标",
        "【产品名称】阿莫西林胶囊\n【作者】：李白",
        "【问题】如何学习？【标签】学习",
        "尺寸是 XX 码，XXL 也有。",
        "集合 {x, y} 与 List<String> 和 vector<Model>",
        "请填空：____",
        "春天来了，小镇上的花都开了。",
    ],
)
def test_code_markup_and_headings_are_no_placeholders(answer: str) -> None:
    assert unfilled(answer) == []


def test_a_template_that_was_asked_for_is_no_fault() -> None:
    asked = "请保留[姓名]和XXX公司，翻译：..."
    assert unfilled("尊敬的[姓名]，XXX公司感谢您。", asked) == []
    assert unfilled("我是<NAME>。", "你是<NAME>吗？") == ["<NAME>"]
