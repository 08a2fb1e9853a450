"""Raw text of a small town, with what raw text has: copies, advertisements, telephone numbers, an exam.

    python examples/raw_town_text.py FOLDER

writes FOLDER/news.jsonl, FOLDER/forum.jsonl and FOLDER/ceval, an exam in the layout of C-Eval.
docs/data_tutorial.md begins there. Nobody and nothing in it is real.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from pathlib import Path

TOWNS = ["青石镇", "白沙村", "云岭县", "东河街道", "柳林乡", "望江区"]
WHO = [
    "镇政府",
    "村委会",
    "县医院",
    "第二小学",
    "合作社",
    "图书馆",
    "供电所",
    "农技站",
    "环卫所",
    "老年大学",
]
DID = [
    "昨天开放了新的阅览室",
    "修好了被洪水冲坏的石桥",
    "请来专家讲怎样防治稻瘟病",
    "把用了三十年的旧水管换成新管",
    "办了一场有两百人参加的运动会",
    "在河边种下八百棵树",
    "给老人免费量血压",
    "从下个月起延长开放时间",
]
WHY = [
    "以前大家要走很远的路",
    "去年的大雨造成了不小的损失",
    "这里的年轻人越来越少",
    "孩子放学以后没有地方去",
]
SAID = [
    "“这件事我们盼了很久，”一位老人说，“以后方便多了。”",
    "负责人表示，费用由县里和镇里各出一半。",
    "当地人说，最难的不是花钱，而是找到愿意干活的人。",
    "工作人员提醒，头一个月人会比较多，最好避开周末。",
    "几家商店的老板认为，人多起来以后生意也会好一些。",
    "下一步还要装路灯和栏杆，预计年底完工。",
]
POSTS = [
    "有没有人知道{}哪家的豆腐脑好吃？我找了一圈都关门了。",
    "楼主说得对，我家也是这样，问了{}的人才明白。",
    "不太同意楼上，{}的路不难走，就是下雨天要小心。",
    "昨天在{}排了一个小时的队，工作人员倒是挺耐心的。",
    "求助：电动车在{}半路没电了，哪里可以充？",
    "我小时候也在{}摔过一跤，现在想起来还疼。",
]
JUNK = [
    "<div><p>限时特价！加微信领红包，点击链接立即购买，先到先得！</p></div>",
    "锟斤拷烫烫烫锟斤拷锟斤拷",
    "顶" * 30,
]
EXAM = [
    ("青石镇的石桥修好用了多长时间？", "三天", "三年", "三十年", "三个月"),
    ("白沙村的合作社一共有多少条船？", "十二条", "二十二条", "五十二条", "四十二条"),
    ("云岭县图书馆新的阅览室在第几层？", "一层", "二层", "三层", "四层"),
    ("东河街道的末班车晚上几点钟发车？", "七点", "八点", "十点", "九点"),
]  # each with its options A to D; D is right


def news(draw: random.Random) -> str:
    """A report in three lines."""
    date = f"{draw.randint(1, 12)}月{draw.randint(1, 28)}日"
    first, second = (
        f"{draw.choice(WHO)}{draw.choice(DID)}。{draw.choice(WHY)}。" for _ in range(2)
    )
    return (
        f"本报{draw.choice(TOWNS)}{date}电　{first}\n{draw.choice(SAID)}\n"
        f"同一天，{second}{draw.choice(SAID)}"
    )


def thread(draw: random.Random) -> str:
    """Four posts of a forum."""
    return "\n".join(post.format(draw.choice(TOWNS)) for post in draw.sample(POSTS, 4))


def all_news(draw: random.Random) -> list[str]:
    """300 reports; 20 of them again with small changes, and five as they were."""
    reports = [news(draw) for _ in range(300)]
    changed = [f"{report.replace('老人', '大爷')}完" for report in reports[:20]]
    return [*reports, *changed, *reports[30:35]]


def all_posts(draw: random.Random) -> list[str]:
    """150 threads, 20 with a telephone number; junk, and two questions of the exam."""
    threads = [thread(draw) for _ in range(150)]
    for number in range(20):
        threads[number] += f"\n要的话打我电话1380013{1000 + number}。"
    asked = [f"考过这题吗？{q}A. {a} B. {b} C. {c} D. {d}，我选了D。" for q, a, b, c, d in EXAM[:2]]
    return [*threads, *JUNK, *asked]


def write_lines(path: Path, texts: list[str]) -> None:
    """One {"text": ...} a line."""
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    path.write_text("".join(lines), encoding="utf-8")


def main(folder: Path) -> None:
    """Write everything."""
    draw = random.Random(0)
    (folder / "ceval/val").mkdir(parents=True)
    write_lines(folder / "news.jsonl", all_news(draw))
    write_lines(folder / "forum.jsonl", all_posts(draw))
    with (folder / "ceval/val/town_val.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "question", "A", "B", "C", "D", "answer"])
        table.writerows([number, *item, "D"] for number, item in enumerate(EXAM))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
