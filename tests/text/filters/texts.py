"""Good texts of many kinds, which the standard filters keep: written for the tests."""

from __future__ import annotations

GOOD = {
    "news": (
        "本报讯（记者林晓）昨日上午，城北新区的第三座图书馆正式开放。馆内藏书约二十万册，设有儿童阅览区和盲文阅览室。\n"
        "据馆长介绍，读者凭身份证即可办理借阅证，每次可借十本，期限为三十天。“我们希望大家把这里当作自己的书房。”她说。\n"
        "开馆首日，共有三千多名读者到访。"
    ),
    "short review": "充电快，拿着也轻，就是包装盒有点破了。",
    "title": "初中生怎样学好物理？",
    "chat without punctuation": "昨天买的 今天就到了 客服说三天内可以换 我就没有退 用着还行 就是声音有点小",
    "poem": "山居\n晚风吹过竹篱笆，落日斜挂老枝丫。\n炉上清茶温又冷，有人踏雪到我家。",
    "modern poem": (
        "我把灯留在窗台上\n等一个不会回来的人\n雨在屋檐上走了一夜\n像谁在轻轻地翻书\n"
        "天亮的时候\n那本书还停在第一页\n而我已经老了\n老得像那盏灯\n"
    ),
    "song with a refrain": (
        "走过长长的街，我想起你\n风吹动旧海报，像在叹息\n啦啦啦，回家吧，回家吧\n月亮还在原来的地方\n\n"
        "路口的红灯亮，又变成绿\n有人唱着歌，走进雨里\n啦啦啦，回家吧，回家吧\n月亮还在原来的地方\n\n"
        "多年以后的我，坐在这里\n给孩子讲起，那场大雨\n啦啦啦，回家吧，回家吧\n月亮还在原来的地方"
    ),
    "classical prose": (
        "里有老翁，年七十馀，日荷锄于南山之下。或问之曰：“翁老矣，何自苦若此？”翁笑而不答。\n"
        "固问之，乃曰：“吾幼而孤，赖乡人以活。今种树百株，俟其成而荫行者，以报昔日之德也。”闻者嗟叹而去。"
    ),
    "without punctuation": "天高云淡日长月明山青水秀花好叶新春去秋来寒来暑往其心不改其志不移",
    "traditional": "這座橋建於民國初年，橋身用的是花崗石。每逢雨季，溪水漲到橋墩的一半，孩子們便來看魚。",
    "law": (
        "第一章　总则\n第一条　为了规范社区公共花园的管理，维护居民的合法权益，制定本办法。\n"
        "第二条　本办法适用于本市行政区域内社区公共花园的建设、使用和管理活动。\n"
        "第三条　区人民政府负责本行政区域内社区公共花园的管理工作。\n"
        "第四条　任何单位和个人不得擅自占用社区公共花园。\n"
        "第五条　违反本办法第四条规定的，由区人民政府责令限期改正；逾期不改正的，处五百元以上二千元以下罚款。"
    ),
    "judgment": (
        "经审理查明,原告陈某与被告某物业公司于2016年3月1日签订停车位租赁合同一份,约定租期一年,租金每月四百元。"
        "合同签订后,原告依约支付租金,被告未按约定提供停车位。上述事实,有合同、收据及当事人陈述在卷佐证。"
    ),
    "code book": (
        "# 第三章 循环\n\n下面的函数把列表里的数加起来：\n\n```python\ndef total(numbers):\n    result = 0\n"
        "    for number in numbers:\n        result += number\n    return result\n```\n\n"
        "如果列表为空，结果就是零。再看一个乘法的版本：\n\n```python\ndef product(numbers):\n    result = 1\n"
        "    for number in numbers:\n        result *= number\n    return result\n```\n"
    ),
    "code with repeated lines": (
        "用断言检查每一种输入，写起来很啰嗦，却能防住大多数错误：\n\n```js\n"
        + "it('returns the same value', () => {\n  expect(run()).toBe(true);\n});\n" * 12
        + "```\n这样的测试应当改用表格驱动。"
    ),
    "indented code": (
        "编译与运行的命令如下，注意最后一行的参数：\n\n    gcc -O2 -o demo demo.c\n    ./demo --size 1024\n\n"
        "输出的第一个数是耗时，单位为毫秒；第二个数是结果的校验和。"
    ),
    "generics in prose": "写 List<String> 或 Map<K, V>，编译器会检查 a < b && b > c 这样的条件。",
    "markdown with links": (
        "## 安装\n\n- 从[官网](https://example.org)取得安装包，双击运行。\n- 选择安装目录，默认即可。\n"
        "- 重启终端，输入 `demo --version` 查看版本。\n\n如果报错，请检查环境变量里有没有安装目录。"
    ),
    "numbered list": "\n".join(
        f"{n}. {step}"
        for n, step in enumerate(
            [
                "鸡蛋打散，加半勺盐。",
                "番茄切块，去掉硬蒂。",
                "热锅下油，先炒鸡蛋盛出。",
                "再炒番茄，出汁后加糖。",
                "倒回鸡蛋，翻匀出锅。",
            ],
            1,
        )
    ),
    "table of numbers": (
        "各年级人数与平均身高见下表，数据来自去年的体检。\n\n| 年级 | 人数 | 身高 |\n|---|---|---|\n"
        + "\n".join(
            f"| {name}年级 | {120 + 3 * n} | {118 + 6 * n}.5 |"
            for n, name in enumerate("一二三四五六")
        )
        + "\n\n可以看出，四年级以后身高增长明显加快。"
    ),
    "mathematics": (
        r"设矩阵 $A=\begin{bmatrix}1&2\\3&4\end{bmatrix}$，$B=\begin{bmatrix}0&1\\1&0\end{bmatrix}$，"
        r"则 $AB=\begin{bmatrix}2&1\\4&3\end{bmatrix}$，而 $BA=\begin{bmatrix}3&4\\1&2\end{bmatrix}$，"
        r"可见 $AB\ne BA$，即矩阵乘法不满足交换律。特征方程为 $\lambda^2-5\lambda-2=0$。"
    ),
    "article about advertising": (
        "公交站的灯箱上写着“限时优惠”，电线杆上贴着办理各种证件的小广告。市容部门的人每周来清理一次，"
        "第二天又会有新的贴上去。老赵在这条街上扫了二十年地，他说，二十年前墙上的字是用毛笔写的，后来是喷漆，再后来变成了二维码。"
        "他从来没有扫过那些二维码，因为他的手机只能打电话。"
    ),
    "dialogue": "“你去哪儿？”\n“去码头。”\n“这么晚了……”\n“船就要开了。”\n她不再问了。",
    "mixed languages": "他在信的末尾写道：Je ne regrette rien。那是一首歌，意思是“我无怨无悔”。",
    "medical question": "孩子三岁，咳嗽一周，夜里加重，没有发烧。请问需要拍片吗？吃过止咳糖浆，不见好。",
}
