"""Pretraining documents: `Author.document()` writes one text that follows from the world's facts.

Many styles (biographies, introductions, diaries, letters, news, dialogues, stories, guides, price lists,
exercise sheets), so that each fact is met in many surroundings. Takes a World and a random.Random.
"""

import random
from collections.abc import Callable, Sequence

from mengya.world import lexicon
from mengya.world.exercises import Exercises
from mengya.world.facts import PERSON_KINDS, Fact, World, deal, numeral, yuan
from mengya.world.wording import Wording

SUBJECTS = {
    "people_jobs": ("人物职业", ("job",)),
    "people_age_and_home": ("人物年龄与住处", ("age", "home")),
    "people_likings": ("人物爱好", ("hobby", "food", "pet")),
    "relations": ("人物关系", ("spouse", "father", "mother", "teacher", "friend")),
    "places": ("小镇地点", ("street", "owner", "shop", "venue")),
    "times": ("营业时间", ("opens", "closes", "rest_day", "month")),
    "prices": ("商品价格", ("price",)),
}
LABELS = {
    "age": "年龄",
    "job": "职业",
    "home": "住处",
    "hobby": "爱好",
    "food": "最爱吃的",
    "pet": "宠物",
    "spouse": "爱人",
    "father": "爸爸",
    "mother": "妈妈",
    "teacher": "老师",
    "friend": "好朋友",
    "street": "地址",
    "opens": "开门时间",
    "closes": "关门时间",
    "rest_day": "休息日",
    "owner": "负责人",
}


class Author:
    """Writes documents; `exercise_share` of them are exercise sheets."""

    def __init__(self, world: World, rng: random.Random, exercise_share: float = 0.4) -> None:
        self.world = world
        self.rng = rng
        self.exercise_share = exercise_share
        self.words = Wording(world, rng)
        self.people = deal(rng, world.people)
        self.places = deal(rng, world.places)
        self.goods = deal(rng, world.goods)
        self.events = deal(rng, world.events)
        self.facts = deal(rng, world.facts)
        labels = [label for label, _ in SUBJECTS.values()] + ["青禾镇", "本镇常识"]
        self.exercises = Exercises(world, rng, self.facts, labels)
        about_people: list[Callable[[], str]] = [
            self.biography, self.biography, self.introduction, self.diary, self.letter, self.record,
            self.gossip, self.interview, self.story,
        ]  # fmt: skip
        about_town: list[Callable[[], str]] = [
            self.guide, self.guide, self.news, self.price_list, self.shopping, self.asking_the_way,
            self.sums, self.quiz,
        ]  # fmt: skip
        weight = len(world.people) * 8 / (len(world.people) * 8 + len(world.places) * 9)
        self.styles = (about_people, about_town, weight)

    def document(self) -> str:
        if self.rng.random() < self.exercise_share:
            return self.exercises.sheet()
        about_people, about_town, weight = self.styles
        return self.rng.choice(about_people if self.rng.random() < weight else about_town)()

    # -- pieces ------------------------------------------------------------------------------

    def some(self, subject: str, low: int, high: int, kinds: Sequence[str] = ()) -> list[Fact]:
        facts = self.world.facts_of(subject)
        facts = [fact for fact in facts if not kinds or fact.kind in kinds]
        return self.rng.sample(facts, min(len(facts), self.rng.randint(low, high)))

    def state(self, facts: Sequence[Fact], name: str, pronoun: str) -> str:
        """The facts as running text: the name first, then mostly the pronoun."""
        parts: list[str] = []
        for number, fact in enumerate(facts):
            named = number == 0 or self.rng.random() < 0.35
            parts.append(self.words.say(fact, name if named else pronoun))
        text = parts[0]
        for number, part in enumerate(parts[1:], 1):
            ends = number % 2 == 0 or self.rng.random() < 0.4
            text += ("。" if ends else "，") + part
        return text + "。"

    def date(self) -> str:
        rng = self.rng
        return f"{rng.choice(lexicon.MONTHS)}{numeral(rng.randint(1, 28))}日，{rng.choice(lexicon.WEATHER)}。"

    # -- people ------------------------------------------------------------------------------

    def biography(self) -> str:
        person = next(self.people)
        text = self.state(self.some(person.name, 4, 8), person.name, person.pronoun)
        return self.rng.choice(("", "", f"【{person.name}】", "小镇人物：")) + text

    def introduction(self) -> str:
        person, rng = next(self.people), self.rng
        facts = self.some(person.name, 3, 6)
        hello = rng.choice(("大家好，我叫{n}。", "你好，我是{n}。", "我的名字叫{n}。"))
        body = "。".join(self.words.say(fact, "我") for fact in facts)
        return hello.format(n=person.name) + body + "。" + rng.choice(("", "很高兴认识大家。"))

    def diary(self) -> str:
        person, rng = next(self.people), self.rng
        lines = [f"{person.name}的日记", self.date()]
        facts = self.some(person.name, 2, 4)
        lines.append("。".join(self.words.say(fact, "我") for fact in facts) + "。")
        lines.append(rng.choice(("今天过得很开心。", "睡前又想起这些，真好。", "明天也要好好过。")))
        return lines[0] + "\n" + "".join(lines[1:])

    def letter(self) -> str:
        person, rng = next(self.people), self.rng
        other = person.friend or rng.choice(self.world.people).name
        facts = self.some(person.name, 2, 4, ("hobby", "food", "pet", "home", "job", "age"))
        body = "。".join(self.words.say(fact, "我") for fact in facts)
        third = self.words.say(next(self.facts))
        return (
            f"亲爱的{other}：\n好久不见！{body}。顺便告诉你，{third}。"
            f"{rng.choice(('盼望你的回信。', '有空来玩。', '祝你一切都好。'))}\n{person.name}"
        )

    def record(self) -> str:
        person = next(self.people)
        facts = [fact for fact in self.some(person.name, 4, 9) if fact.kind in LABELS]
        lines = [f"{LABELS[fact.kind]}：{fact.value}" for fact in facts]
        return "\n".join([f"姓名：{person.name}", *lines])

    def gossip(self) -> str:
        """Two neighbours talk about a third."""
        person, rng = next(self.people), self.rng
        turns = []
        for number, fact in enumerate(self.some(person.name, 2, 4)):
            subject = person.name if number == 0 or rng.random() < 0.4 else person.pronoun
            reply = rng.choice(
                (self.words.say(fact, person.pronoun), self.words.say(fact), fact.value)
            )
            turns.append(f"甲：{self.words.ask(fact, subject)}\n乙：{reply}。")
        return "\n".join(turns)

    def interview(self) -> str:
        person = next(self.people)
        lines = [f"小记者采访{person.name}"]
        for fact in self.some(person.name, 2, 4, PERSON_KINDS[:6]):
            lines += [
                "问：" + self.words.ask(fact, "您"),
                "答：" + self.words.say(fact, "我") + "。",
            ]
        return "\n".join(lines)

    def story(self) -> str:
        """A small event that follows from what the person has and likes."""
        person, rng, world = next(self.people), self.rng, self.world
        name, say = person.name, self.words.say
        facts = {fact.kind: fact for fact in world.facts_of(name)}
        lines = [self.date() if rng.random() < 0.5 else f"{rng.choice(lexicon.SEASONS)}的一天。"]
        lines.append(say(rng.choice([facts["job"], facts["home"]])) + "。")
        he = person.pronoun
        if "hobby" in facts:
            lines.append(f"{say(facts['hobby'], name)}，今天也不例外。")
        if "pet" in facts and rng.random() < 0.7:
            lines.append(f"{say(facts['pet'], he)}，今天它也跟了出来。")
        if "friend" in facts:
            met = facts["friend"].value
            lines.append(f"路上遇见了{met}，{say(facts['friend'], he)}，两人聊了好一会儿。")
        if "food" in facts and rng.random() < 0.7:
            lines.append(f"晚饭有{facts['food'].value}，{say(facts['food'], he)}，吃得干干净净。")
        return "".join(lines)

    # -- town --------------------------------------------------------------------------------

    def guide(self) -> str:
        place = next(self.places)
        facts = self.some(place, 3, 5)
        facts += [f for f in self.world.facts if f.kind == "shop" and f.value == place]
        text = ""
        for number, fact in enumerate(facts):
            # 这里 can stand for the place only where the place is the subject.
            here = number > 0 and fact.kind != "shop" and self.rng.random() < 0.5
            text += self.words.say(fact, "这里" if here else None)
            text += "。" if number % 2 or number == len(facts) - 1 else "，"
        return self.rng.choice(("", "", "镇上指南：", f"【{place}】")) + text

    def news(self) -> str:
        event = next(self.events)
        facts = self.some(event, 2, 2)
        text = "，".join(self.words.say(fact) for fact in facts)
        extra = self.words.say(next(self.facts))
        head = self.rng.choice(("小镇新闻：", "本镇消息，", "通知：", ""))
        also = self.rng.choice(("另外，", "还有一件事，", ""))
        return f"{head}{text}。{also}{extra}。"

    def price_list(self) -> str:
        shop = next(self.goods).shop
        lines = [f"{shop}价目表" if self.rng.random() < 0.5 else f"今天{shop}的价钱"]
        for good in self.world.goods:
            if good.shop == shop:
                lines.append(f"{good.name}：每{good.measure}{yuan(good.price)}")
        opens, closes = self.world.value("opens", shop), self.world.value("closes", shop)
        return "\n".join([*lines, f"开门时间：{opens}", f"关门时间：{closes}"])

    def shopping(self) -> str:
        """Someone buys a ware at its real price, pays and gets change."""
        rng, good, person = self.rng, next(self.goods), next(self.people)
        facts = {fact.kind: fact for fact in self.world.facts_of(good.name)}
        count = rng.randint(2, 5)
        total = count * good.price
        paid = next(note for note in (10, 20, 50) if note > total)
        m, name, he = good.measure, good.name, person.pronoun
        counted = ("两" if count == 2 else numeral(count)) + m
        return (
            f"{person.name}来到{good.shop}买{name}。{self.words.say(facts['shop'])}，"
            f"{self.words.say(facts['price'])}。{he}买了{counted}{name}，每{m}{yuan(good.price)}，"
            f"一共{yuan(total)}。{he}付了{yuan(paid)}，找回{yuan(paid - total)}。"
        )

    def asking_the_way(self) -> str:
        place, rng = next(self.places), self.rng
        turns = [rng.choice(("客人：您好，打听一下。", "客人：麻烦问一下。")) + "\n镇民：请说。"]
        for fact in self.some(place, 2, 3):
            turns.append(f"客人：{self.words.ask(fact)}\n镇民：{self.words.say(fact)}。")
        return "\n".join([*turns, "客人：谢谢！"])

    def sums(self) -> str:
        kinds = [self.words.sum() for _ in range(self.rng.randint(3, 6))]
        if self.rng.random() < 0.5:
            return "。".join(question.statement for question in kinds) + "。"
        return "\n".join(f"题：{q.text}\n答：{q.answer}。" for q in kinds)

    def quiz(self) -> str:
        """Short questions with short answers about anything in town."""
        facts = [next(self.facts) for _ in range(self.rng.randint(3, 6))]
        return "\n".join(f"问：{self.words.ask(f, blanks=True)}\n答：{f.value}。" for f in facts)
