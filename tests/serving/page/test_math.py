"""Mathematics in answers: drawn by the vendored renderer, loaded when needed; prices and code are text."""

from __future__ import annotations

import threading

import pytest
from playwright.sync_api import expect

from tests.helpers.page_reader import Reader
from tests.helpers.scripted_server import chat

FORMULAS = r"""行内 \(a^2\) 和 $b_1$，其中$c$是常数。

$$
\int_0^1 x\,dx = \frac12
- d
$$

\[ \boxed{42} \] 于是 $$e$$。

- 项目里的 \(f\)

| 式 | 值 |
|---|---|
| $g$ | 1 |"""

TEXTS = r"""这个 $5，那个 $6，合计 $11；from $5 and 10$ to US$7-A$8。
运行 `echo $HOME$x$`，变量 $HOME/$USER，转义 \$h\$。

```sh
echo $a$ \(b\) $$c$$
```"""


def shown(reader: Reader, text: str) -> list[str]:
    """The formulas of an answer once they are drawn, as KaTeX's own record of their source."""
    reader.server.answer = lambda _: chat(*text)
    page = reader.open()
    reader.ask("x")
    reader.answered()
    drawn = page.locator(".reply .formula.drawn annotation")
    if page.locator(".reply .formula").count():
        drawn.first.wait_for(state="attached")
    return drawn.all_text_contents()


def test_all_four_marks_are_drawn_with_the_renderer_of_the_page(reader: Reader) -> None:
    found = shown(reader, FORMULAS)
    page = reader.page
    expect(page.locator(".formula:not(.drawn)")).to_have_count(0)
    assert [source.strip() for source in found] == [
        "a^2", "b_1", "c", "\\int_0^1 x\\,dx = \\frac12\n- d", "\\boxed{42}", "e", "f", "g",
    ]  # fmt: skip
    expect(page.locator(".formula.display")).to_have_count(3)
    expect(page.locator(".formula math")).to_have_count(8)  # what screen readers read
    fonts = [url for url in reader.requested if url.endswith(".woff2")]
    assert fonts and all("/vendor/katex/fonts/" in url for url in fonts)
    assert page.evaluate("document.fonts.check('12px KaTeX_Main')")


def test_prices_variables_and_code_are_text_and_nothing_is_loaded_for_them(reader: Reader) -> None:
    assert shown(reader, TEXTS) == []
    expect(reader.page.locator(".reply .formula")).to_have_count(0)
    expect(reader.page.locator(".reply")).to_contain_text("这个 $5，那个 $6，合计 $11")
    expect(reader.page.locator(".reply")).to_contain_text("$HOME/$USER，转义 $h$。")
    expect(reader.page.locator(".code pre")).to_have_text("echo $a$ \\(b\\) $$c$$")
    assert not [url for url in reader.requested if "katex" in url]


def test_a_formula_without_an_end_stays_text(reader: Reader) -> None:
    hold = threading.Event()
    reader.server.answer = lambda _: chat("设 $$x * y * z", " = 1", "$$", hold=hold)
    page = reader.open()
    reader.ask("x")
    expect(page.locator(".reply .katex")).to_have_count(1)  # it ended before the stream did
    hold.set()
    reader.answered()
    reader.server.answer = lambda _: chat("1\n\n\\[\na *b* \\frac{1}{2}\n\n结束，\\(c *d*。")
    reader.ask("y")
    reply = reader.answered(2)
    expect(reply.locator(".katex")).to_have_count(0)
    expect(reply).to_contain_text("\\[\na *b* \\frac{1}{2}")
    expect(reply).to_contain_text("结束，\\(c d。")


def test_what_the_renderer_cannot_read_and_what_is_not_trusted(reader: Reader) -> None:
    hostile = r"$\href{javascript:window.hit=1}{a}$ $\includegraphics{http://evil.example/x.png}$"
    hostile += r" $\htmlStyle{position:fixed}{b}$ $\def\x{\x\x}\x$ $\rule{9999em}{9999em}$"
    found = shown(reader, rf"对 $x$，错 $\frac{{1$ 和 \(\nonsense{{y}}\)。{hostile}")
    page = reader.page
    assert found[0] == "x"
    wrong = page.locator(".formula:not(.drawn)")
    expect(wrong.first).to_have_text(r"$\frac{1$")
    expect(wrong.nth(1)).to_have_text(r"\(\nonsense{y}\)")
    assert page.evaluate("window.hit") is None
    expect(page.locator(".formula :is(a, img, [style*=fixed])")).to_have_count(0)
    height = page.locator(".reply").evaluate("element => element.scrollHeight")
    assert height < 2_000, "a rule may not be larger than the page"


@pytest.mark.parametrize("unit", ["$a{}$ ", "\\({} "])
def test_thousands_of_formulas_do_not_freeze_the_page(reader: Reader, unit: str) -> None:
    text = "".join(unit.replace("{}", str(i)) for i in range(10_000))
    page = reader.open()
    longest = page.evaluate(
        """async (text) => {
          const { LiveMarkdown } = await import("./markdown/markdown.js");
          const host = document.createElement("div");
          document.body.append(host);
          const gaps = [];
          let last = performance.now();
          new LiveMarkdown(host).update(text);
          host.hidden = true; // the renderer's own time, without the browser's layout
          for (let end = last + 800; last < end; ) {
            await new Promise((resolve) => setTimeout(resolve));
            gaps.push(performance.now() - last);
            last = performance.now();
          }
          return Math.max(...gaps);
        }""",
        text,
    )
    assert longest < 1_500


def test_a_formula_that_is_nested_too_deeply_stays_text(reader: Reader) -> None:
    """A browser's layout would overflow its stack: the tab crashes, and again when the chat is opened."""
    deep = [
        r"\frac{1}{" * 150 + "x" + "}" * 150,
        r"\def\a#1{\sqrt{#1}}" + r"\a{" * 150 + "x" + "}" * 150,
    ]
    found = shown(reader, "".join(f"$${formula}$$\n\n" for formula in [*deep, "e"]))
    assert [source.strip() for source in found] == ["e"]
    expect(reader.page.locator(".formula:not(.drawn)")).to_have_count(2)
